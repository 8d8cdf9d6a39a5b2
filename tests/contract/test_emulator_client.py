"""The emulator for those who test a worker of their own: a fixture, a client, all of AWS."""

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import httpx
import psutil
import pytest
from botocore.exceptions import ClientError

from dispatcher.emulator.client import Emulator, EmulatorError
from dispatcher.emulator.process import COMMAND, running
from tests.contract.test_emulator import SIGNED

TYPE = {"category": "Test", "owner": "Custom", "provider": "Mine", "version": "1"}
FAILURE = {"type": "JobFailed", "message": "no room left"}


@pytest.fixture
def aws(codepipeline_emulator: Emulator) -> Any:
    return boto3.Session().client("codepipeline")


def begin(aws: Any) -> str:
    (job,) = aws.poll_for_jobs(actionTypeId=TYPE)["jobs"]
    aws.acknowledge_job(jobId=job["id"], nonce=job["nonce"])
    return str(job["id"])


def test_a_job_is_submitted_worked_on_and_seen(codepipeline_emulator: Emulator, aws: Any) -> None:
    submitted = codepipeline_emulator.submit("Mine", {"Key": "value"})

    job_id = begin(aws)
    aws.put_job_failure_result(jobId=job_id, failureDetails=FAILURE)
    job = codepipeline_emulator.wait_for(submitted)

    assert job_id == submitted
    assert (job.status, job.ended) == ("Failed", True)
    assert [state for state, _ in job.history][-2:] == ["InProgress", "Failed"]
    (result,) = codepipeline_emulator.results(submitted)
    assert not result.succeeded
    assert result.request["failureDetails"] == FAILURE
    (poll, ack, put) = codepipeline_emulator.calls()
    assert [poll.operation, ack.job_id, put.applied] == ["PollForJobs", job_id, True]
    assert codepipeline_emulator.calls("AcknowledgeJob", job_id) == [ack]


def test_waiting_follows_continuations(codepipeline_emulator: Emulator, aws: Any) -> None:
    codepipeline_emulator.reset(continuation_delay=0)
    first = codepipeline_emulator.submit("Mine")
    aws.put_job_success_result(jobId=begin(aws), continuationToken="step 2")
    second = begin(aws)

    aws.put_job_success_result(jobId=second)

    assert codepipeline_emulator.wait_for(first).id == second
    assert [result.succeeded for result in codepipeline_emulator.results(first)] == [True, True]
    assert [job.id for job in codepipeline_emulator.jobs()] == [first, second]


def test_waiting_for_a_state_ends_with_it_or_says_what_there_was(
    codepipeline_emulator: Emulator, aws: Any
) -> None:
    job = codepipeline_emulator.submit("Mine")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(codepipeline_emulator.wait_for, job, "Dispatched")
        aws.poll_for_jobs(actionTypeId=TYPE)
        assert waiting.result().status == "Dispatched"

    with pytest.raises(TimeoutError, match="Created, Queued, Dispatched"):
        codepipeline_emulator.wait_for(job, timeout=0.05)
    codepipeline_emulator.time_out(job)
    with pytest.raises(TimeoutError, match="TimedOut"):
        codepipeline_emulator.wait_for(job, "Succeeded", timeout=3600)


def test_faults_are_asked_for_counted_and_ended(codepipeline_emulator: Emulator, aws: Any) -> None:
    job = codepipeline_emulator.submit("Mine")
    fault = codepipeline_emulator.add_fault("error", error="JobNotFoundException", job_id=job)
    held = codepipeline_emulator.add_fault("hold", operation="PollForJobs")

    with pytest.raises(aws.exceptions.JobNotFoundException):
        aws.get_job_details(jobId=job)
    with ThreadPoolExecutor(1) as pool:
        poll = pool.submit(begin, aws)
        while not [state for state in codepipeline_emulator.faults() if state.held]:
            assert not poll.done()
        assert codepipeline_emulator.release(held) == 1
        assert poll.result() == job
    states = {state.id: (state.kind, state.taken) for state in codepipeline_emulator.faults()}
    assert states == {fault: ("error", 1), held: ("hold", 1)}
    codepipeline_emulator.remove_fault(fault)
    codepipeline_emulator.remove_fault()
    assert codepipeline_emulator.faults() == []


