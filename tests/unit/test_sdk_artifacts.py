"""A job's artifacts, as a provider's author meets them in tests and in production alike."""

import io
import tarfile
from pathlib import Path

import pytest

from dispatcher.sdk import ConfigurationError, Format, JobFailed, MissingArtifact
from dispatcher.sdk.artifacts import READ_MOST
from dispatcher.testing import make_job, zipped


def test_an_artifact_that_the_action_lacks_is_a_configuration_error_that_names_what_there_is() -> (
    None
):
    job = make_job(inputs={"Source": b"", "Tests": b""})

    with pytest.raises(ConfigurationError) as error:
        job.inputs["App"].read_bytes()

    assert str(error.value) == "The action needs an input artifact App; it has Source, Tests."


def test_artifacts_can_be_looked_for_as_in_any_mapping() -> None:
    job = make_job(inputs={"Source": b""}, outputs=["App"])

    assert "Source" in job.inputs
    assert "App" not in job.inputs
    assert job.inputs.get("App") is None
    assert [list(job.inputs), list(job.outputs)] == [["Source"], ["App"]]
    assert repr(job.outputs) == "Artifacts(output: App)"


@pytest.mark.parametrize("names", [[], ["A", "B"]])
def test_the_only_one_is_asked_for_where_there_is_one(names: list[str]) -> None:
    assert make_job(outputs=["A"]).outputs.only().name == "A"

    with pytest.raises(MissingArtifact, match=r"exactly one output artifact; it has (none|A, B)"):
        make_job(outputs=names).outputs.only()


def test_what_does_not_belong_into_memory_is_not_read_at_once() -> None:
    job = make_job(inputs={"Big": b"x" * (READ_MOST + 1)})

    with pytest.raises(JobFailed, match="Big"):
        job.inputs["Big"].read_bytes()

    with job.inputs["Big"].open() as file:
        assert file.seek(0, io.SEEK_END) == READ_MOST + 1


def test_a_download_goes_to_a_file_or_into_a_folder_under_the_artifacts_name(
    tmp_path: Path,
) -> None:
    job = make_job(inputs={"Source": b"abc"})

    assert job.inputs["Source"].download(tmp_path / "file") == tmp_path / "file"
    assert job.inputs["Source"].download(str(tmp_path)) == tmp_path / "Source"
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {b"abc"}


def test_nothing_of_a_transfer_stays_in_the_jobs_folders(tmp_path: Path) -> None:
    job = make_job(inputs={"Source": {"a": "x"}, "Plain": b"y"}, outputs=["App"])
    bench = job.inputs["Source"].bench

    job.inputs["Source"].extract(tmp_path)
    job.inputs["Plain"].read_bytes()
    job.outputs["App"].archive(tmp_path)
    job.outputs["App"].write_bytes(b"")

    assert list(bench.folder.iterdir()) == []
    assert list(job.workdir.iterdir()) == []


def tar(name: str) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo(name))
    return held.getvalue()


@pytest.mark.parametrize(
    ("content", "found"),
    [(zipped({"a.txt": "x"}), Format.ZIP), (tar("a.txt"), Format.TAR_GZ), (b"x", Format.PLAIN)],
    ids=["zip", "tar", "plain"],
)
def test_the_content_says_how_it_is_unpacked(tmp_path: Path, content: bytes, found: Format) -> None:
    job = make_job(inputs={"a.txt": content})

    assert job.inputs["a.txt"].extract(tmp_path / "new" / "folder") is found
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["a.txt"]


@pytest.mark.parametrize("content", [tar("../escape"), zipped({})], ids=["hostile", "empty"])
def test_an_archive_that_is_refused_fails_the_job_in_a_sentence_that_names_the_artifact(
    tmp_path: Path, content: bytes
) -> None:
    job = make_job(inputs={"Source": content})

    with pytest.raises(JobFailed) as error:
        job.inputs["Source"].extract(tmp_path / "folder")

    assert str(error.value).startswith("Input artifact Source: ")
    assert str(error.value).endswith(".")
    assert error.value.__context__ is None
    assert list(tmp_path.rglob("escape")) == []


def test_a_plain_artifact_does_not_replace_what_lies_there(tmp_path: Path) -> None:
    (tmp_path / "Source").write_text("mine")
    job = make_job(inputs={"Source": b"theirs"})

    with pytest.raises(JobFailed, match="Source"):
        job.inputs["Source"].extract(tmp_path)

    assert (tmp_path / "Source").read_text() == "mine"


def test_what_was_archived_can_be_extracted(tmp_path: Path) -> None:
    (tmp_path / "dist/sub").mkdir(parents=True)
    (tmp_path / "dist/sub/run").write_text("#!/bin/sh\n")
    (tmp_path / "dist/sub/run").chmod(0o755)
    made = make_job(outputs=["App"])

    made.outputs["App"].archive(tmp_path / "dist", "tar", include=["sub/*"])
    make_job(inputs=made.written).inputs["App"].extract(tmp_path / "again")

    found = tmp_path / "again/sub/run"
    assert found.read_text() == "#!/bin/sh\n"
    assert found.stat().st_mode & 0o777 == 0o755


def test_a_folder_that_cannot_be_archived_fails_the_job(tmp_path: Path) -> None:
    job = make_job(outputs=["App"])
    (tmp_path / "out").symlink_to("/etc/hostname")

    with pytest.raises(JobFailed, match=r"Output artifact App: .*out"):
        job.outputs["App"].archive(tmp_path)

    assert not job.outputs["App"].written


def test_an_output_knows_whether_it_was_written() -> None:
    job = make_job(outputs=["App", "Log"])

    job.outputs["App"].write_bytes(b"x")

    assert (job.outputs["App"].written, job.outputs["Log"].written) == (True, False)
    assert job.written == {"App": b"x"}
