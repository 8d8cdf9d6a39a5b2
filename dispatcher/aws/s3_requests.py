"""How the requests of one job's S3 client are signed, and when they are sent again.

Owns the job's session keys; must not know artifacts, nor what a refusal means to a pipeline."""

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from botocore.credentials import Credentials
from botocore.parsers import ResponseParserError
from s3transfer.exceptions import CancelledError

from dispatcher.engine.model import PortError, SessionKeys

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

log = logging.getLogger(__name__)

# CodePipeline's keys are good for 15 minutes, which AWS's Jenkins plug-in says, and no document.
RENEW_AFTER: Final = 12 * 60.0  # seconds: a request that is signed now may wait and be sent again
RENEW_AGAIN: Final = 30.0  # after a renewal that failed while the old keys may still be good
EXPIRED: Final = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
ASKED_ANEW: Final = "dispatcher_asked_anew"
ATTEMPTS: Final = 5  # of each request; the pauses between them are ours, see _pause


class Keyring:
    """One job's session keys, renewed before they end; for all threads of its transfers."""

    def __init__(
        self,
        keys: SessionKeys,
        renew: Callable[[], SessionKeys | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Made when the keys come, and not when they are first used."""
        self._renew = renew
        self._clock = clock
        self._lock = threading.Lock()
        self._current = _credentials(keys)
        self._due = clock() + RENEW_AFTER

    def current(self) -> Credentials:
        """To sign one request with, renewed in time; the old may do while the new are refused."""
        with self._lock:
            if self._clock() >= self._due:
                try:
                    self._ask()
                except PortError as error:
                    self._due = self._clock() + RENEW_AGAIN
                    log.warning("session keys not renewed", extra={"error": str(error)})
            return self._current

    def replace(self, refused: Credentials) -> None:
        """S3 says that these have ended. Raises what the renewal does."""
        with self._lock:
            if self._current is refused:  # else another thread was first
                self._ask()

    def _ask(self) -> None:
        keys = self._renew()
        if keys is not None:
            self._current = _credentials(keys)
        self._due = self._clock() + (RENEW_AGAIN if keys is None else RENEW_AFTER)


def _credentials(keys: SessionKeys) -> Credentials:
    return Credentials(keys.access_key_id, keys.secret_access_key, keys.session_token)


class Requests:
    """What is done with each request of one job's client: signed, looked at, sent again or not."""

    def __init__(self, keyring: Keyring, going_on: Callable[[], bool]) -> None:
        self._keyring = keyring
        self._going_on = going_on

    def attend(self, client: "S3Client") -> None:
        events = client.meta.events
        events.register("before-sign.s3", self._sign)
        events.register_first("needs-retry.s3", self._look)  # type: ignore[arg-type]  # its stub
        events.register("before-parse.s3.PutObject", _check_stored)

    def _sign(self, request: Any, operation_name: str, **_: object) -> None:
        if operation_name != "AbortMultipartUpload" and not self._going_on():
            raise CancelledError
        request.context.setdefault("signing", {})["request_credentials"] = self._keyring.current()

    def _look(
        self, response: Any, request_dict: dict[str, Any], attempts: int, **_: object
    ) -> float | None:
        """After how many seconds it is sent again, signed anew; None leaves that to botocore."""
        context = request_dict["context"]
        code = response[1].get("Error", {}).get("Code") if response else None
        if code in EXPIRED and ASKED_ANEW not in context:
            context[ASKED_ANEW] = True
            self._keyring.replace(context["signing"]["request_credentials"])
            return 0
        away = response is None or response[0].status_code >= 500
        return _pause(attempts) if away and attempts < ATTEMPTS and self._going_on() else None


def _pause(attempts: int) -> float:
    """About 15 s in all: botocore's own, of 0.75 s, outlasts no disturbance."""
    spread = random.uniform(0.75, 1.25)  # noqa: S311 - it guards nothing
    return spread * float(2 ** (attempts - 1))


def _check_stored(response_dict: dict[str, Any], **_: object) -> None:
    """A 200 without an ETag is a proxy's or a login page's, and nothing is stored."""
    if response_dict["status_code"] < 300 and "etag" not in response_dict["headers"]:
        raise ResponseParserError("PutObject: no ETag")
