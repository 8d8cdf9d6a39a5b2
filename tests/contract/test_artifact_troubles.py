"""Artifacts where S3 is not itself: it hangs, lies, is another server, or is away for a while."""

import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from botocore.credentials import Credentials

from dispatcher.aws.artifacts import S3Artifacts, S3Storage
from dispatcher.engine.model import Belongings, Place, SessionKeys
from dispatcher.sdk import Failure, JobFailed, RevisionOutOfSync, SystemUnavailable

BELONGINGS = Belongings(
    inputs=(Place("In", "canary-bucket", "canary-key"),),
    outputs=(Place("Out", "canary-bucket", "canary-key"),),
    keys=SessionKeys("ASIA1", "canary-secret", "canary-token"),
)


@dataclass
class Watch:
    """`until`: so many times the transfers are told to go on."""

    until: float = float("inf")
    ends: list[int | None] = field(default_factory=list)

    def going_on(self) -> bool:
        self.until -= 1
        return self.until >= 0

    def moved(self, direction: str, name: str, done: int, of: int) -> bool:
        return self.until > 0

    def ended(self, direction: str, name: str, size: int | None) -> None:
        self.ends.append(size)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "S3"

    def do_GET(self) -> None:
        self.server.asked.append((self.command, dict(self.headers)))
        self.server.answer(self)

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    do_POST = do_DELETE = do_PUT  # noqa: N815 - its names

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


class S3(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.answer: Callable[[Handler], object] = lambda http: http.reply(503)


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    with S3() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return path


def opened(watch: Watch) -> Any:
    return S3Artifacts(10**9).open("eu-west-1", BELONGINGS, lambda: None, watch)


def stored(storage: S3Storage, file: Path) -> None:
    storage.store("Out", file, "text/plain")


def test_s3_that_is_away_for_some_seconds_costs_no_job(s3: S3, file: Path) -> None:
    back = time.monotonic() + 2.5

    def answer(http: Handler) -> None:
        http.reply(200, ETag='"1"') if time.monotonic() > back else http.reply(503)

    s3.answer = answer
    watch = Watch()

    with opened(watch) as storage:
        stored(storage, file)

    assert len(s3.asked) in {3, 4}
    assert watch.ends == [7]


def test_a_page_that_is_not_s3s_is_no_stored_artifact(s3: S3, file: Path) -> None:
    s3.answer = lambda http: http.reply(200, b"<html>login</html>")

    with opened(watch := Watch()) as storage, pytest.raises(SystemUnavailable, match="not S3"):
        stored(storage, file)

    assert watch.ends == [None]


@pytest.mark.parametrize("content_range", ["bytes 0-0/*", "nonsense/x"])
def test_a_size_that_nobody_can_read_is_no_bug_of_the_handlers(
    s3: S3, file: Path, content_range: str
) -> None:
    s3.answer = lambda http: http.reply(206, b"x", Content_Range=content_range, ETag='"1"')

    with opened(Watch()) as storage, pytest.raises(SystemUnavailable, match="not S3"):
        storage.fetch("In", file)


def test_an_address_that_is_none_is_no_bug_of_the_handlers(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "nowhere")

    with opened(Watch()) as storage, pytest.raises(SystemUnavailable):
        stored(storage, file)


def test_an_object_that_is_replaced_while_it_is_read_is_out_of_sync(s3: S3, file: Path) -> None:
    def answer(http: Handler) -> None:
        if http.headers["Range"] == "bytes=0-0":
            http.reply(206, b"x", Content_Range="bytes 0-0/1000", ETag='"1"')
        elif http.headers.get("If-Match") == '"1"':
            http.reply(412, b"<Error><Code>PreconditionFailed</Code></Error>")
        else:
            http.reply(200, b"y" * 1000, ETag='"2"')  # of the same size

    s3.answer = answer

    with opened(Watch()) as storage, pytest.raises(RevisionOutOfSync):
        storage.fetch("In", file)


def test_what_goes_wrong_has_no_cause_that_quotes_the_customers_places(s3: S3, file: Path) -> None:
    body = b"<Error><Code>AccessDenied</Code><Message>canary-arn</Message></Error>"
    s3.answer = lambda http: http.reply(403, body)

    with opened(Watch()) as storage, pytest.raises(Failure) as caught:
        stored(storage, file)

    assert caught.value.__context__ is None
    assert "canary" not in "".join(traceback.format_exception(caught.value))


def test_nothing_is_asked_of_s3_once_the_jobs_time_is_over(s3: S3, file: Path) -> None:
    s3.answer = lambda http: http.reply(200, ETag='"1"')

    with opened(Watch(until=0)) as storage:
        for step in (lambda: stored(storage, file), lambda: storage.fetch("In", file)):
            with pytest.raises(JobFailed, match="time was over"):
                step()

    assert s3.asked == []


def test_what_is_over_is_not_asked_again(s3: S3, file: Path) -> None:
    watch = Watch(until=3)  # when the client is made, and for its one request

    with opened(watch) as storage, pytest.raises(Failure):
        stored(storage, file)

    assert len(s3.asked) == 1


def test_a_thread_that_outlives_its_handler_moves_nothing(s3: S3, file: Path) -> None:
    s3.answer = lambda http: http.reply(200, ETag='"1"')
    with opened(Watch()) as storage:
        pass

    with pytest.raises(JobFailed, match="time was over"):
        stored(storage, file)

    assert s3.asked == []


def test_a_profile_of_the_workers_does_not_send_jobs_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = tmp_path / "config"
    profile.write_text("[default]\ns3 =\n  use_accelerate_endpoint = true\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(profile))

    client = S3Artifacts(1)._client("eu-west-1", Credentials("ASIA1", "secret", "token"))

    config: Any = client.meta.config

    assert config.s3["use_accelerate_endpoint"] is False
