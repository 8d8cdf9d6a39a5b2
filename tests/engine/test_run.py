"""The handler: what it is given, and what becomes of whatever it does."""

import logging
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import pytest

from dispatcher.emulator import jobs as aws
from dispatcher.engine.model import LedgerDown
from dispatcher.engine.ports import Event
from dispatcher.sdk import (
    ConfigurationError,
    Continue,
    Failure,
    Job,
    JobFailed,
    Key,
    OnCrash,
    Outcome,
    Owner,
    PermissionDenied,
    Retry,
    RevisionOutOfSync,
    RevisionUnavailable,
    Secret,
    Succeeded,
    SystemUnavailable,
)
from tests.engine.line import failing, then
from tests.engine.outside import CLIENT
from tests.engine.world import World, doing, failure_type, raising

POLICIES = pytest.mark.parametrize("on_crash", list(OnCrash))
THREE_MINUTES = timedelta(minutes=3)


@dataclass(frozen=True)
class Config:
    url: Annotated[str, Key("AppURL")]
    password: Annotated[Secret | None, Key("Password")] = None


# What it is given.


def test_a_handler_is_given_its_job(world: World) -> None:
    action = world.action(Owner.CUSTOM, config=Config, time_limit=THREE_MINUTES)
    ref = world.offered(action, {"AppURL": "https://a.example"})
    begun = world.clock.now()

    world.worker().job(ref)

    job = world.runs[0]
    assert (job.id, job.client_id, job.action) == (ref.job_id, None, ref.type)
    assert job.config == Config("https://a.example")
    assert (job.pipeline.name, job.pipeline.stage, job.pipeline.action) == (
        "pipeline",
        "stage",
        "action",
    )
    assert (job.attempt, job.continuation) == (1, None)
    assert job.deadline == begun + THREE_MINUTES


def test_a_continuations_handler_is_given_the_token(world: World) -> None:
    action = world.action()
    ref = world.offered(action)
    world.handler = lambda job: Continue("so far") if not job.continuation else Succeeded()
    worker = world.worker()
    worker.job(ref)
    assert world.status(ref) is aws.Status.SUCCEEDED
    world.clock.advance(30)
    [following] = world.offer(action)

    worker.job(following)

    assert [job.continuation for job in world.runs] == [None, "so far"]
    assert world.status(following) is aws.Status.SUCCEEDED


def test_a_working_directory_is_there_for_the_handler_and_then_gone(world: World) -> None:
    ref = world.offered(world.action())
    found: list[bool] = []

    def handler(job: Job[Any]) -> Outcome:
        (job.workdir / "artifact").write_text("text")
        found.append(job.workdir.is_dir())
        raise JobFailed("no")

    world.handler = handler
    world.worker().job(ref)

    assert found == [True]
    assert not Path(world.runs[0].workdir).exists()


def test_what_a_handler_leaves_in_context_variables_is_not_seen_by_the_next(world: World) -> None:
    action = world.action()
    tenant: ContextVar[str] = ContextVar("tenant", default="nobody")
    seen: list[str] = []

    def handler(job: Job[Any]) -> Outcome:
        seen.append(tenant.get())
        tenant.set(job.id)
        return Succeeded()

    world.handler = handler
    worker = world.worker()
    for ref in [world.offered(action), world.offered(action)]:
        worker.job(ref)

    assert seen == ["nobody", "nobody"]


