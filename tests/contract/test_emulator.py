"""The emulator as its users meet it: a process, unmodified AWS clients, plain HTTP."""

import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from botocore import xform_name
from botocore.exceptions import ClientError

DEPLOY = {"category": "Deploy", "owner": "ThirdParty", "provider": "Acme", "version": "1"}
BUILD = {"category": "Build", "owner": "Custom", "provider": "Mine", "version": "1"}
UNKNOWN_ID = "00000000-0000-0000-0000-000000000000"
CLIENT, TOKEN = "11111111-2222-3333-4444-555555555555", "token-of-the-tenant"
FAILURE = {"type": "JobFailed", "message": "no room left"}
SIGNED = {
    "Authorization": "AWS4-HMAC-SHA256 "
    "Credential=AKIA/20260101/eu-west-1/codepipeline/aws4_request, "
    "SignedHeaders=host;x-amz-date, Signature=" + "0" * 64
}
TEN_CALLS = [
    "PollForJobs",
    "GetJobDetails",
    "AcknowledgeJob",
    "PutJobSuccessResult",
    "PutJobFailureResult",
    "PollForThirdPartyJobs",
    "GetThirdPartyJobDetails",
    "AcknowledgeThirdPartyJob",
    "PutThirdPartyJobSuccessResult",
    "PutThirdPartyJobFailureResult",
]
SERVE = (
    "from datetime import timedelta as t; from dispatcher.emulator.options import Options; "
    "from dispatcher.emulator.server import serve; serve(port={port}, options=Options({options}))"
)


@dataclass
class Emulator:
    url: str
    http: httpx.Client
    aws: Any  # a client of boto3
    process: subprocess.Popen[str] = field(repr=False)

    def add_jobs(self, action_type: dict[str, str] = DEPLOY, **more: Any) -> list[str]:
        if action_type["owner"] == "ThirdParty":
            more = {"clientId": CLIENT, "clientToken": TOKEN} | more
        answer = self.admin("/_admin/jobs", {"actionTypeId": action_type, **more})
        ids: list[str] = answer.raise_for_status().json()["jobIds"]
        return ids

    def admin(self, path: str, body: object) -> httpx.Response:
        return self.http.post(path, content=json.dumps(body))

    def job(self, job_id: str) -> dict[str, Any]:
        (job,) = self.http.get("/_admin/jobs", params={"id": job_id}).raise_for_status().json()
        return dict(job)

    def log(self, job_id: str) -> list[dict[str, Any]]:
        entries = self.http.get("/_admin/log").raise_for_status().json()
        return [entry for entry in entries if entry["jobId"] == job_id]

    def raw(self, operation: str, body: bytes) -> httpx.Response:
        target = {"X-Amz-Target": f"CodePipeline_20150709.{operation}"}
        return self.http.post("/", content=body, headers=SIGNED | target)


def command(port: int = 0, options: str = "") -> list[str]:
    return [sys.executable, "-c", SERVE.format(port=port, options=options)]


@contextmanager
def emulator_with(options: str = "") -> Iterator[Emulator]:
    with (
        subprocess.Popen(command(options=options), stdout=subprocess.PIPE, text=True) as process,
        pytest.MonkeyPatch.context() as environment,
    ):
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[-1]
            for name, value in aws_environment(url).items():
                environment.setenv(name, value)
            aws = boto3.Session().client("codepipeline")
            with httpx.Client(base_url=url) as http:
                yield Emulator(url, http, aws, process)
            aws.close()
        finally:
            process.terminate()


