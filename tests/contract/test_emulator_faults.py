"""Faults on demand, as a caller meets them: a process, unmodified AWS clients, plain sockets."""

import json
import signal
import socket
import subprocess
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError

from tests.contract.test_emulator import (
    BUILD,
    DEPLOY,
    FAILURE,
    SIGNED,
    TOKEN,
    UNKNOWN_ID,
    Emulator,
    begin_custom,
    command,
    emulator_with,
    eventually,
)


@pytest.fixture(scope="module")
def process() -> Iterator[Emulator]:
    with emulator_with() as emulator:
        emulator.aws = boto3.Session().client(
            "codepipeline", config=Config(retries={"total_max_attempts": 1}, read_timeout=20)
        )
        yield emulator
        emulator.aws.close()


@pytest.fixture
def shared(process: Emulator) -> Iterator[Emulator]:
    yield process
    process.http.delete("/_admin/faults").raise_for_status()
    process.admin("/_admin/clock", {"offset": 0}).raise_for_status()


@pytest.fixture
def deploy() -> dict[str, str]:
    return DEPLOY | {"version": uuid.uuid4().hex[:9]}


@pytest.fixture
def build() -> dict[str, str]:
    return BUILD | {"version": uuid.uuid4().hex[:9]}


@pytest.fixture
def other_thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def fault(emulator: Emulator, kind: str, **more: Any) -> str:
    answer = emulator.admin("/_admin/faults", {"kind": kind, **more}).raise_for_status()
    (added,) = answer.json()["faults"]
    return str(added["id"])


def faults(emulator: Emulator) -> dict[str, dict[str, Any]]:
    shown = emulator.http.get("/_admin/faults").raise_for_status().json()["faults"]
    return {entry["id"]: entry for entry in shown}


def offered(emulator: Emulator, build: dict[str, str]) -> dict[str, Any]:
    """A custom job, handed out: its id and nonce."""
    emulator.add_jobs(build)
    (job,) = emulator.aws.poll_for_jobs(actionTypeId=build)["jobs"]
    return {"jobId": job["id"], "nonce": job["nonce"]}


def last(emulator: Emulator, operation: str) -> tuple[Any, ...]:
    log = emulator.http.get("/_admin/log").raise_for_status().json()
    entry = [entry for entry in log if entry["operation"] == operation][-1]
    return entry["status"], entry["error"], entry["applied"], entry["fault"]


