"""Requests to a receiver: signed as https://www.standardwebhooks.com says, and tried where safe.

Knows nothing of what an answer means, and dials no address but those that the policy gave it.
"""

import base64
import functools
import hmac
import os
import re
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from dispatcher.sdk import ConfigurationError, Job, Secret, SystemUnavailable

from .allowed import Place, Policy

if TYPE_CHECKING:
    import httpx

BODY: Final = 64 * 1024
CONNECT: Final = 5.0  # seconds, of TCP and of TLS each
READ: Final = 10.0  # until the next bytes come
WHOLE: Final = 15.0  # one request; less than the 20 that a worker has at SIGTERM
_TRIES: Final = 3
_LONGEST_PAUSE: Final = 10.0
_UNTRUSTED: Final = "has a certificate that this worker does not trust for its name"


def key_of(secret: Secret) -> bytes:
    """The bytes to sign with. The specification's form alone is taken: it has one reading."""
    text, key = secret.get_secret_value(), b""
    with suppress(ValueError):
        key = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    if not text.startswith("whsec_") or not 24 <= len(key) <= 64:
        raise ConfigurationError("SigningSecret must be whsec_ and the base64 of 24 to 64 bytes.")
    return key


def sign(key: bytes, webhook_id: str, timestamp: int, body: bytes) -> str:
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()


@dataclass(frozen=True)
class Call:
    """A request that may be sent several times, signed anew each time."""

    method: str
    place: Place
    id: str  # the operation's: that of the job which started it
    key: bytes = field(repr=False)
    body: bytes = field(default=b"", repr=False)

    def headers(self) -> dict[str, str]:
        now = int(time.time())
        return {
            "host": self.place.netloc,
            "accept": "application/json",
            "accept-encoding": "identity",  # else 64 KiB might unpack to gigabytes
            "connection": "close",  # kept ones are found by address, whatever name they were for
            "content-type": "application/json",
            "user-agent": "codepipeline-dispatcher",
            "webhook-id": self.id,
            "webhook-timestamp": str(now),
            "webhook-signature": sign(self.key, self.id, now, self.body),
        }


@dataclass(frozen=True)
class Answer:
    """What came of a call: status 0 is no answer. `sent`: whether anything may have been done."""

    status: int = 0
    body: bytes = field(default=b"", repr=False)
    retry_after: str = ""
    sent: bool = True
    fault: str = "did not answer in time"

    @property
    def failed(self) -> bool:
        """Whether another try may fare better."""
        return self.status in (0, 429) or self.status >= 500

    @property
    def undone(self) -> bool:
        """Whether surely nothing came of it."""
        return not self.sent or self.status == 429

    @property
    def told(self) -> str:
        return f"answered {self.status}" if self.status else self.fault

    def pause(self, turn: int) -> float:
        if not self.retry_after:
            return float(turn)
        if not re.fullmatch("[0-9]{1,9}", self.retry_after):
            return _LONGEST_PAUSE  # a date, which is hardly ever nearer
        return min(float(self.retry_after), _LONGEST_PAUSE)


def exchange(job: Job[Any], policy: Policy, call: Call) -> Answer | None:
    """The last answer of a few tries where another one is safe; None if the job should stop."""
    answer = _attempt(job, policy, call, 0)
    for turn in range(1, _TRIES):
        if not (answer.undone if call.method == "POST" else answer.failed):
            break
        if job.wait(answer.pause(turn)):
            return None
        answer = _attempt(job, policy, call, turn)
    return answer


def _attempt(job: Job[Any], policy: Policy, call: Call, turn: int) -> Answer:
    addresses = policy.addresses(call.place)
    if addresses:
        answer = send(call, addresses[turn % len(addresses)])
    else:
        answer = Answer(sent=False, fault="has no address")
    job.log.info("webhook asked", extra={"method": call.method, "http_status": answer.status})
    return answer


class _Deadline:
    """Ends a whole request: httpx limits each wait alone, and a server may send drop by drop."""

    def __init__(self, seconds: float) -> None:
        self.over = False
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> "_Deadline":
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def trace(self, event: str, told: Mapping[str, Any]) -> None:
        """The request extension `trace` of httpx."""
        if event == "connection.start_tls.complete":
            self._socket = told["return_value"].get_extra_info("socket")
            if self.over:
                self._cut()

    def _cut(self) -> None:
        self.over = True
        if self._socket is not None:
            with suppress(OSError):
                # Not SSLSocket's own: it unwraps, a ValueError for who reads just then.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


@functools.cache
def _transport(ca_file: str | None) -> "httpx.HTTPTransport":
    """One a process, made in a handler, after all forks. No Client: it keeps cookies, logs URLs."""
    try:
        import httpx  # noqa: PLC0415 - an extra, while the folder of providers is loaded whole
    except ImportError:
        raise SystemUnavailable(
            "This worker lacks httpx; its operator must install codepipeline-dispatcher[webhook]."
        ) from None
    trust = httpx.create_ssl_context(trust_env=False)
    try:
        if ca_file:
            trust.load_verify_locations(ca_file)
    except OSError:
        raise ConfigurationError(
            "WEBHOOK_CA_FILE names no file of PEM certificates; this worker's operator must "
            "correct it."
        ) from None
    return httpx.HTTPTransport(verify=trust, trust_env=False)


def send(call: Call, address: str, read: float = READ, whole: float = WHOLE) -> Answer:
    """Dial this address, and no other, for the host that the certificate must name."""
    wire = _transport(os.environ.get("WEBHOOK_CA_FILE"))
    import httpx  # noqa: PLC0415 - surely there now

    at = f"[{address}]" if ":" in address else address
    with _Deadline(whole) as deadline:
        extensions = {
            "timeout": httpx.Timeout(read, connect=CONNECT).as_dict(),
            "sni_hostname": call.place.host,
            "trace": deadline.trace,
        }
        request = httpx.Request(
            call.method,
            f"https://{at}:{call.place.port}{call.place.path}",
            headers=call.headers(),
            content=call.body,
            extensions=extensions,
        )
        try:
            answer = _received(wire.handle_request(request))
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            untrusted = "CERTIFICATE_VERIFY_FAILED" in str(error)
            return Answer(sent=False, fault=_UNTRUSTED if untrusted else "cannot be reached")
        except httpx.TransportError:
            return Answer()
    return Answer() if deadline.over else answer


def _received(response: "httpx.Response") -> Answer:
    """With the body of a success, as far as it shows whether it is too large."""
    body = b""
    with closing(response):
        if response.is_success:
            for part in response.iter_raw():
                body += part
                if len(body) > BODY:
                    break
    return Answer(response.status_code, body, response.headers.get("retry-after", ""))
