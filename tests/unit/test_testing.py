"""The jobs that provider authors test with."""

import gc
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dispatcher.sdk import ActionType, Job, Outcome, Owner, Pipeline, Succeeded, action
from dispatcher.testing import Progress, make_job


@action("Deploy", "Waiter", version="1")
def waiter(job: Job[None]) -> Outcome:
    job.progress(50, "half way")
    stopped = job.wait(timedelta(hours=1))
    return Succeeded(summary="stopped" if stopped else "done")


def test_a_handler_waits_and_reports_without_sleeping() -> None:
    job = make_job()

    assert waiter(job) == Succeeded(summary="done")
    assert job.control.waits == [3_600.0]
    assert job.control.progress_calls == [Progress(50, "half way")]


def test_a_handler_can_be_told_to_stop() -> None:
    job = make_job(stopping=True)

    assert job.stopping
    assert waiter(job) == Succeeded(summary="stopped")


def test_a_test_can_stop_a_handler_later() -> None:
    job = make_job()

    job.control.stop = True

    assert job.stopping


def test_a_job_has_sound_defaults() -> None:
    job = make_job("configuration")

    assert (job.config, job.client_id, job.attempt, job.continuation) == (
        "configuration",
        "client",
        1,
        None,
    )
    assert job.deadline > datetime.now(UTC)
    assert job.id != make_job().id
    assert not job.stopping


def test_every_part_of_a_job_can_be_given(tmp_path: Path) -> None:
    deadline = datetime(2030, 1, 1, tzinfo=UTC)
    custom = ActionType("Build", Owner.CUSTOM, "Other", "2")
    pipeline = Pipeline("p", "s", "a", arn="arn:p", execution_id="e")

    job = make_job(
        id="job-1",
        client_id=None,
        attempt=2,
        continuation="token",
        action=custom,
        pipeline=pipeline,
        deadline=deadline,
        workdir=tmp_path,
    )

    assert (job.id, job.client_id, job.attempt, job.continuation) == ("job-1", None, 2, "token")
    assert (job.action, job.pipeline, job.deadline) == (custom, pipeline, deadline)
    assert job.workdir == tmp_path


def test_the_workdir_is_real_and_goes_with_its_job() -> None:
    job = make_job()
    workdir = job.workdir
    (workdir / "file").write_text("text")

    del job
    gc.collect()

    assert not workdir.exists()


def test_a_given_workdir_stays(tmp_path: Path) -> None:
    job = make_job(workdir=tmp_path)

    del job
    gc.collect()

    assert tmp_path.exists()


def test_a_wrong_option_is_refused() -> None:
    with pytest.raises(TypeError, match="attempts"):
        make_job(attempts=2)  # type: ignore[call-overload]