def bytes_of(emulator: Emulator, operation: str, request: dict[str, Any]) -> bytes:
    """All that comes back over a connection that would be kept open."""
    body = json.dumps(request).encode()
    headers = SIGNED | {
        "Host": "emulator",
        "X-Amz-Target": f"CodePipeline_20150709.{operation}",
        "Content-Length": str(len(body)),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    address = urlsplit(emulator.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as line:
        line.sendall(f"POST / HTTP/1.1\r\n{head}\r\n".encode() + body)
        received = b""
        while more := line.recv(65536):
            received += more
    return received


@pytest.mark.parametrize(
    ("rule", "code", "status"),
    [
        ({"kind": "error", "error": "JobNotFoundException"}, "JobNotFoundException", 400),
        ({"kind": "error", "error": "Strange", "status": 418}, "Strange", 418),
        ({"kind": "unavailable"}, "ServiceUnavailableException", 503),
        ({"kind": "unavailable", "status": 500}, "InternalFailure", 500),
        ({"kind": "throttle"}, "ThrottlingException", 400),
        ({"kind": "throttle", "status": 429}, "ThrottlingException", 429),
        ({"kind": "expired-credentials"}, "ExpiredTokenException", 400),
    ],
)
def test_an_error_is_answered_in_place_of_the_call(
    shared: Emulator, build: dict[str, str], rule: dict[str, Any], code: str, status: int
) -> None:
    job = offered(shared, build)
    fault(shared, operation="AcknowledgeJob", **rule)

    with pytest.raises(ClientError) as refused:
        shared.aws.acknowledge_job(**job)

    assert refused.value.response["Error"]["Code"] == code
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert last(shared, "AcknowledgeJob") == (status, code, False, rule["kind"])
    assert shared.job(job["jobId"])["status"] == "Dispatched"
    assert shared.aws.acknowledge_job(**job)["status"] == "InProgress"
    assert last(shared, "AcknowledgeJob") == (200, None, True, None)


@pytest.mark.parametrize(
    ("kind", "status", "logged"),
    [
        ("drop-before", "Dispatched", (None, None, False, "drop-before")),
        ("drop-after", "InProgress", (200, None, True, "drop-after")),
    ],
)
def test_a_dropped_connection_brings_no_byte_before_or_after_the_call_was_applied(
    shared: Emulator, build: dict[str, str], kind: str, status: str, logged: tuple[Any, ...]
) -> None:
    job, second = offered(shared, build), offered(shared, build)
    fault(shared, kind, operation="AcknowledgeJob", count=2)

    received = bytes_of(shared, "AcknowledgeJob", job)
    with pytest.raises(ConnectionClosedError):
        shared.aws.acknowledge_job(**second)

    assert received == b""
    assert last(shared, "AcknowledgeJob") == logged
    assert shared.job(job["jobId"])["status"] == status
    assert shared.job(second["jobId"])["status"] == status


def test_a_lost_reply_shows_up_as_an_invalid_nonce_at_the_next_try(
    shared: Emulator, build: dict[str, str]
) -> None:
    job = offered(shared, build)
    fault(shared, "drop-after", jobId=job["jobId"])
    with pytest.raises(ConnectionClosedError):
        shared.aws.acknowledge_job(**job)

    with pytest.raises(ClientError, match="InvalidNonceException"):
        shared.aws.acknowledge_job(**job)


@pytest.mark.parametrize(("cut", "size"), [({}, None), ({"bytes": 3}, 3), ({"bytes": 9999}, None)])
def test_a_truncated_body_is_shorter_than_its_head_announces(
    shared: Emulator, build: dict[str, str], cut: dict[str, int], size: int | None
) -> None:
    job, whole = offered(shared, build), b'{"status": "InProgress"}'
    fault(shared, "truncate", operation="AcknowledgeJob", **cut)

    head, body = bytes_of(shared, "AcknowledgeJob", job).split(b"\r\n\r\n")

    announced = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert whole.startswith(body)
    assert len(body) < announced
    assert size is None or len(body) == size
    assert last(shared, "AcknowledgeJob") == (200, None, True, "truncate")
    assert shared.job(job["jobId"])["status"] == "InProgress"


def test_boto3_takes_a_truncated_body_for_an_answer_without_members(
    shared: Emulator, build: dict[str, str]
) -> None:
    shared.add_jobs(build)
    job_id = begin_custom(shared.aws, build)
    fault(shared, "truncate", operation="GetJobDetails")

    answer = shared.aws.get_job_details(jobId=job_id)

    assert answer.keys() == {"ResponseMetadata"}


def test_an_empty_body_is_truncated_too(shared: Emulator, build: dict[str, str]) -> None:
    shared.add_jobs(build)
    job_id = begin_custom(shared.aws, build)
    fault(shared, "truncate", operation="PutJobSuccessResult")

    received = bytes_of(shared, "PutJobSuccessResult", {"jobId": job_id})

    assert b"content-length: 1\r\n" in received
    assert received.endswith(b"\r\n\r\n")
    assert shared.job(job_id)["status"] == "Succeeded"


def in_the_background(
    pool: ThreadPoolExecutor, emulator: Emulator, job: dict[str, Any]
) -> Future[Any]:
    return pool.submit(lambda: emulator.aws.acknowledge_job(**job)["status"])


@pytest.mark.parametrize(
    ("when", "status"), [({}, "Dispatched"), ({"when": "after"}, "InProgress")]
)
def test_a_held_call_goes_on_when_it_is_released(
    shared: Emulator,
    build: dict[str, str],
    other_thread: ThreadPoolExecutor,
    when: dict[str, str],
    status: str,
) -> None:
    job = offered(shared, build)
    held = fault(shared, "hold", operation="AcknowledgeJob", **when)
    answer = in_the_background(other_thread, shared, job)
    eventually(lambda: faults(shared)[held]["held"])
    before = shared.job(job["jobId"])["status"]

    released = [shared.admin("/_admin/release", {"id": held}).json() for _ in range(2)]

    assert answer.result(timeout=10) == "InProgress"
    assert before == status
    assert released == [{"released": 1}, {"released": 0}]
    assert last(shared, "AcknowledgeJob") == (200, None, True, "hold")
    assert faults(shared)[held]["held"] == 0


def test_deleting_a_fault_lets_go_what_it_holds(
    shared: Emulator, build: dict[str, str], other_thread: ThreadPoolExecutor
) -> None:
    job = offered(shared, build)
    held = fault(shared, "hold")
    kept = fault(shared, "throttle", jobId=UNKNOWN_ID)
    answer = in_the_background(other_thread, shared, job)
    eventually(lambda: faults(shared)[held]["held"])

    left = shared.http.delete("/_admin/faults", params={"id": held}).json()["faults"]

    assert answer.result(timeout=10) == "InProgress"
    assert [entry["id"] for entry in left] == [kept]


def test_a_delayed_call_waits_so_long(
    shared: Emulator, build: dict[str, str], other_thread: ThreadPoolExecutor
) -> None:
    first, second = offered(shared, build), offered(shared, build)
    fault(shared, "delay", jobId=first["jobId"], seconds=0.05)
    long = fault(shared, "delay", jobId=second["jobId"], seconds=3600, when="after")

    assert shared.aws.acknowledge_job(**first)["status"] == "InProgress"
    answer = in_the_background(other_thread, shared, second)
    eventually(lambda: faults(shared)[long]["held"])
    assert shared.job(second["jobId"])["status"] == "InProgress"
    assert not answer.done()
    assert shared.admin("/_admin/release", {}).json() == {"released": 1}
    assert answer.result(timeout=10) == "InProgress"


def test_a_delay_takes_the_time_it_says(shared: Emulator, build: dict[str, str]) -> None:
    job = offered(shared, build)
    fault(shared, "delay", jobId=job["jobId"], seconds=0.3)

    answer = shared.raw("AcknowledgeJob", json.dumps(job).encode())

    assert answer.status_code == 200
    assert answer.elapsed.total_seconds() >= 0.3


def test_a_duplicate_offer_shows_a_dispatched_custom_job_again_with_its_nonce(
    shared: Emulator, build: dict[str, str]
) -> None:
    twice = fault(shared, "duplicate-offer", operation="PollForJobs", count=2)
    job = offered(shared, build)
    shared.add_jobs(build)

    again = [shared.aws.poll_for_jobs(actionTypeId=build)["jobs"] for _ in range(3)]

    shown = [(job["id"], job["nonce"]) for jobs in again for job in jobs]
    assert shown[:2] == [(job["jobId"], job["nonce"])] * 2
    assert shown[2][0] != job["jobId"]
    assert faults(shared)[twice]["taken"] == 2
    assert shared.aws.acknowledge_job(**job)["status"] == "InProgress"
    assert shared.aws.poll_for_jobs(actionTypeId=build)["jobs"] == []


def test_a_duplicate_offer_is_of_the_job_it_names_and_leaves_room_for_others(
    shared: Emulator, deploy: dict[str, str]
) -> None:
    _, second, third = shared.add_jobs(deploy, count=3)
    shared.aws.poll_for_third_party_jobs(actionTypeId=deploy, maxBatchSize=2)
    fault(shared, "duplicate-offer", jobId=second)

    jobs = shared.aws.poll_for_third_party_jobs(actionTypeId=deploy, maxBatchSize=5)["jobs"]

    assert [job["jobId"] for job in jobs] == [second, third]


def test_a_stale_nonce_is_the_one_of_the_dispatch_before() -> None:
    with emulator_with("ack_window=t(seconds=0.2)") as emulator:
        (job_id,) = emulator.add_jobs()
        asked = {"jobId": job_id, "clientToken": TOKEN}
        nonces = []
        for _ in range(2):
            eventually(lambda: emulator.aws.poll_for_third_party_jobs(actionTypeId=DEPLOY)["jobs"])
            details = emulator.aws.get_third_party_job_details(**asked)["jobDetails"]
            nonces.append(details["nonce"])
        fault(emulator, "stale-nonce")

        stale = emulator.aws.get_third_party_job_details(**asked)["jobDetails"]["nonce"]
        with pytest.raises(ClientError, match="InvalidNonceException"):
            emulator.aws.acknowledge_third_party_job(**asked, nonce=stale)

    assert stale == nonces[0] != nonces[1]


def test_a_stale_nonce_of_a_first_offer_was_never_valid(
    shared: Emulator, build: dict[str, str]
) -> None:
    shared.aws.get_job_details(jobId=offered(shared, build)["jobId"])  # it shows no nonce
    stale = fault(shared, "stale-nonce", operation="PollForJobs")
    assert shared.aws.poll_for_jobs(actionTypeId=build)["jobs"] == []
    assert faults(shared)[stale]["matched"] == 0
    job = offered(shared, build)

    with pytest.raises(ClientError, match="InvalidNonceException"):
        shared.aws.acknowledge_job(**job)

    assert faults(shared)[stale]["taken"] == 1


def test_a_refused_call_shows_no_stale_nonce(shared: Emulator, deploy: dict[str, str]) -> None:
    (job_id,) = shared.add_jobs(deploy)
    shared.aws.poll_for_third_party_jobs(actionTypeId=deploy)
    fault(shared, "stale-nonce")

    with pytest.raises(ClientError, match="InvalidClientTokenException"):
        shared.aws.get_third_party_job_details(jobId=job_id, clientToken="another's")


def test_a_foreign_worker_acknowledges_first(shared: Emulator, build: dict[str, str]) -> None:
    job = offered(shared, build)
    fault(shared, "foreign-acknowledge")

    with pytest.raises(ClientError, match="InvalidNonceException"):
        shared.aws.acknowledge_job(**job)

    assert shared.job(job["jobId"])["status"] == "InProgress"
    refused = (400, "InvalidNonceException", False, "foreign-acknowledge")
    assert last(shared, "AcknowledgeJob") == refused


@pytest.mark.parametrize(("kind", "status"), [("abandon", "Failed"), ("time-out", "TimedOut")])
def test_a_job_ends_right_before_its_put(
    shared: Emulator, build: dict[str, str], kind: str, status: str
) -> None:
    shared.add_jobs(build)
    job_id = begin_custom(shared.aws, build)
    fault(shared, kind, operation="PutJobSuccessResult")

    with pytest.raises(ClientError, match="InvalidJobStateException"):
        shared.aws.put_job_success_result(jobId=job_id)

    assert shared.job(job_id)["status"] == status
    assert shared.job(job_id)["result"] is None


@pytest.mark.parametrize(("how", "status"), [("abandon", "Failed"), ("time-out", "TimedOut")])
def test_a_job_is_ended_by_an_admin_call_in_any_state_but_an_end(
    shared: Emulator, build: dict[str, str], how: str, status: str
) -> None:
    first = offered(shared, build)
    (second,) = shared.add_jobs(build)

    ended = [
        shared.admin(f"/_admin/jobs/{job_id}/{how}", {}) for job_id in (first["jobId"], second)
    ]
    again = shared.http.post(f"/_admin/jobs/{second}/{how}")

    assert [answer.json()["status"] for answer in ended] == [status] * 2
    assert (again.status_code, again.json()) == (
        400,
        {"error": f"the job has ended: it is {status}"},
    )
    assert shared.aws.poll_for_jobs(actionTypeId=build)["jobs"] == []
    with pytest.raises(ClientError, match="InvalidNonceException"):
        shared.aws.acknowledge_job(**first)
    with pytest.raises(ClientError, match="InvalidJobStateException"):
        shared.aws.put_job_failure_result(jobId=first["jobId"], failureDetails=FAILURE)


@pytest.mark.parametrize(
    ("offset", "says"), [(600, "Signature expired"), (-600, "Signature not yet current")]
)
def test_a_clock_that_is_off_by_more_than_five_minutes_refuses_signatures(
    shared: Emulator, build: dict[str, str], offset: float, says: str
) -> None:
    job = offered(shared, build)
    shared.admin("/_admin/clock", {"offset": offset}).raise_for_status()

    with pytest.raises(ClientError, match="InvalidSignatureException") as refused:
        shared.aws.acknowledge_job(**job)

    assert says in str(refused.value)
    assert last(shared, "AcknowledgeJob")[0] == 400
    assert shared.raw("AcknowledgeJob", b"{}").json()["__type"] == "IncompleteSignatureException"
    shared.admin("/_admin/clock", {"offset": 0}).raise_for_status()
    assert shared.aws.acknowledge_job(**job)["status"] == "InProgress"


def test_a_clock_that_is_little_off_only_shows_in_the_answers_date(
    shared: Emulator, build: dict[str, str]
) -> None:
    shared.add_jobs(build)

    def date() -> Any:
        answer = shared.aws.poll_for_jobs(actionTypeId=build)["ResponseMetadata"]["HTTPHeaders"]
        return parsedate_to_datetime(answer["date"])

    true = date()
    shared.admin("/_admin/clock", {"offset": -240}).raise_for_status()

    assert -240 <= (date() - true).total_seconds() < -220


def test_probability_and_seed_choose_the_same_calls_in_every_process() -> None:
    def befallen() -> list[int]:
        with emulator_with() as emulator:
            emulator.add_jobs()
            rule = {"operation": "GetJobDetails", "probability": 0.3, "seed": 5}
            fault(emulator, "throttle", **rule)
            codes = [
                emulator.raw("GetJobDetails", b'{"jobId": "%s"}' % UNKNOWN_ID.encode()).json()
                for _ in range(40)
            ]
        return [at for at, code in enumerate(codes) if code["__type"] == "ThrottlingException"]

    first, second = befallen(), befallen()

    assert first == second
    assert 2 < len(first) < 25


def test_rules_of_one_request_are_all_made_or_none(shared: Emulator) -> None:
    good = {"kind": "throttle", "jobId": UNKNOWN_ID}

    wrong = shared.admin("/_admin/faults", [good, {"kind": "delay"}])
    before = faults(shared)
    made = shared.admin("/_admin/faults", [good, good]).json()["faults"]

    assert (wrong.status_code, wrong.json()) == (
        400,
        {"error": "rule 2: kind delay needs seconds"},
    )
    assert before == {}
    assert [entry["id"] for entry in made] == list(faults(shared))
    assert made[0] == {
        **good,
        "id": made[0]["id"],
        "after": 0,
        "seed": 0,
        "matched": 0,
        "taken": 0,
        "held": 0,
    }


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("faults", {}, "kind"),
        ("faults", None, "structure"),
        ("faults", [5], "rule 1"),
        ("faults", {"kind": "flood"}, "kind"),
        ("faults", {"kind": "hold", "operation": "ListPipelines"}, "operation"),
        ("faults", {"kind": "hold", "cuont": 1}, "cuont"),
        ("faults", {"kind": "hold", "count": 0}, "count"),
        ("faults", {"kind": "hold", "count": 1.5}, "count"),
        ("faults", {"kind": "hold", "probability": 1.1}, "probability"),
        ("faults", {"kind": "hold", "probability": "often"}, "probability"),
        ("faults", {"kind": "hold", "after": -1}, "after"),
        ("faults", {"kind": "hold", "seed": "x"}, "seed"),
        ("faults", {"kind": "hold", "when": "later"}, "when"),
        ("faults", {"kind": "delay", "seconds": 10**400}, "seconds"),
        ("faults", {"kind": "hold", "seconds": 1}, "seconds"),
        ("faults", {"kind": "unavailable", "status": 200}, "status"),
        ("faults", {"kind": "error"}, "error"),
        ("faults", {"kind": "truncate", "bytes": -1}, "bytes"),
        ("release", {"id": "no such"}, "no fault no such"),
        ("release", {"ids": ["1"]}, "ids"),
        ("release", [], "structure"),
        ("clock", {}, "offset"),
        ("clock", {"offset": "1h"}, "offset"),
        ("clock", {"offset": 10**300}, "offset"),
        (f"jobs/{UNKNOWN_ID}/abandon", {}, "no job"),
        (f"jobs/{UNKNOWN_ID}/explode", {}, "explode"),
        (f"jobs/{UNKNOWN_ID}/abandon", {"why": 1}, "why"),
    ],
)
def test_a_wrong_admin_call_about_faults_is_told_what_is_wrong(
    shared: Emulator, path: str, body: object, says: str
) -> None:
    answer = shared.admin(f"/_admin/{path}", body)

    assert answer.status_code == 400
    assert says in answer.json()["error"]
    assert faults(shared) == {}


