"""A job's session keys: what they may do, how long, and what S3 says to those who misuse them."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from dispatcher.emulator import gate, sigv4
from dispatcher.emulator.calls import CALLS
from dispatcher.emulator.jobs import ActionType, Work
from dispatcher.emulator.keys import READS, WRITES, Keys, SessionKeys
from dispatcher.emulator.machine import Machine
from dispatcher.emulator.operations import OPERATIONS, Asked
from dispatcher.emulator.options import Options
from dispatcher.emulator.places import BUCKET, located
from tests.unit.test_emulator_operations import to_asked

QUARTER = timedelta(minutes=15)
KMS = "arn:aws:kms:eu-west-1:123456789012:key/1"
ENCRYPTED = {"x-amz-server-side-encryption": "aws:kms"}
KEYED = ENCRYPTED | {"x-amz-server-side-encryption-aws-kms-key-id": KMS}


def place(name: str, key: str) -> dict[str, Any]:
    where = {"bucketName": "bucket", "objectKey": key}
    return {"name": name, "location": {"type": "S3", "s3Location": where}}


ARTIFACTS = {
    "inputArtifacts": [place("Source", "in/1"), place("Config", "in/2")],
    "outputArtifacts": [place("App", "out/1")],
}


def keys(**more: Any) -> SessionKeys:
    return SessionKeys("job", ARTIFACTS | more, 1_900_000_000)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_inputs_are_read_and_outputs_are_read_and_written_and_that_is_all(operation: str) -> None:
    allowed = {
        key
        for key in ("in/1", "in/2", "out/1", "elsewhere", None)
        if keys().may(operation, "bucket", key)
    }

    reads, writes = operation in READS, operation in WRITES
    assert allowed == ({"in/1", "in/2", "out/1"} if reads else {"out/1"} if writes else set())
    assert not keys().may(operation, "other-bucket", "out/1")


@pytest.mark.parametrize("artifacts", [{}, {"outputArtifacts": [{"name": "App"}]}])
def test_a_job_without_artifacts_may_do_nothing(artifacts: dict[str, Any]) -> None:
    given = SessionKeys("job", artifacts, 0)

    assert not any(given.may(operation, None, None) for operation in OPERATIONS)
    assert given.encryption_key is None


def test_keys_are_new_at_each_call_and_never_printed() -> None:
    ring = Keys(QUARTER)

    first, second = (ring.give("job", ARTIFACTS, now=100) for _ in range(2))

    assert ring.get(first.access_key_id) is first
    assert (first.job_id, first.ends) == ("job", 1000)
    for part in ("access_key_id", "secret", "token"):
        assert getattr(first, part) != getattr(second, part)
    assert first.access_key_id.startswith("ASIA")
    assert len(first.access_key_id) == 20
    assert not {first.secret, first.token} & set(repr(first).split("'"))
    assert ring.get("ASIA") is None


def test_the_oldest_are_forgotten_when_there_are_too_many() -> None:
    ring = Keys(QUARTER, most=2)

    first, second, third = (ring.give("job", {}, now=0) for _ in range(3))

    assert ring.get(first.access_key_id) is None
    assert ring.get(second.access_key_id) is second
    assert ring.get(third.access_key_id) is third


@pytest.mark.parametrize(
    ("owner", "operation", "request_of"),
    [
        ("Custom", "PollForJobs", lambda job: {"actionTypeId": vars(job.work.action_type)}),
        ("Custom", "GetJobDetails", lambda job: {"jobId": job.id}),
        (
            "ThirdParty",
            "GetThirdPartyJobDetails",
            lambda job: {"jobId": job.id, "clientToken": "t"},
        ),
    ],
)
def test_what_a_job_call_shows_is_known_and_of_that_job(
    owner: str, operation: str, request_of: Callable[[Any], dict[str, Any]]
) -> None:
    machine = Machine(Options(credentials_lifetime=timedelta(seconds=60)), lambda: 1000)
    action_type = ActionType("Test", owner, "Mine", "1")
    work = Work(action_type, {}, "P", "S", "A", "c", "t", artifacts=ARTIFACTS)
    (job,) = machine.submit([work])

    body = CALLS[operation].run(machine, request_of(job)).body or {}

    shown = (body["jobs"][0] if "jobs" in body else body["jobDetails"])["data"]
    given = machine.keys.get(shown["artifactCredentials"]["accessKeyId"])
    assert given is not None
    assert given.shown == shown["artifactCredentials"]
    assert (given.job_id, given.ends, given.artifacts) == (job.id, 1060, ARTIFACTS)


def test_a_continuation_has_keys_for_the_same_artifacts() -> None:
    machine = Machine(Options(continuation_delay=timedelta(0)), lambda: 1000)
    action_type = ActionType("Test", "Custom", "Mine", "1")
    machine.submit([Work(action_type, {}, "P", "S", "A", artifacts=ARTIFACTS)])
    poll = {"actionTypeId": vars(action_type)}

    def work_on(**more: str) -> dict[str, str]:
        (job,) = (CALLS["PollForJobs"].run(machine, poll).body or {})["jobs"]
        named = {"jobId": job["id"]}
        CALLS["AcknowledgeJob"].run(machine, named | {"nonce": job["nonce"]})
        CALLS["PutJobSuccessResult"].run(machine, named | more)
        return dict(job["data"]["artifactCredentials"])

    first, second = (
        machine.keys.get(shown["accessKeyId"])
        for shown in (work_on(continuationToken="2"), work_on())
    )

    assert first is not None
    assert second is not None
    assert first.job_id != second.job_id
    assert second.may("PutObject", "bucket", "out/1")


def request(
    given: SessionKeys,
    method: str = "GET",
    path: str = "bucket/in/1",
    headers: dict[str, str] | None = None,
    **wrong: str,
) -> Asked:
    """As boto3 would sign it, but for what is wrong with it."""
    signed_with = Credentials(
        wrong.get("access_key", given.access_key_id),
        wrong.get("secret", given.secret),
        wrong.get("token", given.token) or None,
    )
    made = AWSRequest(method, f"http://127.0.0.1/{path}", dict(headers or {}))
    S3SigV4Auth(signed_with, "s3", "eu-west-1").add_auth(made)
    return to_asked(made.prepare())


def code(asked: Asked, given: SessionKeys, now: float = 0, offset: float = 0) -> str | None:
    signed = sigv4.read(asked)
    assert signed is not None
    refusal = gate.refused(asked, signed, given, now, offset)
    return None if refusal is None else f"{refusal.status} {refusal.code}"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({}, None),
        ({"secret": "another"}, "403 SignatureDoesNotMatch"),
        ({"token": "another"}, "400 InvalidToken"),
        ({"token": ""}, "403 InvalidAccessKeyId"),
        ({"path": "bucket/elsewhere"}, "403 AccessDenied"),
        ({"path": "bucket/in/1?acl"}, "403 AccessDenied"),
        ({"path": "bucket"}, "403 AccessDenied"),
        ({"path": ""}, "403 AccessDenied"),
        ({"method": "PUT", "headers": ENCRYPTED}, "403 AccessDenied"),
        ({"method": "DELETE", "path": "bucket/out/1"}, "403 AccessDenied"),
    ],
)
def test_a_request_is_refused_for_what_is_wrong_with_it(wrong: Any, told: str | None) -> None:
    given = keys()

    assert code(request(given, **wrong), given) == told


@pytest.mark.parametrize(
    ("before_the_end", "told"), [(0.001, None), (0, "400 ExpiredToken"), (-9, "400 ExpiredToken")]
)
def test_keys_end_when_they_end(before_the_end: float, told: str | None) -> None:
    given = keys()

    assert code(request(given), given, now=given.ends - before_the_end) == told


def test_the_token_is_looked_at_before_the_time_and_that_before_the_signature() -> None:
    given = keys()
    late = given.ends + 1

    assert code(request(given, token="x", secret="x"), given, late) == "400 InvalidToken"
    assert code(request(given, secret="x"), given, late) == "400 ExpiredToken"
    unfit = request(given, path="bucket/elsewhere", secret="x")
    assert code(unfit, given) == "403 SignatureDoesNotMatch"


@pytest.mark.parametrize(("method", "path"), [("PUT", "out/1"), ("POST", "out/1?uploads")])
@pytest.mark.parametrize(
    ("encryption_key", "headers", "told"),
    [
        (None, ENCRYPTED, None),
        (None, KEYED, "403 AccessDenied"),
        (None, {}, "403 AccessDenied"),
        (None, {"x-amz-server-side-encryption": "AES256"}, "403 AccessDenied"),
        ({"id": KMS, "type": "KMS"}, KEYED, None),
        ({"id": KMS, "type": "KMS"}, ENCRYPTED, "403 AccessDenied"),
        ({"id": "alias/other", "type": "KMS"}, KEYED, "403 AccessDenied"),
    ],
)
def test_an_upload_asks_for_the_job_s_encryption(
    method: str, path: str, encryption_key: Any, headers: dict[str, str], told: str | None
) -> None:
    given = keys(encryptionKey=encryption_key)

    assert code(request(given, method, f"bucket/{path}", headers), given) == told


def test_the_parts_of_an_upload_are_encrypted_as_it_is() -> None:
    given = keys()

    assert code(request(given, "PUT", "bucket/out/1?uploadId=u&partNumber=1"), given) is None
    assert code(request(given, "POST", "bucket/out/1?uploadId=u"), given) is None


def test_signing_times_count_only_while_aws_s_clock_is_off() -> None:
    given = replace(keys(), ends=10**10)
    asked = request(given)
    signed = sigv4.read(asked)
    assert signed is not None
    assert signed.at is not None

    assert code(asked, given, now=signed.at + 7200) is None
    assert code(asked, given, now=signed.at, offset=899) is None
    assert code(asked, given, now=signed.at, offset=901) == "403 RequestTimeTooSkewed"
    assert code(asked, given, now=signed.at, offset=-901) == "403 RequestTimeTooSkewed"
    undated = replace(signed, stamp="yesterday")
    refusal = gate.refused(asked, undated, given, 0)
    assert refusal is not None
    assert refusal.code == "AccessDenied"


def test_a_presigned_address_ends() -> None:
    given = replace(keys(), ends=10**10)
    made = AWSRequest("GET", "http://127.0.0.1/bucket/in/1")
    credentials = Credentials(given.access_key_id, given.secret, given.token)
    S3SigV4QueryAuth(credentials, "s3", "eu-west-1", expires=60).add_auth(made)
    asked = to_asked(made.prepare())
    signed = sigv4.read(asked)
    assert signed is not None
    assert signed.at is not None

    assert code(asked, given, now=signed.at + 60) is None
    assert code(asked, given, now=signed.at + 61) == "403 AccessDenied"


def test_another_region_than_the_bucket_s_is_told_to_any_signer() -> None:
    asked = request(keys())
    signed = sigv4.read(asked)
    assert signed is not None

    assert gate.wrong_region(asked, signed, None) is None
    assert gate.wrong_region(asked, signed, "eu-west-1") is None
    refusal = gate.wrong_region(asked, signed, "us-east-1")
    assert refusal is not None
    assert (refusal.status, refusal.code) == (400, "AuthorizationHeaderMalformed")
    assert "the region 'eu-west-1' is wrong; expecting 'us-east-1'" in refusal.message
    creation = request(keys(), "PUT", "bucket")
    assert gate.wrong_region(creation, signed, "us-east-1") is None


def test_a_temporary_key_that_nobody_gave_is_refused_and_others_are_not() -> None:
    signed = sigv4.read(request(keys()))
    assert signed is not None

    refusal = gate.unknown_key(signed, lambda _: False)

    assert refusal is not None
    assert (refusal.status, refusal.code) == (403, "InvalidAccessKeyId")
    assert gate.unknown_key(signed, lambda _: True) is None
    assert gate.unknown_key(replace(signed, access_key_id="AKIAEXAMPLE"), lambda _: False) is None


@pytest.mark.parametrize(
    ("query", "authorization", "told"),
    [
        ("AWSAccessKeyId=ASIA00&Signature=x", "", True),
        ("AWSAccessKeyId=AKIA00&Signature=x", "", False),
        ("", "AWS ASIA00:x=", True),
        ("", "AWS AKIA00:x=", False),
        ("", "", False),
    ],
)
def test_session_keys_in_an_older_signature_are_refused(
    query: str, authorization: str, told: bool
) -> None:
    asked = Asked("GET", "/bucket/in/1", query, {"authorization": authorization})

    assert (gate.older_signature(asked) is not None) is told


def test_artifacts_are_kept_where_codepipeline_would() -> None:
    first, second = located(["Configuration", "App"], "a-pipeline-with-a-long-name")

    place = first["location"]["s3Location"]
    assert place["bucketName"] == BUCKET
    pipeline, artifact, last = place["objectKey"].split("/")
    assert (pipeline, artifact) == ("a-pipeline-with-a-lo", "Configurat")
    assert len(last) == 7
    assert last.isalnum()
    assert second["name"] == "App"
    assert second["location"]["s3Location"]["objectKey"].split("/")[2] != last