def test_a_jobs_log_adds_its_fields_to_the_authors_own(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    ref = world.offered(world.action())
    world.handler = _says

    with caplog.at_level(logging.INFO):
        world.worker().job(ref)

    [record] = caplog.records
    assert record.name == "dispatcher.provider.Acme"
    fields = {
        name: record.__dict__[name] for name in ("job_id", "provider", "client", "attempt", "run")
    }
    assert fields == {
        "job_id": ref.job_id,
        "provider": "Acme",
        "client": CLIENT,
        "attempt": 1,
        "run": 1,
    }
    assert record.__dict__["step"] == 3


def _says(job: Job[Any]) -> Outcome:
    job.log.info("deployed", extra={"step": 3, "job_id": "another's"})
    return Succeeded()


# What it returns and raises.


@pytest.mark.parametrize("owner", list(Owner))
def test_an_outcome_is_put_as_it_was_returned(world: World, owner: Owner) -> None:
    ref = world.offered(world.action(owner))
    world.handler = lambda job: Succeeded("well", "id-1", variables={"Url": "u"})

    world.worker().job(ref)

    verdict = world.verdict(ref)
    assert verdict is not None
    assert (verdict.message, verdict.external_id, verdict.ours) == ("well", "id-1", False)
    third_party = owner is Owner.THIRD_PARTY
    assert verdict.variables == (None if third_party else {"Url": "u"})
    assert len(world.saw(Event.VARIABLES_LEFT_OUT)) == third_party


def test_a_continue_is_put_with_its_token(world: World) -> None:
    ref = world.offered(world.action())
    world.handler = lambda job: Continue("token", 40, "on its way", "id-1")

    world.worker().job(ref)

    verdict = world.verdict(ref)
    assert verdict is not None
    assert (verdict.token, verdict.percent, verdict.message) == ("token", 40, "on its way")
    assert verdict.external_id == "id-1"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (JobFailed, "JobFailed"),
        (ConfigurationError, "ConfigurationError"),
        (PermissionDenied, "PermissionError"),
        (RevisionOutOfSync, "RevisionOutOfSync"),
        (RevisionUnavailable, "RevisionUnavailable"),
        (SystemUnavailable, "SystemUnavailable"),
    ],
)
def test_a_failure_is_put_with_its_type_text_and_external_id(
    world: World, error: type[Failure], kind: str
) -> None:
    ref = world.offered(world.action())
    world.handler = raising(error("it broke", "id-7"))

    world.worker().job(ref)

    verdict = world.verdict(ref)
    assert verdict is not None
    assert (verdict.failure_type, verdict.message, verdict.external_id) == (
        kind,
        "it broke",
        "id-7",
    )
    assert verdict.ours is False


def test_a_wrong_configuration_fails_the_job_under_its_keys_name_without_a_start(
    world: World,
) -> None:
    ref = world.offered(world.action(config=Config), {"Password": "hunter2"})

    world.worker().job(ref)

    verdict = world.verdict(ref)
    assert verdict is not None
    assert verdict.failure_type == "ConfigurationError"
    assert "AppURL" in verdict.message
    assert "hunter2" not in verdict.message
    assert world.runs == []