def test_a_job_ends_from_outside_and_a_clock_is_off(
    codepipeline_emulator: Emulator, aws: Any
) -> None:
    abandoned, late = (codepipeline_emulator.submit("Mine") for _ in range(2))

    codepipeline_emulator.abandon(abandoned)
    codepipeline_emulator.time_out(late)
    codepipeline_emulator.set_clock(offset=-600)

    assert codepipeline_emulator.job(abandoned).status == "Failed"
    assert codepipeline_emulator.job(late).status == "TimedOut"
    with pytest.raises(ClientError, match="Signature not yet current"):
        aws.poll_for_jobs(actionTypeId=TYPE)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda emulator: emulator.job("unknown"), "there is no job unknown"),
        (lambda emulator: emulator.submit("M", {"": ""}), "configuration"),
        (lambda emulator: emulator.submit("M", unheard=1), "'unheard'"),
        (lambda emulator: emulator.wait_for("job", "Sucess"), "no state Sucess"),
        (lambda emulator: emulator.calls("PollForJob"), "no job call PollForJob"),
        (lambda emulator: emulator.calls(job_id="unknown"), "no job unknown"),
        (lambda emulator: emulator.reset(rate=1e10), "rate"),
        (lambda emulator: emulator.add_fault("error", error="No such"), "error"),
        (lambda emulator: emulator.ask("/_admin/reset?x=1", {}), "x is not known"),
        (lambda emulator: emulator.ask("/_admin/faults", {"id": "1"}, "DELETE"), "by .id="),
        (lambda emulator: emulator.reset(ack_window=0), "longer than 0"),
        (lambda emulator: emulator.reset(second_ack="no"), "secondAck"),
        (lambda emulator: emulator.reset(unheard=1), "'unheard'"),
        (lambda emulator: emulator.add_fault("quake"), "'quake'"),
        (lambda emulator: emulator.submit("M", inputArtifacts=[{"name": "!"}]), "inputArtifacts.1"),
        (lambda emulator: emulator.submit("M", inputArtifacts={}), "must be a list"),
        (lambda emulator: emulator.submit("M", {"k": "v" * 2**20}), "1048576 are the most"),
    ],
)
def test_what_is_wrong_is_said(
    codepipeline_emulator: Emulator, ask: Callable[[Emulator], object], words: str
) -> None:
    with pytest.raises(EmulatorError, match=words):
        ask(codepipeline_emulator)
    assert codepipeline_emulator.jobs() == []


def test_a_reset_forgets_all_and_keeps_the_options_it_was_started_with() -> None:
    with running(ack_window=7) as emulator:
        emulator.reset(ack_window=9, rate=1)
        emulator.submit("Mine")
        emulator.add_fault("throttle")
        emulator.set_clock(5)

        emulator.reset()

        assert (emulator.jobs(), emulator.faults(), emulator.calls()) == ([], [], [])
        body = json.dumps({"actionTypeId": TYPE})
        emulator.define("Mine")
        target = {"X-Amz-Target": "CodePipeline_20150709.PollForJobs"}
        answers = [
            httpx.post(emulator.url, content=body, headers=SIGNED | target) for _ in range(3)
        ]
        assert [answer.status_code for answer in answers] == [200] * 3


def test_a_call_that_waits_is_cut_by_a_reset(codepipeline_emulator: Emulator, aws: Any) -> None:
    codepipeline_emulator.submit("Mine")
    codepipeline_emulator.add_fault("hold")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(
            httpx.post,
            codepipeline_emulator.url,
            content=json.dumps({"actionTypeId": TYPE}),
            headers=SIGNED | {"X-Amz-Target": "CodePipeline_20150709.PollForJobs"},
        )
        while not codepipeline_emulator.faults()[0].held:
            assert not waiting.done()

        codepipeline_emulator.reset()

        with pytest.raises(httpx.RemoteProtocolError):
            waiting.result()
    assert codepipeline_emulator.jobs() == []


def test_more_calls_than_the_rate_are_throttled(codepipeline_emulator: Emulator) -> None:
    codepipeline_emulator.reset(rate=2)
    codepipeline_emulator.define("Mine")
    headers = SIGNED | {"X-Amz-Target": "CodePipeline_20150709.PollForJobs"}

    answers = [
        httpx.post(
            codepipeline_emulator.url,
            content=json.dumps({"actionTypeId": TYPE}),
            headers=headers,
        )
        for _ in range(20)
    ]

    refused = [answer.json() for answer in answers if answer.status_code == 400]
    assert {answer["__type"] for answer in refused} == {"ThrottlingException"}
    assert len(refused) >= 10