@pytest.mark.parametrize(
    ("method", "path", "says"),
    [
        ("DELETE", "faults?idd=1", "idd"),
        ("DELETE", "faults?id=none", "no fault none"),
        ("GET", "faults?id=1", "id"),
        ("GET", "jobs?jobId=1", "jobId"),
        ("GET", "log?since=1", "since"),
    ],
)
def test_a_query_that_is_not_known_is_refused(
    shared: Emulator, method: str, path: str, says: str
) -> None:
    kept = fault(shared, "throttle", jobId=UNKNOWN_ID)

    answer = shared.http.request(method, f"/_admin/{path}")

    assert answer.status_code == 400
    assert says in answer.json()["error"]
    assert list(faults(shared)) == [kept]


@pytest.mark.parametrize("request_", [b"[]", b'{"jobId": {}}', b'{"actionTypeId": 5}', b"null"])
def test_requests_that_are_not_as_they_should_be_pass_rules_unharmed(
    shared: Emulator, request_: bytes
) -> None:
    kinds = ["duplicate-offer", "stale-nonce", "foreign-acknowledge", "abandon", "time-out"]
    shared.admin("/_admin/faults", [{"kind": kind} for kind in kinds]).raise_for_status()
    shared.add_jobs(BUILD)

    for operation in ("PollForJobs", "AcknowledgeJob", "GetThirdPartyJobDetails", "Unknown"):
        assert shared.raw(operation, request_).status_code == 400
    assert all(entry["taken"] == 0 for entry in faults(shared).values())