def aws_environment(url: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL_CODEPIPELINE": url,
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "example",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@pytest.fixture(scope="module")
def shared() -> Iterator[Emulator]:
    with emulator_with() as emulator:
        yield emulator


@pytest.fixture
def deploy() -> dict[str, str]:
    """Each test has action types of its own, so that all can share a process."""
    return DEPLOY | {"version": uuid.uuid4().hex[:9]}


@pytest.fixture
def build() -> dict[str, str]:
    return BUILD | {"version": uuid.uuid4().hex[:9]}


def begin_third_party(aws: Any, action_type: dict[str, str]) -> str:
    (offer,) = aws.poll_for_third_party_jobs(actionTypeId=action_type)["jobs"]
    job_id = str(offer["jobId"])
    nonce = aws.get_third_party_job_details(jobId=job_id, clientToken=TOKEN)["jobDetails"]["nonce"]
    aws.acknowledge_third_party_job(jobId=job_id, clientToken=TOKEN, nonce=nonce)
    return job_id


def begin_custom(aws: Any, action_type: dict[str, str]) -> str:
    (job,) = aws.poll_for_jobs(actionTypeId=action_type)["jobs"]
    aws.acknowledge_job(jobId=job["id"], nonce=job["nonce"])
    return str(job["id"])


def eventually(holds: Callable[[], object], within: float = 10) -> None:
    end = time.monotonic() + within
    while not holds():
        assert time.monotonic() < end, "did not come about"
        time.sleep(0.02)


def states(job: dict[str, Any]) -> list[str]:
    return [entry["status"] for entry in job["history"]]


def test_a_third_party_job_goes_the_whole_way_and_on_through_a_continuation() -> None:
    with emulator_with("continuation_delay=t(seconds=0.2)") as emulator:
        aws = emulator.aws
        (first,) = emulator.add_jobs(configuration={"App": "shop"}, pipelineName="P", stageName="S")

        assert aws.poll_for_third_party_jobs(actionTypeId=DEPLOY)["jobs"] == [
            {"clientId": CLIENT, "jobId": first}
        ]
        details = aws.get_third_party_job_details(jobId=first, clientToken=TOKEN)["jobDetails"]
        again = aws.get_third_party_job_details(jobId=first, clientToken=TOKEN)["jobDetails"]
        status = aws.acknowledge_third_party_job(
            jobId=first, clientToken=TOKEN, nonce=details["nonce"]
        )["status"]
        aws.put_third_party_job_success_result(
            jobId=first, clientToken=TOKEN, continuationToken="step 2"
        )
        eventually(lambda: emulator.job(emulator.job(first)["next"])["status"] == "Queued")
        second = begin_third_party(aws, DEPLOY)
        data = aws.get_third_party_job_details(jobId=second, clientToken=TOKEN)["jobDetails"][
            "data"
        ]
        answer = aws.put_third_party_job_success_result(
            jobId=second,
            clientToken=TOKEN,
            currentRevision={
                "revision": "r1",
                "changeIdentifier": "c1",
                "created": datetime(2026, 1, 2, tzinfo=UTC),
            },
            executionDetails={"summary": "done", "externalExecutionId": "x1"},
        )
        jobs = [emulator.job(first), emulator.job(second)]

    assert details["id"] == first
    assert details["data"]["actionConfiguration"] == {"configuration": {"App": "shop"}}
    assert details["nonce"] == again["nonce"]
    assert details["data"]["artifactCredentials"] != again["data"]["artifactCredentials"]
    assert "continuationToken" not in details["data"]
    context = details["data"]["pipelineContext"]
    assert context == {
        "pipelineName": "P",
        "stage": {"name": "S"},
        "action": {"name": "Action", "actionExecutionId": jobs[0]["actionExecutionId"]},
    }
    assert status == "InProgress"
    assert data["continuationToken"] == "step 2"
    assert data["pipelineContext"] == context
    assert answer["ResponseMetadata"]["HTTPHeaders"]["content-length"] == "0"
    assert jobs[0]["next"] == second
    assert jobs[0]["actionExecutionId"] == jobs[1]["actionExecutionId"]
    assert jobs[0]["result"]["request"]["continuationToken"] == "step 2"
    assert jobs[0]["result"]["request"]["clientToken"] == "***"
    assert jobs[1]["result"]["operation"] == "PutThirdPartyJobSuccessResult"
    assert jobs[1]["result"]["request"]["currentRevision"]["created"] == 1767312000
    for job in jobs:
        assert states(job) == ["Created", "Queued", "Dispatched", "InProgress", "Succeeded"]


def test_a_custom_job_goes_the_whole_way_and_on_through_a_continuation() -> None:
    with emulator_with("continuation_delay=t(seconds=0.2)") as emulator:
        aws = emulator.aws
        (first,) = emulator.add_jobs(BUILD, configuration={"Project": "shop"})

        (job,) = aws.poll_for_jobs(actionTypeId=BUILD)["jobs"]
        status = aws.acknowledge_job(jobId=first, nonce=job["nonce"])["status"]
        details = aws.get_job_details(jobId=first)["jobDetails"]
        aws.put_job_success_result(jobId=first, continuationToken="step 2")
        eventually(lambda: emulator.job(emulator.job(first)["next"])["status"] == "Queued")
        second = begin_custom(aws, BUILD)
        data = aws.get_job_details(jobId=second)["jobDetails"]["data"]
        aws.put_job_success_result(jobId=second, outputVariables={"Url": "https://example"})
        result = emulator.job(second)["result"]

    assert (job["id"], job["accountId"], status) == (first, "123456789012", "InProgress")
    assert details["id"] == first
    assert details["accountId"] == job["accountId"]
    assert "nonce" not in details
    assert details["data"]["pipelineContext"] == job["data"]["pipelineContext"]
    assert re.fullmatch(
        r"arn:aws:codepipeline:.+:\d{12}:emulated", job["data"]["pipelineContext"]["pipelineArn"]
    )
    assert len(job["data"]["pipelineContext"]["pipelineExecutionId"]) == 36
    assert details["data"]["artifactCredentials"] != job["data"]["artifactCredentials"]
    assert data["continuationToken"] == "step 2"
    assert data["pipelineContext"] == job["data"]["pipelineContext"]
    assert result["request"] == {"jobId": second, "outputVariables": {"Url": "https://example"}}


def test_a_poll_that_names_no_number_gets_one_job(
    shared: Emulator, deploy: dict[str, str], build: dict[str, str]
) -> None:
    shared.add_jobs(deploy, count=2)
    shared.add_jobs(build, count=2)

    assert len(shared.aws.poll_for_third_party_jobs(actionTypeId=deploy)["jobs"]) == 1
    assert len(shared.aws.poll_for_jobs(actionTypeId=build)["jobs"]) == 1


def test_failure_puts_of_both_families_fail_their_jobs(
    shared: Emulator, deploy: dict[str, str], build: dict[str, str]
) -> None:
    shared.add_jobs(deploy)
    shared.add_jobs(build)
    third_party, custom = begin_third_party(shared.aws, deploy), begin_custom(shared.aws, build)

    shared.aws.put_third_party_job_failure_result(
        jobId=third_party, clientToken=TOKEN, failureDetails=FAILURE
    )
    shared.aws.put_job_failure_result(jobId=custom, failureDetails=FAILURE)

    for job in (shared.job(third_party), shared.job(custom)):
        assert job["status"] == "Failed"
        assert job["result"]["request"]["failureDetails"] == FAILURE


THIRD = {"clientToken": TOKEN}
NONCE = {"nonce": "not the nonce"}
FAILED = {"failureDetails": FAILURE}
# For each call, all errors that AWS's model lists, and a request that raises it. "custom", "third"
# and "queued" stand for the id of a running job of either family, and of a job still in its queue.
MODELLED = [
    ("poll_for_jobs", "ActionTypeNotFoundException", {"actionTypeId": BUILD}),
    ("poll_for_jobs", "ValidationException", {"actionTypeId": DEPLOY}),
    ("poll_for_third_party_jobs", "ActionTypeNotFoundException", {"actionTypeId": DEPLOY}),
    ("poll_for_third_party_jobs", "ValidationException", {"actionTypeId": BUILD}),
    ("get_job_details", "JobNotFoundException", {"jobId": UNKNOWN_ID}),
    ("get_job_details", "ValidationException", {"jobId": ""}),
    ("acknowledge_job", "InvalidNonceException", {"jobId": "custom"} | NONCE),
    ("acknowledge_job", "JobNotFoundException", {"jobId": UNKNOWN_ID} | NONCE),
    ("acknowledge_job", "ValidationException", {"jobId": ""} | NONCE),
    ("put_job_success_result", "InvalidJobStateException", {"jobId": "queued custom"}),
    ("put_job_success_result", "JobNotFoundException", {"jobId": UNKNOWN_ID}),
    (
        "put_job_success_result",
        "OutputVariablesSizeExceededException",
        {"jobId": "custom", "outputVariables": {"Big": "x" * 122878}},
    ),
    (
        "put_job_success_result",
        "ValidationException",
        {"jobId": "custom", "continuationToken": "t", "outputVariables": {"Url": "x"}},
    ),
    ("put_job_failure_result", "InvalidJobStateException", {"jobId": "queued custom"} | FAILED),
    ("put_job_failure_result", "JobNotFoundException", {"jobId": UNKNOWN_ID} | FAILED),
    (
        "put_job_failure_result",
        "ValidationException",
        {"jobId": "custom", "failureDetails": {"type": "Bad", "message": "x"}},
    ),
    ("get_third_party_job_details", "InvalidClientTokenException", {"jobId": "third"}),
    ("get_third_party_job_details", "InvalidJobException", {"jobId": "custom"} | THIRD),
    ("get_third_party_job_details", "JobNotFoundException", {"jobId": UNKNOWN_ID} | THIRD),
    ("acknowledge_third_party_job", "InvalidClientTokenException", {"jobId": "third"} | NONCE),
    ("acknowledge_third_party_job", "InvalidNonceException", {"jobId": "third"} | THIRD | NONCE),
    ("acknowledge_third_party_job", "JobNotFoundException", {"jobId": UNKNOWN_ID} | THIRD | NONCE),
    ("put_third_party_job_success_result", "InvalidClientTokenException", {"jobId": "third"}),
    ("put_third_party_job_success_result", "InvalidJobStateException", {"jobId": "queued"} | THIRD),
    ("put_third_party_job_success_result", "JobNotFoundException", {"jobId": UNKNOWN_ID} | THIRD),
    (
        "put_third_party_job_failure_result",
        "InvalidClientTokenException",
        {"jobId": "third"} | FAILED,
    ),
    (
        "put_third_party_job_failure_result",
        "InvalidJobStateException",
        {"jobId": "queued"} | THIRD | FAILED,
    ),
    (
        "put_third_party_job_failure_result",
        "JobNotFoundException",
        {"jobId": UNKNOWN_ID} | THIRD | FAILED,
    ),
    (
        "put_third_party_job_failure_result",
        "ValidationException",
        {"jobId": "third", "failureDetails": {"type": "Bad", "message": "x"}} | THIRD,
    ),
]
# boto3 refuses an empty client token or nonce itself, so these go out by plain HTTP.
REFUSED_BY_BOTO3 = [
    ("GetThirdPartyJobDetails", {"jobId": UNKNOWN_ID}),
    ("AcknowledgeThirdPartyJob", {"jobId": UNKNOWN_ID} | THIRD),
    ("PutThirdPartyJobSuccessResult", {"jobId": UNKNOWN_ID, "clientToken": ""}),
]


@pytest.fixture
def ids(shared: Emulator, deploy: dict[str, str], build: dict[str, str]) -> dict[str, str]:
    shared.add_jobs(deploy)
    shared.add_jobs(build)
    return {
        "third": begin_third_party(shared.aws, deploy),
        "custom": begin_custom(shared.aws, build),
        "queued": shared.add_jobs(deploy)[0],
        "queued custom": shared.add_jobs(build)[0],
    }


@pytest.mark.parametrize(("call", "error", "request_"), MODELLED)
def test_every_modelled_error_is_raised_by_its_name(
    shared: Emulator, ids: dict[str, str], call: str, error: str, request_: dict[str, Any]
) -> None:
    aws, request = shared.aws, dict(request_)
    if "jobId" in request:
        request["jobId"] = ids.get(request["jobId"], request["jobId"])
    if "third_party_job" in call and "jobId" in request:
        request.setdefault("clientToken", "of another tenant")
    elif "actionTypeId" in request and error == "ActionTypeNotFoundException":
        request["actionTypeId"] = request["actionTypeId"] | {"provider": "Nobody"}

    with pytest.raises(getattr(aws.exceptions, error)) as caught:
        getattr(aws, call)(**request)

    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert caught.value.response["Error"]["Message"]


@pytest.mark.parametrize(("operation", "request_"), REFUSED_BY_BOTO3)
def test_a_request_that_boto3_would_not_send_is_a_validation_error(
    shared: Emulator, operation: str, request_: dict[str, str]
) -> None:
    answer = shared.raw(operation, json.dumps(request_).encode())

    assert (answer.status_code, answer.json()["__type"]) == (400, "ValidationException")


def test_the_table_of_errors_names_every_error_of_every_call(shared: Emulator) -> None:
    model = shared.aws.meta.service_model
    calls = {xform_name(operation): operation for operation in TEN_CALLS}
    shown = {(calls[call], error) for call, error, _ in MODELLED}
    shown |= {(operation, "ValidationException") for operation, _ in REFUSED_BY_BOTO3}

    assert shown == {
        (operation, error.name)
        for operation in TEN_CALLS
        for error in model.operation_model(operation).error_shapes
    }


def test_a_job_not_acknowledged_is_offered_again_and_its_old_nonce_is_refused() -> None:
    with emulator_with("ack_window=t(seconds=0.3)") as emulator:
        aws = emulator.aws
        (job_id,) = emulator.add_jobs(BUILD)
        (first,) = aws.poll_for_jobs(actionTypeId=BUILD)["jobs"]

        assert aws.poll_for_jobs(actionTypeId=BUILD)["jobs"] == []
        eventually(lambda: emulator.job(job_id)["status"] == "Queued")
        (second,) = aws.poll_for_jobs(actionTypeId=BUILD)["jobs"]
        with pytest.raises(aws.exceptions.InvalidNonceException):
            aws.acknowledge_job(jobId=job_id, nonce=first["nonce"])

        assert second["id"] == first["id"]
        assert aws.acknowledge_job(jobId=job_id, nonce=second["nonce"])["status"] == "InProgress"
        dispatched, queued = emulator.job(job_id)["history"][2:4]
        assert queued["at"] - dispatched["at"] == pytest.approx(0.3)


def test_a_job_that_runs_too_long_is_timed_out_and_takes_no_result() -> None:
    with emulator_with("job_timeout=t(seconds=0.3)") as emulator:
        emulator.add_jobs(BUILD)
        job_id = begin_custom(emulator.aws, BUILD)

        eventually(lambda: emulator.job(job_id)["status"] == "TimedOut")

        with pytest.raises(emulator.aws.exceptions.InvalidJobStateException):
            emulator.aws.put_job_success_result(jobId=job_id)
        assert emulator.job(job_id)["result"] is None


def test_a_second_acknowledgement_may_be_told_the_status() -> None:
    with emulator_with("second_ack='status', batch_cap=2") as emulator:
        emulator.add_jobs(BUILD, count=3)
        jobs = emulator.aws.poll_for_jobs(actionTypeId=BUILD, maxBatchSize=1_000_000)["jobs"]
        again = {"jobId": jobs[0]["id"], "nonce": jobs[0]["nonce"]}

        answers = [emulator.aws.acknowledge_job(**again)["status"] for _ in range(2)]

        assert len(jobs) == 2
        assert answers == ["InProgress", "InProgress"]
        assert [entry["applied"] for entry in emulator.log(again["jobId"])] == [True, False]


def test_jobs_are_found_by_the_queryable_property(shared: Emulator, build: dict[str, str]) -> None:
    shared.admin("/_admin/action-types", {"actionTypeId": build, "queryable": "Project"})
    shared.add_jobs(build, configuration={"Project": "a"})
    (job_id,) = shared.add_jobs(build, configuration={"Project": "b"})

    jobs = shared.aws.poll_for_jobs(
        actionTypeId=build, maxBatchSize=9, queryParam={"Project": "b"}
    )["jobs"]

    assert [job["id"] for job in jobs] == [job_id]


def test_an_action_type_may_be_declared_with_a_job_timeout(
    shared: Emulator, build: dict[str, str]
) -> None:
    declared = shared.admin("/_admin/action-types", {"actionTypeId": build, "jobTimeout": 0.2})

    assert declared.status_code == 200
    assert shared.aws.poll_for_jobs(actionTypeId=build)["jobs"] == []
    shared.add_jobs(build)
    job_id = begin_custom(shared.aws, build)
    eventually(lambda: shared.job(job_id)["status"] == "TimedOut")


def test_the_aws_cli_takes_a_job_to_its_result(shared: Emulator, deploy: dict[str, str]) -> None:
    (job_id,) = shared.add_jobs(deploy)
    one = ["--job-id", job_id, "--client-token", TOKEN]

    polled = cli(shared, "poll-for-third-party-jobs", "--action-type-id", json.dumps(deploy))
    details = cli(shared, "get-third-party-job-details", *one)["jobDetails"]
    acknowledged = cli(shared, "acknowledge-third-party-job", "--nonce", details["nonce"], *one)
    cli(shared, "put-third-party-job-success-result", *one)

    assert polled["jobs"] == [{"clientId": CLIENT, "jobId": job_id}]
    assert acknowledged == {"status": "InProgress"}
    assert shared.job(job_id)["status"] == "Succeeded"


def cli(emulator: Emulator, *arguments: str) -> dict[str, Any]:
    aws = Path(sys.executable).with_name("aws")
    done = subprocess.run(
        [aws, "codepipeline", *arguments, "--output", "json"],
        env=os.environ | aws_environment(emulator.url),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout or "{}"))