def test_s3_kms_sts_and_secrets_answer_at_the_same_address(codepipeline_emulator: Emulator) -> None:
    session = boto3.Session()
    s3 = session.client("s3")
    others: list[Any] = [session.client(name) for name in ("kms", "sts", "secretsmanager")]
    kms, sts, secrets = others

    s3.create_bucket(Bucket="artifacts")
    s3.put_object(Bucket="artifacts", Key="in/app", Body=b"x" * 3 * 2**20)
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    sealed = kms.encrypt(KeyId=key, Plaintext=b"open")["CiphertextBlob"]
    secrets.create_secret(Name="tokens", SecretString="{}")

    assert len(s3.get_object(Bucket="artifacts", Key="in/app")["Body"].read()) == 3 * 2**20
    assert kms.decrypt(CiphertextBlob=sealed)["Plaintext"] == b"open"
    assert sts.get_caller_identity()["Account"] == "123456789012"
    role = sts.assume_role(RoleArn="arn:aws:iam::123456789012:role/r", RoleSessionName="some")
    assert role["Credentials"]["SessionToken"]
    assert secrets.get_secret_value(SecretId="tokens")["SecretString"] == "{}"
    codepipeline_emulator.reset()
    with pytest.raises(ClientError, match="NoSuchBucket"):
        s3.get_object(Bucket="artifacts", Key="in/app")


def test_paths_that_nothing_answers_are_s3_s_but_for_those_of_ours(
    codepipeline_emulator: Emulator,
) -> None:
    with httpx.Client(base_url=codepipeline_emulator.url) as http:
        assert "NoSuchBucket" in http.get("/some-bucket/key").text
        for path in ("/_admin/unheard", "/_admin", "/_ADMIN/jobs", "/_admin/jobs/"):
            for answer in (http.get(path), http.post(path, content=b"{}")):
                assert answer.json()["error"].startswith("nothing answers")
                assert 400 <= answer.status_code < 500
        twice = httpx.get(f"{codepipeline_emulator.url}//_admin/log")
        assert twice.json() == {"error": "nothing answers GET //_admin/log"}
        assert http.post("/nope", content=b"{}").status_code == 501
        assert "moto cannot answer" in http.post("/nope", content=b"{}").text
        web_identity = {"Action": "AssumeRoleWithWebIdentity", "Version": "2011-06-15"}
        web_identity |= {"RoleArn": "arn:aws:iam::1:role/r", "RoleSessionName": "s"}
        answer = http.post("/", data=web_identity | {"WebIdentityToken": "t"})
        assert "AssumeRoleWithWebIdentityResponse" in answer.text
        assert http.post("/", content=b"{}").json()["__type"].startswith("MissingAuth")


def test_nothing_of_the_caller_s_environment_leads_elsewhere(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_PROFILE", "nobody")

    request.getfixturevalue("codepipeline_emulator")

    assert boto3.Session().client("s3").list_buckets()["Buckets"] == []


@pytest.mark.parametrize("size", [2**20 + 1, 2**25])
def test_a_body_that_is_too_large_is_an_error_and_the_connection_lives(
    codepipeline_emulator: Emulator, size: int
) -> None:
    headers = SIGNED | {"X-Amz-Target": "CodePipeline_20150709.PollForJobs"}
    with httpx.Client(base_url=codepipeline_emulator.url) as http:
        answer = http.post("/", content=b"x" * size, headers=headers)
        admin = http.post("/_admin/jobs", content=b"x" * size)
        next_answer = http.post("/", content=b"{}", headers=headers)

    assert (answer.status_code, answer.json()["__type"]) == (413, "RequestEntityTooLargeException")
    assert (admin.status_code, "are the most" in admin.json()["error"]) == (400, True)
    assert next_answer.json()["__type"] == "ValidationException"


def test_the_process_ends_with_who_started_it() -> None:
    program = "from dispatcher.emulator.process import running\nimport os, signal, sys\n"
    program += "with running() as emulator:\n"
    program += "    print(emulator.url, flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline()
        (child,) = psutil.Process(parent.pid).children()

        parent.kill()

        child.wait(10)


def test_an_emulator_that_cannot_start_says_why() -> None:
    with pytest.raises(EmulatorError, match=r"batch-cap"), running(batch_cap=0):
        pass
    with pytest.raises(EmulatorError, match="does not answer"):
        Emulator("http://127.0.0.1:9").jobs()


def test_the_plug_in_costs_those_who_do_not_use_it_nothing(tmp_path: Path) -> None:
    (tmp_path / "test_none.py").write_text(
        "import sys\ndef test_it():\n"
        "    loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "    assert not loaded & {'boto3', 'botocore', 'celery', 'redis', 'starlette', 'moto'}\n"
        "    assert 'dispatcher.emulator.client' not in sys.modules\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:hypothesispytest", str(tmp_path)]

    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    assert run.returncode == 0, run.stdout


def test_the_command_is_the_one_that_people_type() -> None:
    assert COMMAND[3:5] == ["emulator", "--port"]
