"""Artifacts through real S3 calls to the emulator, which checks whose keys a request has."""

import io
import os
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from dispatcher.aws.artifacts import CHUNK, S3Artifacts
from dispatcher.aws.codepipeline import CodePipeline
from dispatcher.aws.s3_requests import ATTEMPTS
from dispatcher.emulator.client import Emulator
from dispatcher.engine.model import JobRef
from dispatcher.rehearsal import REGION, Rehearsal, Rehearsed
from dispatcher.sdk import ActionType, Format, Job, JobFailed, Outcome, Owner, Succeeded, action
from tests.harness import Unwatched, eventually

BIG = os.urandom(1024) * (2 * CHUNK // 1024 + 100)  # three parts
TREE: dict[str, bytes | str] = {
    "app/main.py": "print('hello')",
    "app/data/x.bin": b"\x00\xff",
    "README": "read me",
}


@dataclass
class Doing:
    """What the handler below does with its job, told by each test."""

    step: Callable[[Job[None]], object]


doing = Doing(lambda job: None)


@action("Build", "Mover", version="1", owner="Custom")
def mover(job: Job[None]) -> Outcome:
    doing.step(job)
    return Succeeded()


@pytest.fixture
def move(rehearse: Rehearsal) -> Callable[..., Rehearsed]:
    def run(step: Callable[[Job[None]], object], **more: Any) -> Rehearsed:
        doing.step = step
        return rehearse(mover, **more)

    return run


Move = Callable[..., Rehearsed]


def copy(job: Job[None]) -> None:
    job.outputs.only().write_bytes(job.inputs.only().read_bytes())


def uploading(content: bytes) -> Callable[[Job[None]], None]:
    def step(job: Job[None]) -> None:
        path = job.workdir / "file"
        path.write_bytes(content)
        job.outputs.only().upload(path)

    return step


# What moves.


@pytest.mark.parametrize("content", [b"", b"x", BIG], ids=["empty", "small", "in parts"])
def test_bytes_come_in_and_go_out_unchanged(move: Move, content: bytes) -> None:
    def step(job: Job[None]) -> None:
        job.inputs["In"].download(job.workdir / "file")
        job.outputs["Out"].upload(job.workdir / "file")

    done = move(step, inputs={"In": content}, outputs=["Out"])

    assert done.failure is None
    assert done.outputs["Out"] == content


def test_an_artifact_is_read_as_bytes_or_as_a_file(move: Move) -> None:
    seen: list[bytes] = []

    def step(job: Job[None]) -> None:
        seen.append(job.inputs["In"].read_bytes())
        with job.inputs["In"].open() as file:
            file.seek(2)
            seen.append(file.read())

    assert move(step, inputs={"In": b"abcd"}).succeeded
    assert seen == [b"abcd", b"cd"]


def test_a_tree_is_extracted_and_archived(move: Move) -> None:
    def step(job: Job[None]) -> None:
        assert job.inputs["In"].extract(job.workdir / "tree") is Format.ZIP
        (job.workdir / "tree/app/main.py").chmod(0o755)
        job.outputs["Zip"].archive(job.workdir / "tree")
        job.outputs["Tar"].archive(job.workdir / "tree", "tar.gz", include=["app/**"])

    done = move(step, inputs={"In": TREE}, outputs=["Zip", "Tar"])

    assert done.failure is None
    with zipfile.ZipFile(io.BytesIO(done.outputs["Zip"])) as archive:
        assert {n: archive.read(n) for n in archive.namelist() if not n.endswith("/")} == {
            name: content if isinstance(content, bytes) else content.encode()
            for name, content in TREE.items()
        }
        assert archive.getinfo("app/main.py").external_attr >> 16 & 0o777 == 0o755
    assert done.outputs["Tar"].startswith(b"\x1f\x8b")


def test_what_is_no_archive_is_put_into_the_folder_as_it_is(move: Move) -> None:
    def step(job: Job[None]) -> None:
        assert job.inputs["In"].extract(job.workdir / "tree") is Format.PLAIN
        assert (job.workdir / "tree/In").read_bytes() == b"plain"

    assert move(step, inputs={"In": b"plain"}).failure is None


def test_nothing_is_moved_that_no_handler_asked_for(
    move: Move, codepipeline_emulator: Emulator
) -> None:
    assert move(lambda job: None, inputs={"In": b"x"}).succeeded
    assert codepipeline_emulator.s3_calls() == []


# Whose keys.


def test_every_request_has_the_jobs_own_keys(
    move: Move, codepipeline_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the-workers-own")

    done = move(copy, inputs={"In": BIG}, outputs=["Out"])

    calls = codepipeline_emulator.s3_calls()
    assert {call.job_id for call in calls} == {done.job_id}
    assert {call.operation for call in calls} == {
        "GetObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload",
    }  # fmt: skip
    assert done.failure is None


@pytest.mark.parametrize(
    ("operation", "content"),
    [
        ("GetObject", b"x"),
        ("GetObject", BIG),
        ("PutObject", b"x"),
        ("CreateMultipartUpload", BIG),
        ("UploadPart", BIG),
        ("CompleteMultipartUpload", BIG),
    ],
)
def test_keys_that_have_ended_are_renewed_once_and_the_request_sent_again(
    move: Move, codepipeline_emulator: Emulator, operation: str, content: bytes
) -> None:
    codepipeline_emulator.add_fault("expired-credentials", operation=operation)

    done = move(copy, inputs={"In": content}, outputs=["Out"])

    assert done.failure is None
    assert done.outputs["Out"] == content
    assert len(codepipeline_emulator.calls("GetJobDetails", done.job_id)) == 2


def test_keys_that_end_while_a_job_works_are_renewed(
    move: Move, codepipeline_emulator: Emulator
) -> None:
    codepipeline_emulator.reset(continuation_delay=0, credentials_lifetime=0.3)

    def step(job: Job[None]) -> None:
        content = job.inputs["In"].read_bytes()
        until = time.monotonic() + 0.3
        eventually(lambda: time.monotonic() > until, "the keys' time is over")
        job.outputs["Out"].write_bytes(content)

    done = move(step, inputs={"In": b"x"}, outputs=["Out"])

    assert done.failure is None
    assert "ExpiredToken" in {call.error for call in codepipeline_emulator.s3_calls()}


def test_keys_that_end_at_once_are_a_failure_and_no_endless_loop(
    move: Move, codepipeline_emulator: Emulator
) -> None:
    codepipeline_emulator.add_fault("expired-credentials", operation="GetObject", count=100)

    done = move(copy, inputs={"In": b"x"}, outputs=["Out"])

    assert done.failure == (
        "SystemUnavailable", "S3 does not take the job's session keys for the input artifact In."
    )  # fmt: skip
    assert len(codepipeline_emulator.s3_calls("GetObject")) == 2


def test_where_codepipeline_gives_no_new_keys_the_job_fails_with_that(
    move: Move, codepipeline_emulator: Emulator
) -> None:
    codepipeline_emulator.reset(continuation_delay=0, running_details="error")
    codepipeline_emulator.add_fault("expired-credentials", operation="PutObject")

    done = move(copy, inputs={"In": b"x"}, outputs=["Out"])

    assert done.failure == (
        "SystemUnavailable",
        "CodePipeline gave no new session keys for the output artifact Out.",
    )


def test_200_jobs_on_16_threads_never_sign_with_each_others_keys(
    codepipeline_emulator: Emulator, tmp_path: Path
) -> None:
    contents = [f"artifact {number}".encode() for number in range(200)]
    submitted = [
        codepipeline_emulator.submit("Mover", inputs={"In": content}, outputs=["Out"])
        for content in contents
    ]
    api, store = CodePipeline(connections=16), S3Artifacts(10**6)
    refs = [JobRef(job_id, None, ActionType("Test", Owner.CUSTOM, "Mover", "1"), REGION)
            for job_id in submitted]  # fmt: skip

    def run(ref: JobRef) -> None:
        belongings = api.details(ref, None).belongings
        path = tmp_path / ref.job_id
        with store.open(REGION, belongings, lambda: None, Unwatched()) as storage:
            storage.fetch("In", path)
            storage.store("Out", path, "application/octet-stream")

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(run, refs))

    calls = codepipeline_emulator.s3_calls()
    assert {call.error for call in calls} == {None}
    assert {call.job_id for call in calls} == set(submitted)
    assert [codepipeline_emulator.artifact(job_id, "Out") for job_id in submitted] == contents


# Where they are kept.


def test_the_jobs_own_kms_key_encrypts_its_outputs(
    move: Move, codepipeline_emulator: Emulator
) -> None:
    key = boto3.client("kms").create_key()["KeyMetadata"]["Arn"]

    done = move(copy, inputs={"In": BIG}, outputs=["Out"], encryptionKey={"id": key, "type": "KMS"})

    assert done.failure is None
    assert done.outputs["Out"] == BIG


def test_a_bucket_of_another_region_is_found(move: Move, codepipeline_emulator: Emulator) -> None:
    codepipeline_emulator.put_object("far-away", "in", BIG, region="eu-central-1")
    here = {"type": "S3", "s3Location": {"bucketName": "far-away", "objectKey": "in"}}
    there = {"type": "S3", "s3Location": {"bucketName": "far-away", "objectKey": "out"}}

    done = move(
        copy,
        inputArtifacts=[{"name": "In", "location": here}],
        outputArtifacts=[{"name": "Out", "location": there}],
    )

    assert done.failure is None
    assert codepipeline_emulator.get_object("far-away", "out") == BIG


# What goes wrong.

FAULTS = [
    ("GetObject", {"error": "NoSuchKey", "status": 404}, "RevisionUnavailable", "not there"),
    ("GetObject", {"error": "NoSuchBucket", "status": 404}, "ConfigurationError", "bucket"),
    ("GetObject", {"error": "AccessDenied", "status": 403}, "PermissionError", "refuses"),
    ("GetObject", {"error": "KMS.DisabledException"}, "PermissionError", "KMS key"),
    (
        "GetObject",
        {"error": "InvalidObjectState", "status": 403},
        "RevisionUnavailable",
        "archived",
    ),
    ("GetObject", {"error": "RequestTimeTooSkewed", "status": 403}, "SystemUnavailable", "clock"),
    ("GetObject", {"error": "Peculiar"}, "JobFailed", "Peculiar"),
    ("PutObject", {"error": "AccessDenied", "status": 403}, "PermissionError", "refuses"),
    ("PutObject", {"error": "KMS.NotFoundException"}, "PermissionError", "KMS key"),
    ("PutObject", {"error": "EntityTooLarge"}, "JobFailed", "larger"),
]


@pytest.mark.parametrize(("operation", "fault", "kind", "word"), FAULTS)
def test_what_s3_refuses_is_told_as_awss_failure_type_in_one_sentence(
    move: Move,
    codepipeline_emulator: Emulator,
    operation: str,
    fault: dict[str, Any],
    kind: str,
    word: str,
) -> None:
    codepipeline_emulator.add_fault("error", operation=operation, **fault)

    done = move(copy, inputs={"In": b"x"}, outputs=["Out"])

    assert done.failure is not None
    assert done.failure[0] == kind
    assert word in done.failure[1]
    artifact = "input artifact In" if operation == "GetObject" else "output artifact Out"
    assert artifact in done.failure[1]
    assert "codepipeline-emulator" not in done.failure[1]


def test_an_object_that_is_not_there_is_an_unavailable_revision(
    move: Move, codepipeline_emulator: Emulator
) -> None:
    codepipeline_emulator.put_object("artifacts", "other", b"x")
    at = {"type": "S3", "s3Location": {"bucketName": "artifacts", "objectKey": "gone"}}

    done = move(copy, inputArtifacts=[{"name": "In", "location": at}], outputs=["Out"])

    assert done.failure is not None
    assert done.failure[0] == "RevisionUnavailable"


def test_a_failed_upload_is_aborted_and_no_success_is_told(
    move: Move, codepipeline_emulator: Emulator
) -> None:
    codepipeline_emulator.add_fault("error", operation="UploadPart", error="AccessDenied", after=1)

    done = move(uploading(BIG), outputs=["Out"])

    assert done.failure is not None
    assert done.failure[0] == "PermissionError"
    assert "Out" not in done.outputs
    assert len(codepipeline_emulator.s3_calls("AbortMultipartUpload")) == 1
    (result,) = done.results
    assert result.at >= codepipeline_emulator.s3_calls()[-1].at


def test_success_is_told_after_the_last_upload(move: Move, codepipeline_emulator: Emulator) -> None:
    done = move(uploading(BIG), outputs=["Out"])

    last = codepipeline_emulator.s3_calls("CompleteMultipartUpload")[-1]
    assert done.results[-1].succeeded
    assert done.results[-1].at >= last.at


def test_an_output_that_the_handler_did_not_write_is_no_success(move: Move) -> None:
    done = move(lambda job: None, outputs=["Out"])

    assert done.failure is not None
    assert done.failure[0] == "ConfigurationError"
    assert "output artifact Out" in done.failure[1]


def test_a_name_that_the_action_lacks_is_a_configuration_error(move: Move) -> None:
    done = move(lambda job: job.inputs["Source"].read_bytes(), inputs={"In": b"x"})

    assert done.failure == (
        "ConfigurationError", "The action needs an input artifact Source; it has In."
    )  # fmt: skip


def test_an_artifact_beyond_the_operators_limit_is_not_fetched(
    codepipeline_emulator: Emulator, tmp_path: Path
) -> None:
    job_id = codepipeline_emulator.submit("Mover", inputs={"In": b"x" * 2000})
    ref = JobRef(job_id, None, ActionType("Test", Owner.CUSTOM, "Mover", "1"), REGION)
    belongings = CodePipeline(connections=1).details(ref, None).belongings

    with (
        S3Artifacts(1999).open(REGION, belongings, lambda: None, Unwatched()) as storage,
        pytest.raises(JobFailed, match="In has 2000 bytes; at most 1999"),
    ):
        storage.fetch("In", tmp_path / "file")


def test_a_transfer_ends_with_the_jobs_time(
    codepipeline_emulator: Emulator, tmp_path: Path
) -> None:
    class Impatient(Unwatched):
        def moved(self, direction: str, name: str, done: int, of: int) -> bool:
            return False

    job_id = codepipeline_emulator.submit("Mover", outputs=["Out"])
    ref = JobRef(job_id, None, ActionType("Test", Owner.CUSTOM, "Mover", "1"), REGION)
    belongings = CodePipeline(connections=1).details(ref, None).belongings
    (tmp_path / "file").write_bytes(BIG)

    with (
        S3Artifacts(10**9).open(REGION, belongings, lambda: None, Impatient()) as storage,
        pytest.raises(JobFailed, match="time was over"),
    ):
        storage.store("Out", tmp_path / "file", "application/zip")

    assert codepipeline_emulator.artifact(job_id, "Out") is None
    assert len(codepipeline_emulator.s3_calls("AbortMultipartUpload")) == 1


def test_s3_that_stays_away_is_asked_again_for_a_while_and_then_named(
    move: Move, codepipeline_emulator: Emulator
) -> None:
    codepipeline_emulator.add_fault("unavailable", operation="PutObject", count=100)

    done = move(uploading(b"x"), outputs=["Out"])

    assert done.failure == (
        "SystemUnavailable", "S3 does not answer for the output artifact Out."
    )  # fmt: skip
    assert len(codepipeline_emulator.s3_calls("PutObject")) == ATTEMPTS


def test_a_lost_answer_is_made_good(move: Move, codepipeline_emulator: Emulator) -> None:
    for operation in ("GetObject", "UploadPart"):
        codepipeline_emulator.add_fault("drop-before", operation=operation, count=2)

    done = move(copy, inputs={"In": BIG}, outputs=["Out"])

    assert done.failure is None
    assert done.outputs["Out"] == BIG