def test_one_of_many_acknowledgements_at_once_wins(shared: Emulator, build: dict[str, str]) -> None:
    (job_id,) = shared.add_jobs(build)
    (job,) = shared.aws.poll_for_jobs(actionTypeId=build)["jobs"]

    def claim(_: int) -> str:
        try:
            return str(shared.aws.acknowledge_job(jobId=job_id, nonce=job["nonce"])["status"])
        except ClientError as error:
            return str(error.response["Error"]["Code"])

    with ThreadPoolExecutor(8) as pool:
        answers = sorted(pool.map(claim, range(8)))

    assert answers == ["InProgress"] + ["InvalidNonceException"] * 7


def test_the_log_says_what_was_called_and_keeps_no_secret(
    shared: Emulator, deploy: dict[str, str]
) -> None:
    shared.add_jobs(deploy, configuration={"ApiKey": "api-key-value"})
    (offer,) = shared.aws.poll_for_third_party_jobs(actionTypeId=deploy)["jobs"]
    job = {"jobId": offer["jobId"], "clientToken": TOKEN}
    nonce = shared.aws.get_third_party_job_details(**job)["jobDetails"]["nonce"]
    shared.aws.acknowledge_third_party_job(**job, nonce=nonce)
    with pytest.raises(shared.aws.exceptions.InvalidNonceException):
        shared.aws.acknowledge_third_party_job(**job, nonce=nonce)
    shared.aws.put_third_party_job_success_result(**job, continuationToken="token-of-step-2")
    keys = json.dumps(
        {**job, "artifactCredentials": {"x": "stray-1"}, "extra": {"Secret": "stray-2"}}
    )
    shared.raw("GetThirdPartyJobDetails", keys.encode())

    log = shared.log(offer["jobId"])

    shown = [(e["operation"], e["status"], e["error"], e["applied"]) for e in log]
    assert shown == [
        ("GetThirdPartyJobDetails", 200, None, False),
        ("AcknowledgeThirdPartyJob", 200, None, True),
        ("AcknowledgeThirdPartyJob", 400, "InvalidNonceException", False),
        ("PutThirdPartyJobSuccessResult", 200, None, True),
        ("GetThirdPartyJobDetails", 200, None, False),
    ]
    assert [e["at"] for e in log] == sorted(e["at"] for e in log)
    text = shared.http.get("/_admin/log").text
    for secret in (TOKEN, nonce, "token-of-step-2", "api-key-value", "stray-1", "stray-2"):
        assert secret not in text
    assert TOKEN not in shared.http.get("/_admin/jobs").text


