"""A receiver of webhooks on loopback, over TLS, that answers what a test tells it."""

import base64
import functools
import hashlib
import hmac
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from dispatcher.sdk import Continue, Outcome, Secret
from dispatcher.testing import MadeJob, make_job
from workers.webhook import Config, webhook

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
JOB = "11111111-2222-4333-8444-555555555555"
_REAL = socket.getaddrinfo
NAMES = ("hooks.test", "other.test")  # both are on the certificate of most receivers


@dataclass(frozen=True)
class Reply:
    """`act` instead writes to the connection what no well-behaved receiver would."""

    body: Mapping[str, object] | bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    act: Callable[[BaseHTTPRequestHandler], None] | None = None


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    sni: str | None

    @property
    def told(self) -> Any:
        return json.loads(self.body)


class Authority:
    """A CA whose certificate is in a file."""

    def __init__(self, folder: Path) -> None:
        self.ca = trustme.CA()
        self.file = folder / "ca.pem"
        self.ca.cert_pem.write_to_path(self.file)

    @functools.cache  # noqa: B019 - as long as its module's tests
    def certificate(self, *names: str) -> trustme.LeafCert:
        return self.ca.issue_cert(*names)


class Receiver(ThreadingHTTPServer):
    """Gives its replies in their order, the last one for ever, and remembers the requests."""

    daemon_threads = True

    def __init__(self, authority: Authority, names: Sequence[str] = NAMES) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.port = int(self.server_address[1])
        self.replies: list[Reply] = [Reply({"status": "running", "status_url": "/runs/1"})]
        self.requests: list[Request] = []
        self.connections = 0
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.certificate(*names).configure_cert(context)
        self.wrap(context)

    def wrap(self, context: ssl.SSLContext) -> None:
        def remember(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
            connection.asked_for = name  # type: ignore[attr-defined]

        context.sni_callback = remember
        self.socket = context.wrap_socket(
            self.socket, server_side=True, do_handshake_on_connect=False
        )

    def get_request(self) -> tuple[socket.socket, Any]:
        self.connections += 1
        return super().get_request()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are what some tests are about."""

    def next_reply(self) -> Reply:
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Receiver

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.requestline.split(" ")[1]  # self.path has lost a second slash
        sni = getattr(self.connection, "asked_for", None)
        headers = {name.lower(): text for name, text in self.headers.items()}
        self.server.requests.append(Request(self.command, path, headers, body, sni))
        reply = self.server.next_reply()
        if reply.act is not None:
            self.close_connection = True
            reply.act(self)
            return
        sent = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        self.send_response(reply.status)
        for name, text in reply.headers.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    do_GET = do_POST = answer  # noqa: N815 - http.server's names

    def log_message(self, *_: object) -> None:
        """Nothing to standard error."""


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class Stage:
    """A receiver, a resolver that knows the names of a test alone, and jobs for the handler."""

    receiver: Receiver
    names: dict[str, list[str]]
    lookups: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"https://hooks.test:{self.receiver.port}/start"

    def replies(self, *replies: Reply) -> None:
        self.receiver.replies[:] = replies

    def job(self, token: str | None = None, **changes: Any) -> MadeJob[Config]:
        options = {
            name: changes.pop(name) for name in ("stopping", "inputs", "pipeline") & changes.keys()
        }
        given: dict[str, Any] = {"url": self.url, "signing_secret": Secret(SECRET)}
        config = Config(**given | changes)
        return make_job(config, continuation=token, client_id=None, id=JOB, **options)

    def run(self, token: str | None = None, **changes: Any) -> Outcome:
        return webhook(self.job(token, **changes))

    def started(self, **changes: Any) -> str:
        """The token of a started operation, whose start is then forgotten."""
        outcome = self.run(**changes)
        assert isinstance(outcome, Continue)
        self.receiver.requests.clear()
        self.receiver.connections = 0
        self.lookups.clear()
        return outcome.token


@contextmanager
def staged(
    monkeypatch: pytest.MonkeyPatch, authority: Authority, names: Sequence[str] = NAMES
) -> Iterator[Stage]:
    receiver = Receiver(authority, names)
    stage = Stage(receiver, {name: ["127.0.0.1"] for name in NAMES})
    allowed = ",".join(f"{name}:{receiver.port}" for name in NAMES)
    monkeypatch.setenv("WEBHOOK_ALLOWED_HOSTS", allowed)
    monkeypatch.setenv("WEBHOOK_ALLOWED_NETWORKS", "127.0.0.0/8")
    monkeypatch.setenv("WEBHOOK_CA_FILE", str(authority.file))
    resolving(monkeypatch, stage.names, stage.lookups)
    with serving(receiver):
        yield stage


def resolving(
    monkeypatch: pytest.MonkeyPatch, names: Mapping[str, list[str]], lookups: list[str]
) -> None:
    """Names go to these addresses, and no further; what is an address already stays one."""

    def answer(host: str, port: int, *rest: Any, **options: Any) -> Any:
        with suppress(ValueError, OSError):
            return _REAL(host, port, *rest, **options | {"flags": socket.AI_NUMERICHOST})
        lookups.append(host)
        if not names.get(host):
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        kind = socket.SOCK_STREAM
        return [
            (socket.AF_INET6 if ":" in one else socket.AF_INET, kind, 6, "", (one, port))
            for one in names[host]
        ]

    monkeypatch.setattr(socket, "getaddrinfo", answer)


def verified(request: Request, key: bytes = KEY) -> bool:
    """As the specification tells a receiver, written apart from what signs."""
    headers = request.headers
    signed = headers["webhook-id"] + "." + headers["webhook-timestamp"] + "."
    digest = hmac.new(key, signed.encode() + request.body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode() in headers["webhook-signature"].split(" ")
