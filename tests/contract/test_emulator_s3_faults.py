"""Faults of S3's calls on demand, and large objects beside job calls, as boto3 has them."""

import io
import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import boto3
import httpx
import psutil
import pytest
from botocore.config import Config
from botocore.exceptions import (
    ConnectionClosedError,
    HTTPClientError,
    IncompleteReadError,
    ResponseStreamingError,
)

from dispatcher.emulator.client import Emulator, EmulatorError
from dispatcher.emulator.process import running
from tests.contract.test_emulator import command
from tests.contract.test_emulator_s3 import KMS, MIB, TYPE, Offer, aws, offered, s3_of, signed, told

CUT = (ConnectionClosedError, HTTPClientError)


@pytest.fixture
def offer(codepipeline_emulator: Emulator) -> Offer:
    return offered(codepipeline_emulator)


@pytest.fixture
def other_thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def until_held(emulator: Emulator, call: Future[Any]) -> None:
    while not emulator.faults()[0].held:
        assert not call.done()


@pytest.mark.parametrize(
    ("kind", "more", "answer"),
    [
        ("error", {"error": "InvalidRequest"}, (400, "InvalidRequest")),
        ("error", {"error": "NoSuchKey", "status": 404}, (404, "NoSuchKey")),
        ("unavailable", {}, (503, "ServiceUnavailable")),
        ("unavailable", {"status": 500}, (500, "InternalError")),
        ("throttle", {}, (503, "SlowDown")),
        ("throttle", {"status": 429}, (429, "SlowDown")),
        ("expired-credentials", {}, (400, "ExpiredToken")),
    ],
)
def test_an_error_is_answered_in_s3_s_words(
    codepipeline_emulator: Emulator,
    offer: Offer,
    kind: str,
    more: dict[str, Any],
    answer: tuple[int, str],
) -> None:
    for operation in ("GetObject", "PutObject", "HeadObject"):
        codepipeline_emulator.add_fault(kind, operation=operation, **more)

    assert told(lambda: offer.s3.get_object(**offer.source)) == answer
    assert told(lambda: offer.s3.put_object(**offer.app, Body=b"x", **KMS)) == answer
    url = f"{codepipeline_emulator.url}/{'/'.join(offer.source.values())}"
    head = httpx.head(url, headers=signed("HEAD", url, offer.keys))

    assert (head.status_code, head.headers["content-length"]) == (answer[0], "0")
    assert codepipeline_emulator.artifact(offer.id, "App") is None
    assert offer.s3.get_object(**offer.source)["Body"].read() == b"source"
    calls = [(call.status, call.error, call.fault) for call in codepipeline_emulator.s3_calls()]
    assert calls == [(*answer, kind)] * 3 + [(200, None, None)]


def test_an_upload_that_fails_is_tried_again_by_boto3(
    codepipeline_emulator: Emulator, offer: Offer
) -> None:
    whole = os.urandom(9 * MIB)
    for operation in ("CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"):
        codepipeline_emulator.add_fault("throttle", operation=operation)
        codepipeline_emulator.add_fault("drop-before", operation=operation, after=1)
    session: Any = boto3.Session(*offer.keys.values())  # type: ignore[arg-type]
    s3 = session.client("s3", config=Config(retries={"mode": "standard", "max_attempts": 4}))

    s3.upload_fileobj(io.BytesIO(whole), *offer.app.values(), ExtraArgs=KMS)

    assert codepipeline_emulator.artifact(offer.id, "App") == whole
    assert {state.taken for state in codepipeline_emulator.faults()} == {1}


def test_a_connection_ends_before_the_call_or_after_it(
    codepipeline_emulator: Emulator, offer: Offer
) -> None:
    codepipeline_emulator.add_fault("drop-before", operation="PutObject")
    with pytest.raises(CUT):
        offer.s3.put_object(**offer.app, Body=b"first" * MIB, **KMS)
    before = codepipeline_emulator.artifact(offer.id, "App")
    codepipeline_emulator.add_fault("drop-after", operation="PutObject")
    with pytest.raises(CUT):
        offer.s3.put_object(**offer.app, Body=b"second", **KMS)

    assert before is None
    assert codepipeline_emulator.artifact(offer.id, "App") == b"second"
    calls = [(call.status, call.fault) for call in codepipeline_emulator.s3_calls("PutObject")]
    assert calls == [(None, "drop-before"), (200, "drop-after")]