def test_a_poll_that_hands_out_nothing_changed_nothing(
    shared: Emulator, build: dict[str, str]
) -> None:
    shared.add_jobs(build)
    for _ in range(2):
        shared.aws.poll_for_jobs(actionTypeId=build)

    log = shared.http.get("/_admin/log").json()

    mine = [entry for entry in log if entry["request"] == {"actionTypeId": build}]
    assert [entry["applied"] for entry in mine] == [True, False]


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ({}, "MissingAuthenticationTokenException"),
        ({"Authorization": "Bearer x"}, "IncompleteSignatureException"),
        (
            {"Authorization": SIGNED["Authorization"].replace("codepipeline", "s3")},
            "IncompleteSignatureException",
        ),
    ],
)
def test_a_request_without_a_signature_for_codepipeline_is_refused(
    shared: Emulator, headers: dict[str, str], error: str
) -> None:
    target = {"X-Amz-Target": "CodePipeline_20150709.GetJobDetails"}

    answer = shared.http.post("/", content=b"{}", headers=headers | target)

    assert (answer.status_code, answer.json()["__type"]) == (400, error)


@pytest.mark.parametrize("target", ["CodePipeline_20150709.ListPipelines", "GetJobDetails", ""])
def test_a_call_that_the_emulator_does_not_have_is_refused(shared: Emulator, target: str) -> None:
    answer = shared.http.post("/", content=b"{}", headers=SIGNED | {"X-Amz-Target": target})

    assert (answer.status_code, answer.json()["__type"]) == (400, "UnknownOperationException")


