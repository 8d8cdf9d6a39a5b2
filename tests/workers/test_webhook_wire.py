"""How a receiver is dialled, and what it cannot do to a worker: TLS, time-outs, large answers."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler

import pytest

from dispatcher.sdk import (
    ConfigurationError,
    Continue,
    Failure,
    JobFailed,
    PermissionDenied,
    Succeeded,
    SystemUnavailable,
)
from tests.workers.webhook_receiver import (
    JOB,
    KEY,
    Authority,
    Reply,
    Stage,
    staged,
)
from workers.webhook.allowed import Place
from workers.webhook.calls import CONNECT, READ, WHOLE, Answer, Call, send

DONE = Reply({"status": "succeeded"})
Patch = pytest.MonkeyPatch


def failing(stage: Stage, token: str | None = None) -> Failure:
    with pytest.raises(Failure) as caught:
        stage.run(token)
    return caught.value


# Whom it talks to


def test_the_name_is_what_the_receiver_sees_although_its_address_is_dialled(stage: Stage) -> None:
    stage.run()

    (request,) = stage.receiver.requests
    assert request.sni == "hooks.test"
    assert request.headers["host"] == f"hooks.test:{stage.receiver.port}"
    assert stage.lookups == ["hooks.test"]


def test_a_certificate_for_another_name_is_not_trusted(
    monkeypatch: Patch, authority: Authority
) -> None:
    with staged(monkeypatch, authority, names=["other.test", "127.0.0.1"]) as stage:
        failure = failing(stage)

        assert isinstance(failure, SystemUnavailable)
        assert failure.message == (
            "The webhook has a certificate that this worker does not trust for its name; "
            "nothing was started."
        )
        assert stage.receiver.requests == []


def test_a_certificate_of_a_stranger_is_not_trusted(
    stage: Stage, monkeypatch: Patch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stranger = Authority(tmp_path_factory.mktemp("stranger"))
    monkeypatch.setenv("WEBHOOK_CA_FILE", str(stranger.file))
    monkeypatch.setenv("SSL_CERT_FILE", str(stranger.file))

    assert "does not trust" in failing(stage).message
    assert stage.receiver.requests == []


def test_the_environment_adds_no_authority(
    stage: Stage, monkeypatch: Patch, authority: Authority
) -> None:
    monkeypatch.delenv("WEBHOOK_CA_FILE")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))

    assert "does not trust" in failing(stage).message


def test_a_second_name_at_the_same_address_shows_its_own_certificate(
    monkeypatch: Patch, authority: Authority
) -> None:
    """A kept connection is found by its address, so the first name's would do for the second."""
    with staged(monkeypatch, authority, names=["hooks.test"]) as stage:
        stage.run()
        stage.names["hooks.test"] = ["127.0.0.1"]
        other = stage.url.replace("hooks.", "other.")

        with pytest.raises(SystemUnavailable, match="does not trust"):
            stage.run(url=other)

        assert len(stage.receiver.requests) == 1


def test_each_request_has_a_connection_of_its_own(stage: Stage) -> None:
    token = stage.started()
    stage.run(token)
    stage.run(token)

    assert stage.receiver.connections == 2
    assert {one.headers["connection"] for one in stage.receiver.requests} == {"close"}


def test_a_name_is_resolved_once_and_not_again_for_the_connection(stage: Stage) -> None:
    """DNS rebinding: what is dialled is the address that was checked."""
    token = stage.started()
    stage.names["hooks.test"] = _changing(["127.0.0.1"], ["169.254.169.254"])

    outcome = stage.run(token)

    assert isinstance(outcome, Continue)
    assert stage.lookups == ["hooks.test"]
    assert len(stage.receiver.requests) == 1


def test_each_try_checks_the_addresses_anew(stage: Stage) -> None:
    token = stage.started()
    stage.names["hooks.test"] = _changing(["127.0.0.1"], ["169.254.169.254"])
    stage.replies(Reply(status=503))

    failure = failing(stage, token)

    assert isinstance(failure, ConfigurationError)
    assert len(stage.receiver.requests) == 1