@pytest.mark.parametrize(
    "error",
    [
        ValueError("the password is hunter2"),
        SystemExit("hunter2"),
        KeyboardInterrupt("hunter2"),
        GeneratorExit("hunter2"),
        ExceptionGroup("hunter2", [ValueError("hunter2")]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_else_is_raised_is_a_bug_of_which_aws_learns_a_reference_alone(
    world: World, error: BaseException
) -> None:
    ref = world.offered(world.action(config=Config), {"AppURL": "u", "Password": "hunter2"})
    world.handler = raising(error)

    world.worker().job(ref)

    [bug] = world.saw(Event.BUG)
    verdict = world.verdict(ref)
    assert verdict is not None
    assert (verdict.failure_type, verdict.ours) == ("JobFailed", True)
    assert str(bug.fields["reference"]) in verdict.message
    assert "hunter2" not in str(verdict)
    assert bug.fields["error"] is error


def test_the_log_of_a_bug_is_told_which_texts_are_secret(world: World) -> None:
    action = world.action(config=Config)
    ref = world.offered(action, {"AppURL": "u", "Password": "hunter2"})
    world.handler = lambda job: Continue("a secret way") if not job.continuation else _breaks()
    worker = world.worker()
    worker.job(ref)
    world.clock.advance(30)
    [following] = world.offer(action)

    worker.job(following)

    secrets = world.saw(Event.BUG)[0].fields["secrets"]
    nonce = world.machine.jobs(following.job_id)[0].nonce
    assert {"hunter2", "a secret way", nonce} <= set(secrets)


def _breaks() -> Outcome:
    raise RuntimeError("broken")


@pytest.mark.parametrize("returned", [None, "done", Succeeded, 0])
def test_a_handler_that_returns_no_outcome_has_a_bug(world: World, returned: Any) -> None:
    ref = world.offered(world.action())
    world.handler = lambda job: returned

    world.worker().job(ref)

    assert failure_type(world.verdict(ref)) == "JobFailed"
    assert isinstance(world.saw(Event.BUG)[0].fields["error"], TypeError)


# Whether it starts.


@POLICIES
def test_a_handler_does_not_start_when_its_job_became_anothers_before_its_first_heartbeat(
    world: World, on_crash: OnCrash
) -> None:
    ref = world.offered(world.action(on_crash=on_crash))
    worker = world.worker()

    def lapses() -> None:
        """The process stands still for longer than its first lease."""
        worker.frozen = True
        world.recover(after=31)
        worker.frozen = False

    worker.line.next("acknowledge", then(lapses))
    worker.job(ref)

    assert len(world.runs) == (1 if on_crash is OnCrash.RERUN else 0)
    assert len(world.saw(Event.LOST)) == 1
    assert world.accepted[ref.job_id] == 1
    assert len(world.puts) == 1


def test_a_handler_starts_once_redis_takes_its_first_heartbeat(world: World) -> None:
    ref = world.offered(world.action())
    worker = world.worker()
    worker.line.next("heartbeat", failing(LedgerDown), failing(LedgerDown))

    worker.job(ref)

    assert len(world.runs) == 1
    assert len(world.saw(Event.LEDGER_DOWN)) == 2


def test_a_handler_does_not_start_when_its_first_heartbeat_finds_no_answer_for_its_lease(
    world: World,
) -> None:
    ref = world.offered(world.action())
    worker = world.worker()
    worker.line.always(failing(LedgerDown), "heartbeat")
    begun = world.clock.monotonic()

    worker.job(ref)

    assert 24 <= world.clock.monotonic() - begun < 30
    assert world.runs == []
    assert world.puts == []


# Again.


def test_a_retrys_delay_doubles_until_the_runs_are_used_up(world: World) -> None:
    ref = world.offered(world.action(max_attempts=4))
    world.handler = raising(Retry(timedelta(seconds=100)))
    world.worker().job(ref)
    delays = []

    for _ in range(3):
        waited = 0
        while not world.queues.jobs and waited < 1000:
            world.clock.advance(20)
            waited += 20
            world.sweep()
        delays.append(waited)
        world.deliver(world.worker())

    assert delays == [100, 200, 400]
    assert [job.attempt for job in world.runs] == [1, 2, 3, 4]
    assert failure_type(world.verdict(ref)) == "SystemUnavailable"
    assert [seen.fields["after"] for seen in world.saw(Event.RETRY)] == [100, 200, 400]


def test_a_retry_waits_a_quarter_of_an_hour_at_most(world: World) -> None:
    ref = world.offered(world.action())
    world.handler = raising(Retry(timedelta(hours=1)))

    world.worker().job(ref)

    assert world.saw(Event.RETRY)[0].fields["after"] == 900


def test_nobody_starts_a_retry_before_its_time(world: World) -> None:
    action = world.action()
    ref = world.offered(action)
    world.handler = raising(Retry(timedelta(seconds=100)))
    world.worker().job(ref)

    for _ in range(9):
        world.clock.advance(10)
        world.offer(action)
        world.sweep()
        world.worker().job(ref)

    assert len(world.runs) == 1
    assert [seen.fields["why"] for seen in world.saw(Event.DROPPED)] == ["not yet due"] * 9


def test_an_error_named_in_retry_on_asks_for_another_run(world: World) -> None:
    ref = world.offered(world.action(retry_on=(ConnectionError,)))
    world.handler = raising(ConnectionResetError("away"))
    world.worker().job(ref)
    assert world.saw(Event.RETRY)[0].fields["after"] == 10
    world.handler = doing(lambda: None)

    world.recover(after=11)

    assert world.status(ref) is aws.Status.SUCCEEDED
    assert world.saw(Event.BUG) == []


def test_a_single_run_is_not_repeated(world: World) -> None:
    ref = world.offered(world.action(max_attempts=1))
    world.handler = raising(Retry())

    world.worker().job(ref)

    assert failure_type(world.verdict(ref)) == "SystemUnavailable"


@POLICIES
def test_runs_that_a_retry_asked_for_are_no_crashes(world: World, on_crash: OnCrash) -> None:
    ref = world.offered(world.action(on_crash=on_crash, max_attempts=6))
    world.handler = raising(Retry(timedelta()))
    world.worker().job(ref)
    for _ in range(3):
        world.recover(after=1)
    world.worker().line.dies_before("finish")
    world.workers[-1].job(ref)
    assert len(world.runs) == 5
    world.handler = doing(lambda: None)

    world.recover()

    rerun = on_crash is OnCrash.RERUN
    assert len(world.runs) == (6 if rerun else 5)
    assert failure_type(world.verdict(ref)) == (None if rerun else "SystemUnavailable")


def test_a_rerun_handler_whose_process_dies_is_started_three_times_at_most(world: World) -> None:
    ref = world.offered(world.action(on_crash=OnCrash.RERUN))
    world.worker().line.dies_before("finish")
    world.workers[-1].job(ref)
    for _ in range(2):
        world.clock.advance(61)
        world.worker().line.dies_before("finish")
        world.workers[-1].job(ref)

    world.recover()

    assert [job.attempt for job in world.runs] == [1, 2, 3]
    assert failure_type(world.verdict(ref)) == "SystemUnavailable"


def test_a_fail_handler_whose_process_dies_is_not_started_again(world: World) -> None:
    ref = world.offered(world.action())
    world.worker().line.dies_before("finish")
    world.workers[-1].job(ref)

    world.recover()

    assert len(world.runs) == 1
    assert failure_type(world.verdict(ref)) == "SystemUnavailable"