NOT_JSON = [b"{", b"\xff\xfe", b'{"a": NaN}', b'{"a": 1e999}', b"[" * 100_000, b"1" * 10_000]
WRONG = [
    b"",
    b"[]",
    b"null",
    b"1",
    b"{}",
    b'{"jobId": null, "nonce": null, "clientToken": null}',
    b'{"jobId": 5, "nonce": [], "clientToken": {}, "actionTypeId": "Deploy"}',
    b'{"jobId": {}, "actionTypeId": {"category": "\\ud800", "owner": true}}',
    b'{"actionTypeId": []}',
    b'{"deep": ' + b"[" * 500 + b"]" * 500 + b"}",
]


@pytest.mark.parametrize("operation", TEN_CALLS)
@pytest.mark.parametrize(
    ("bodies", "error"), [(NOT_JSON, "SerializationException"), (WRONG, "ValidationException")]
)
def test_bad_input_is_named_so_and_never_an_accident(
    shared: Emulator, operation: str, bodies: list[bytes], error: str
) -> None:
    for body in bodies:
        answer = shared.raw(operation, body)

        assert (answer.status_code, answer.json()["__type"]) == (400, error), body
    assert shared.http.get("/_admin/log").json()


@pytest.mark.parametrize(
    ("operation", "member", "value"),
    [
        ("PollForJobs", "maxBatchSize", 0),
        ("PollForJobs", "maxBatchSize", "3"),
        ("PollForJobs", "maxBatchSize", True),
        ("PollForJobs", "maxBatchSize", 1.5),
        ("PollForJobs", "queryParam", ["Project"]),
        ("PollForJobs", "queryParam", {"A": "1", "B": "2"}),
        ("PutJobSuccessResult", "continuationToken", ""),
        ("PutJobSuccessResult", "currentRevision", {"revision": "r"}),
        ("PutJobSuccessResult", "executionDetails", {"percentComplete": 101}),
        ("PutJobSuccessResult", "executionDetails", "done"),
        ("PutJobSuccessResult", "outputVariables", {"Url": 5}),
        ("PutJobFailureResult", "failureDetails", {"type": "JobFailed", "message": ""}),
    ],
)
def test_a_member_that_does_not_fit_is_named_in_the_error(
    shared: Emulator, build: dict[str, str], operation: str, member: str, value: object
) -> None:
    (job_id,) = shared.add_jobs(build)
    body = {"actionTypeId": build, "jobId": job_id, member: value}

    answer = shared.raw(operation, json.dumps(body).encode())

    assert (answer.status_code, answer.json()["__type"]) == (400, "ValidationException")
    assert "validation error" in answer.json()["message"]
    assert member in answer.json()["message"]
    assert shared.job(job_id)["status"] == "Queued"