class _changing(list[str]):  # noqa: N801 - reads as a function
    """Addresses that are others each time they are gone through, as a hostile name server's."""

    def __init__(self, *answers: list[str]) -> None:
        super().__init__(answers[0])
        self.answers = list(answers)

    def __iter__(self) -> Iterator[str]:
        return iter(self.answers.pop(0))


def test_proxies_of_the_environment_are_not_asked(stage: Stage, monkeypatch: Patch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.2:9")

    assert isinstance(stage.run(), Continue)


def test_no_netrc_and_no_cookies_are_sent(
    stage: Stage, monkeypatch: Patch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    netrc = tmp_path_factory.mktemp("home") / "netrc"
    netrc.write_text("default login me password canary\n")
    monkeypatch.setenv("NETRC", str(netrc))
    answer = {"status": "running", "status_url": "/runs/1"}
    stage.replies(Reply(answer, headers={"Set-Cookie": "session=canary; Path=/"}))

    stage.run(stage.started())

    assert {"authorization", "cookie"}.isdisjoint(stage.receiver.requests[0].headers)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_refused(stage: Stage, status: int) -> None:
    token = stage.started()
    to = f"https://other.test:{stage.receiver.port}/canary"
    stage.replies(Reply(status=status, headers={"Location": to}))

    for failure in (failing(stage), failing(stage, token)):
        assert isinstance(failure, ConfigurationError)
        assert "redirects are not followed" in failure.message
        assert "canary" not in failure.message
    assert [one.path for one in stage.receiver.requests] == ["/start", "/runs/1"]


def test_plain_http_is_not_spoken(stage: Stage) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    with server:
        port = server.getsockname()[1]
        heard: list[bytes] = []

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                heard.append(connection.recv(1))
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        answered = send(call(stage, port), "127.0.0.1")
        thread.join()

    assert not answered.sent
    assert heard == [b"\x16"]  # TLS's first byte


# What it does not put up with


def call(stage: Stage, port: int | None = None) -> Call:
    return Call("POST", Place("hooks.test", port or stage.receiver.port, "/start"), JOB, KEY)


def drip(seconds: float) -> Callable[[BaseHTTPRequestHandler], None]:
    """A header that never ends, a byte at a time."""

    def act(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        _drip(handler, seconds)

    return act


def drip_body(handler: BaseHTTPRequestHandler) -> None:
    """A body that is good at any point of time."""
    handler.wfile.write(b'HTTP/1.1 200 OK\r\n\r\n{"status": "succeeded"}')
    _drip(handler, 0.01)


def _drip(handler: BaseHTTPRequestHandler, seconds: float) -> None:
    gone = threading.Event()
    try:
        while not gone.wait(seconds):
            handler.wfile.write(b" ")
    except OSError:  # the worker has had enough
        gone.set()


@pytest.mark.parametrize("act", [drip(0.01), drip_body], ids=["header", "body"])
def test_a_receiver_that_dribbles_is_cut_off(
    stage: Stage, act: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    stage.replies(Reply(act=act))
    began = time.monotonic()

    answer = send(call(stage), "127.0.0.1", read=5, whole=0.3)

    assert answer == Answer()
    assert 0.3 <= time.monotonic() - began < 3


def test_a_time_that_is_up_before_tls_stands_is_up(stage: Stage) -> None:
    stage.replies(Reply(act=drip(60)))
    began = time.monotonic()

    answer = send(call(stage), "127.0.0.1", read=5, whole=0)

    assert answer == Answer()
    assert time.monotonic() - began < 3


def test_a_receiver_that_is_silent_is_left(stage: Stage) -> None:
    stage.replies(Reply(act=drip(60)))
    began = time.monotonic()

    answer = send(call(stage), "127.0.0.1", read=0.2, whole=60)

    assert answer == Answer()
    assert 0.2 <= time.monotonic() - began < 3


def test_no_request_outlasts_a_workers_grace() -> None:
    assert (CONNECT, READ, WHOLE) == (5, 10, 15)


def test_a_quick_request_leaves_no_timer_behind(stage: Stage) -> None:
    stage.run()

    assert not any(isinstance(one, threading.Timer) for one in threading.enumerate())


@pytest.mark.parametrize("spare", [0, 1])
def test_an_answer_is_of_64_kib_at_most(stage: Stage, spare: int) -> None:
    text = b'{"status": "succeeded"}'
    stage.replies(Reply(text + b" " * (64 * 1024 - len(text) + spare)))

    if spare:
        assert "JSON object of at most 64 KiB" in failing(stage).message
    else:
        assert stage.run() == Succeeded()


def endless(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b'HTTP/1.1 200 OK\r\n\r\n{"status": "succeeded"}')
    chunk = b" " * 65_536
    with suppress(OSError):
        while True:
            handler.wfile.write(chunk)
            handler.server.written += len(chunk)  # type: ignore[attr-defined]


def test_an_endless_answer_is_not_read_to_its_end(stage: Stage) -> None:
    stage.receiver.written = 0  # type: ignore[attr-defined]
    stage.replies(Reply(act=endless))

    failure = failing(stage)

    assert isinstance(failure, JobFailed)
    assert stage.receiver.written < 64 * 2**20  # type: ignore[attr-defined]


def test_the_text_of_a_refusal_is_not_waited_for(stage: Stage) -> None:
    said = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 1000\r\n\r\n"
    stage.replies(Reply(act=lambda handler: _say(handler, said)))

    assert isinstance(failing(stage), PermissionDenied)


def test_a_packed_answer_is_not_unpacked(stage: Stage) -> None:
    bomb = b"\x1f\x8b" + bytes(100)
    stage.replies(Reply(bomb, headers={"Content-Encoding": "gzip"}))

    failure = failing(stage)

    assert "must be a JSON object" in failure.message
    assert stage.receiver.requests[0].headers["accept-encoding"] == "identity"


ODD = [
    b"",
    b"\x00\x01\x02",
    b"HTTP/1.1 2000 OK\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}",
    b"HTTP/1.1 200 OK\r\nA\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\n" + b"X: " + b"a" * 200_000,
    b"ICY 200 OK\r\n\r\n{}",
]


@pytest.mark.parametrize("said", ODD, ids=range(len(ODD)))
def test_what_is_no_http_is_no_answer(stage: Stage, said: bytes) -> None:
    stage.replies(Reply(act=lambda handler: _say(handler, said)))

    failure = failing(stage)

    assert isinstance(failure, SystemUnavailable)
    assert failure.message.endswith("did not answer in time; the operation may have started.")


def _say(handler: BaseHTTPRequestHandler, said: bytes) -> None:
    with suppress(OSError):  # it may hang up before the end
        handler.wfile.write(said)


# What the operator has to do


def test_without_its_library_the_job_says_what_to_install(stage: Stage, monkeypatch: Patch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    monkeypatch.setenv("WEBHOOK_CA_FILE", "")  # another client than the one there is

    failure = failing(stage)

    assert isinstance(failure, SystemUnavailable)
    assert "codepipeline-dispatcher[webhook]" in failure.message


def test_the_library_is_not_loaded_with_the_providers() -> None:
    code = "import sys, workers.webhook; sys.exit('httpx' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_an_unreadable_authority_is_told(
    stage: Stage, monkeypatch: Patch, tmp_path_factory: pytest.TempPathFactory, content: str | None
) -> None:
    file = tmp_path_factory.mktemp("wrong") / "ca.pem"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("WEBHOOK_CA_FILE", str(file))

    failure = failing(stage)

    assert isinstance(failure, ConfigurationError)
    assert failure.message.startswith("WEBHOOK_CA_FILE names no file of PEM certificates")
    assert str(file) not in failure.message


def test_many_threads_share_one_client(stage: Stage) -> None:
    stage.replies(DONE)

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda _: stage.run(), range(24)))

    assert outcomes == [Succeeded()] * 24
    assert len(stage.receiver.requests) == 24