@pytest.mark.parametrize("size", [100, 5 * MIB])
@pytest.mark.parametrize(("given", "read"), [(None, 50), (0, 0), (7, 7), (10**9, 100)])
def test_a_download_is_cut(
    codepipeline_emulator: Emulator, size: int, given: int | None, read: int
) -> None:
    offer = offered(codepipeline_emulator, os.urandom(size))
    more = {} if given is None else {"bytes": given}
    codepipeline_emulator.add_fault("truncate", operation="GetObject", **more)
    wanted = read if given in {0, 7} else read * size // 100

    found = offer.s3.get_object(**offer.source)["Body"].iter_chunks(size // 100)
    sizes: list[int] = []
    with pytest.raises((IncompleteReadError, ResponseStreamingError)):
        sizes.extend(map(len, found))

    assert wanted - size // 100 < sum(sizes) <= wanted
    assert len(offer.s3.get_object(**offer.source)["Body"].read()) == size


def test_calls_are_held_until_they_are_released(
    codepipeline_emulator: Emulator, offer: Offer, other_thread: ThreadPoolExecutor
) -> None:
    fault = codepipeline_emulator.add_fault("hold", operation="PutObject", when="before")
    s3 = offer.s3
    put = other_thread.submit(s3.put_object, **offer.app, Body=b"late" * MIB, **KMS)
    until_held(codepipeline_emulator, put)
    waiting = codepipeline_emulator.artifact(offer.id, "App")

    assert codepipeline_emulator.release(fault) == 1
    put.result()

    assert waiting is None
    assert codepipeline_emulator.artifact(offer.id, "App") == b"late" * MIB


def test_an_answer_is_held_after_the_call_was_handled(
    codepipeline_emulator: Emulator, offer: Offer, other_thread: ThreadPoolExecutor
) -> None:
    fault = codepipeline_emulator.add_fault("hold", operation="PutObject", when="after")
    s3 = offer.s3
    put = other_thread.submit(s3.put_object, **offer.app, Body=b"there", **KMS)
    until_held(codepipeline_emulator, put)

    assert codepipeline_emulator.artifact(offer.id, "App") == b"there"
    assert not put.done()
    codepipeline_emulator.remove_fault(fault)
    assert put.result()["ResponseMetadata"]["HTTPStatusCode"] == 200


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_reset_cuts_what_is_held(
    codepipeline_emulator: Emulator, offer: Offer, other_thread: ThreadPoolExecutor, when: str
) -> None:
    codepipeline_emulator.add_fault("hold", operation="GetObject", when=when)
    s3 = offer.s3
    get = other_thread.submit(s3.get_object, **offer.source)
    until_held(codepipeline_emulator, get)

    codepipeline_emulator.reset()

    with pytest.raises(CUT):
        get.result()
    assert codepipeline_emulator.s3_calls() == []


def test_a_call_may_be_late(codepipeline_emulator: Emulator, offer: Offer) -> None:
    codepipeline_emulator.add_fault("delay", operation="GetObject", seconds=0.2)
    earlier = codepipeline_emulator.calls()[-1].at

    offer.s3.get_object(**offer.source)["Body"].read()

    (call,) = codepipeline_emulator.s3_calls("GetObject")
    assert (call.status, call.fault) == (200, "delay")
    assert call.at - earlier >= 0.2


def test_a_rule_may_be_about_one_job_s_keys(codepipeline_emulator: Emulator, offer: Offer) -> None:
    other = offered(codepipeline_emulator)
    codepipeline_emulator.add_fault("throttle", operation="GetObject", job_id=other.id)

    assert offer.s3.get_object(**offer.source)["Body"].read() == b"source"
    assert aws().client("s3").get_object(**other.source)["Body"].read() == b"source"
    assert told(lambda: other.s3.get_object(**other.source)) == (503, "SlowDown")


def test_a_rule_without_an_operation_means_job_calls_alone(
    codepipeline_emulator: Emulator, offer: Offer
) -> None:
    codepipeline_emulator.add_fault("unavailable")

    offer.s3.get_object(**offer.source)

    (state,) = codepipeline_emulator.faults()
    assert (state.matched, state.taken) == (0, 0)


def test_what_is_refused_anyway_is_not_befallen(
    codepipeline_emulator: Emulator, offer: Offer
) -> None:
    codepipeline_emulator.add_fault("throttle", operation="PutObject")

    assert told(lambda: offer.s3.put_object(**offer.app, Body=b"x")) == (403, "AccessDenied")

    assert codepipeline_emulator.faults()[0].matched == 0


@pytest.mark.parametrize(
    ("kind", "operation", "words"),
    [
        ("abandon", "PutObject", "kind abandon cannot befall PutObject"),
        ("stale-nonce", "GetObject", "cannot befall"),
        ("truncate", "PutObject", "kind truncate cannot befall PutObject"),
        ("throttle", "PutObjects", "operation"),
    ],
)
def test_a_fault_that_cannot_be_is_said(
    codepipeline_emulator: Emulator, kind: str, operation: str, words: str
) -> None:
    with pytest.raises(EmulatorError, match=words):
        codepipeline_emulator.add_fault(kind, operation=operation)


def test_nothing_of_it_is_an_accident_of_the_server_s() -> None:
    with subprocess.Popen(
        command(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        emulator = Emulator(process.stdout.readline().split()[-1])
        emulator.put_object("artifacts", "key", b"before anybody called S3")
        emulator.reset()
        left = emulator.get_object("artifacts", "key")
        emulator.put_object("artifacts", "key", b"x" * 100)
        for kind in ("drop-before", "drop-after", "truncate"):
            emulator.add_fault(kind, operation="GetObject")
        url = f"{emulator.url}/artifacts/key"
        for _ in range(3):
            with pytest.raises(httpx.HTTPError):
                httpx.get(url, headers=signed("GET", url))

        process.terminate()

        assert process.wait(10) == 0
        assert process.stderr.read() == ""
    assert left is None


def test_an_aws_clock_that_is_off_is_s3_s_too(
    codepipeline_emulator: Emulator, offer: Offer
) -> None:
    codepipeline_emulator.set_clock(1000)

    assert told(lambda: offer.s3.get_object(**offer.source)) == (403, "RequestTimeTooSkewed")
    codepipeline_emulator.set_clock(600)
    assert offer.s3.get_object(**offer.source)["Body"].read() == b"source"


def test_there_may_be_more_large_objects_than_a_shell_allows_files() -> None:
    limited = ["sh", "-c", 'ulimit -Sn 40; exec "$@"', "sh", *command()]
    with subprocess.Popen(limited, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        emulator = Emulator(process.stdout.readline().split()[-1])

        for number in range(40):
            emulator.put_object("artifacts", str(number), bytes(MIB + 1))

        assert emulator.get_object("artifacts", "0") == bytes(MIB + 1)
        process.terminate()


def test_large_objects_take_no_memory_and_hold_up_no_job_call() -> None:
    with running() as emulator, pytest.MonkeyPatch.context() as environment:
        for name, value in emulator.environment.items():
            environment.setenv(name, value)
        (process,) = [
            child
            for child in psutil.Process().children()
            if str(emulator.url.rpartition(":")[2])
            in {str(c.laddr[1]) for c in child.net_connections()}
        ]
        offer = offered(emulator)
        whole = os.urandom(MIB) * 128
        idle = process.memory_info().rss
        with ThreadPoolExecutor(1) as pool:
            moved = pool.submit(move, offer, whole)
            slowest, most = watch(moved, process)

    assert moved.result() == len(whole)
    assert most - idle < len(whole) / 2
    assert slowest < 1


def move(offer: Offer, whole: bytes) -> int:
    """In one piece and in parts, there and back; how many bytes came back."""
    s3 = s3_of(offer.keys)
    s3.put_object(**offer.app, Body=whole, **KMS)
    s3.upload_fileobj(io.BytesIO(whole), *offer.app.values(), ExtraArgs=KMS)
    body = s3.get_object(**offer.app)["Body"]
    size = sum(len(piece) for piece in body.iter_chunks(MIB))
    assert s3.get_object(**offer.app, Range="bytes=5-1000004")["Body"].read() == whole[5:1000005]
    return size


def watch(moved: Future[int], process: psutil.Process) -> tuple[float, int]:
    """The slowest job call meanwhile, seconds, and the most memory, bytes."""
    codepipeline = aws().client("codepipeline")
    slowest, most = 0.0, 0
    while not moved.done():
        begun = time.perf_counter()
        assert codepipeline.poll_for_jobs(actionTypeId=TYPE)["jobs"] == []
        slowest = max(slowest, time.perf_counter() - begun)
        most = max(most, process.memory_info().rss)
    return slowest, most