def test_a_lone_surrogate_in_a_request_does_no_harm(
    shared: Emulator, build: dict[str, str]
) -> None:
    shared.add_jobs(build)
    job_id = begin_custom(shared.aws, build)
    body = {"jobId": job_id, "outputVariables": {"Url": "\ud800"}}

    answer = shared.raw("PutJobSuccessResult", json.dumps(body).encode())

    assert answer.status_code == 200
    assert shared.job(job_id)["result"]["request"] == body


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/_admin/jobs", b"{", "not JSON"),
        ("/_admin/jobs", b"[]", "structure"),
        ("/_admin/jobs", b"{}", "actionTypeId"),
        ("/_admin/jobs", json.dumps({"actionTypeId": DEPLOY}).encode(), "clientToken"),
        ("/_admin/jobs", json.dumps({"actionTypeId": BUILD | {"owner": "AWS"}}).encode(), "owner"),
        ("/_admin/jobs", json.dumps({"actionTypeId": BUILD, "count": 0}).encode(), "count"),
        ("/_admin/jobs", json.dumps({"actionTypeId": BUILD, "cuont": 1}).encode(), "cuont"),
        (
            "/_admin/jobs",
            json.dumps({"actionTypeId": BUILD, "configuration": {"Retries": 3}}).encode(),
            "configuration.Retries",
        ),
        (
            "/_admin/action-types",
            json.dumps({"actionTypeId": {}}).encode(),
            "actionTypeId.category",
        ),
        (
            "/_admin/action-types",
            json.dumps({"actionTypeId": BUILD, "jobTimeout": "soon"}).encode(),
            "jobTimeout",
        ),
    ],
)
def test_a_wrong_admin_call_is_told_what_is_wrong(
    shared: Emulator, path: str, body: bytes, says: str
) -> None:
    answer = shared.http.post(path, content=body)

    assert answer.status_code == 400
    assert says in answer.json()["error"]