def test_faults_and_an_end_amid_held_calls_print_nothing(build: dict[str, str]) -> None:
    with subprocess.Popen(
        command(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline().split()[-1]
        with httpx.Client(base_url=url, timeout=10) as http, ThreadPoolExecutor(2) as pool:
            emulator = Emulator(url, http, None, process)
            (job_id,) = emulator.add_jobs(build)
            wanted = json.dumps({"jobId": job_id}).encode()
            for kind in ("drop-before", "drop-after", "truncate"):
                fault(emulator, kind)
                with pytest.raises(httpx.RemoteProtocolError):
                    emulator.raw("GetJobDetails", wanted)
            before, after = fault(emulator, "hold"), fault(emulator, "hold", when="after")
            held = [
                pool.submit(bytes_of, emulator, "GetJobDetails", {"jobId": job_id})
                for _ in range(2)
            ]
            eventually(lambda: all(faults(emulator)[name]["held"] for name in (before, after)))
            process.send_signal(signal.SIGTERM)

            assert process.wait(timeout=10) == 0
            assert [line.result(timeout=10) for line in held] == [b"", b""]
        assert process.stderr.read() == ""


def test_a_held_call_whose_caller_left_still_applies(
    shared: Emulator, build: dict[str, str]
) -> None:
    job = offered(shared, build)
    held = fault(shared, "hold", jobId=job["jobId"])
    impatient = httpx.Client(base_url=shared.url, timeout=0.2)
    target = {"X-Amz-Target": "CodePipeline_20150709.AcknowledgeJob"}

    with impatient, pytest.raises(httpx.ReadTimeout):
        impatient.post("/", content=json.dumps(job), headers=SIGNED | target)
    shared.admin("/_admin/release", {"id": held}).raise_for_status()

    eventually(lambda: shared.job(job["jobId"])["status"] == "InProgress")