def test_a_queryable_property_that_would_change_is_refused(
    shared: Emulator, build: dict[str, str]
) -> None:
    shared.add_jobs(build)

    answer = shared.admin("/_admin/action-types", {"actionTypeId": build, "queryable": "Project"})

    assert answer.status_code == 400
    assert "another version" in answer.json()["error"]


def test_paths_and_methods_that_do_not_exist_are_told_so(shared: Emulator) -> None:
    assert shared.http.get("/_admin/nothing").status_code == 404
    assert shared.http.delete("/_admin/jobs").status_code == 405
    assert shared.http.get("/_admin/jobs", params={"id": UNKNOWN_ID}).json() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_promptly_and_quietly(number: signal.Signals) -> None:
    with emulator_with() as emulator:
        emulator.add_jobs()  # leaves a connection open
        began = time.monotonic()
        emulator.process.send_signal(number)

        assert emulator.process.wait(timeout=10) == 0
        assert time.monotonic() - began < 3
        assert emulator.process.stdout is not None
        assert emulator.process.stdout.read() == ""


def test_a_taken_port_is_one_line_and_exit_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        done = subprocess.run(command(port), capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (f"emulator: cannot listen on 127.0.0.1:{port}: Address already in use\n")


def test_calls_do_not_wait_for_delayed_acknowledgements_of_tcp(shared: Emulator) -> None:
    def seconds() -> float:
        began = time.monotonic()
        shared.http.get("/_admin/jobs", params={"id": UNKNOWN_ID})
        return time.monotonic() - began

    assert statistics.median(seconds() for _ in range(51)) < 0.030
