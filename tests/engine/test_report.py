"""From a verdict to AWS: stored first, sent until AWS has answered, and accepted once."""

from datetime import timedelta
from typing import NoReturn

import pytest

from dispatcher.emulator import jobs as aws
from dispatcher.engine.model import (
    Denied,
    InvalidClientToken,
    InvalidJobState,
    InvalidNonce,
    JobNotFound,
    JobRef,
    LedgerDown,
    Malformed,
    PortError,
    Refused,
    Throttled,
    TokensDown,
    Unanswered,
    UnknownClient,
)
from dispatcher.engine.ports import Event
from dispatcher.sdk import JobFailed, OnCrash, Owner, Retry, Succeeded
from tests.engine.line import failing, first, losing, reply_lost, unanswered
from tests.engine.outside import their
from tests.engine.world import World, doing, failure_type, raising

POLICIES = pytest.mark.parametrize("on_crash", list(OnCrash))
OWNERS = pytest.mark.parametrize("owner", list(Owner))


def is_dead(world: World, ref: JobRef) -> bool:
    return world.record(ref).get("dead") == "1"


@OWNERS
@POLICIES
def test_a_verdict_is_in_the_ledger_before_it_is_sent(
    world: World, owner: Owner, on_crash: OnCrash
) -> None:
    ref = world.offered(world.action(owner, on_crash))
    worker = world.worker()
    states: list[str] = []
    worker.line.next("put", first(lambda: states.append(world.record(ref)["state"])))

    worker.job(ref)

    assert states == ["finished"]
    assert world.record(ref)["state"] == "reported"
    assert "verdict" not in world.record(ref)


@OWNERS
@POLICIES
@pytest.mark.parametrize("applied", [True, False])
def test_a_verdict_whose_process_died_is_sent_by_another_and_its_handler_runs_once(
    world: World, owner: Owner, on_crash: OnCrash, applied: bool
) -> None:
    ref = world.offered(world.action(owner, on_crash))
    world.handler = raising(JobFailed("it broke"))
    line = world.worker().line
    (line.dies_after if applied else line.dies_before)("put")
    world.workers[-1].job(ref)

    heir = world.recover()

    assert heir.line.count("details") == 0
    verdict = world.verdict(ref)
    assert verdict is not None
    assert verdict.message == "it broke"
    assert (len(world.runs), world.accepted[ref.job_id]) == (1, 1)
    assert len(world.puts) == (2 if applied else 1)
    assert world.record(ref)["state"] == "reported"
    assert len(world.saw(Event.CLOSED if applied else Event.REPORTED)) == 1


def test_a_put_whose_reply_was_lost_is_sent_again_and_found_done(world: World) -> None:
    ref = world.offered(world.action())
    worker = world.worker()
    worker.line.next("put", reply_lost)

    worker.job(ref)

    assert len(world.puts) == 2
    assert world.accepted[ref.job_id] == 1
    assert world.record(ref)["state"] == "reported"
    assert (len(world.saw(Event.CLOSED)), len(world.saw(Event.REPORTED))) == (1, 0)


@pytest.mark.parametrize("error", [Throttled, None])
def test_a_put_without_an_answer_is_repeated_at_once(
    world: World, error: type[PortError] | None
) -> None:
    ref = world.offered(world.action())
    worker = world.worker()
    worker.line.next("put", *[failing(error) if error else unanswered] * 5)

    worker.job(ref)

    assert worker.line.count("put") == 6
    assert world.status(ref) is aws.Status.SUCCEEDED


def test_a_job_that_aws_closed_meanwhile_is_over(world: World) -> None:
    action = world.action()
    world.machine.define(their(action.spec.type), aws.Rules(job_timeout=timedelta(minutes=1)))
    ref = world.offered(action)
    world.handler = doing(lambda: world.clock.advance(90))

    world.worker().job(ref)

    assert world.status(ref) is aws.Status.TIMED_OUT
    assert len(world.puts) == 1
    assert world.record(ref)["state"] == "reported"
    assert len(world.saw(Event.CLOSED)) == 1


@POLICIES
def test_a_presumed_job_in_another_state_is_parked_and_only_a_handlers_verdict_is_kept(
    world: World, on_crash: OnCrash
) -> None:
    action = world.action(on_crash=on_crash)
    ref = world.offered(action)
    world.worker().line.dies_after("acknowledge")
    world.workers[-1].job(ref)
    world.clock.advance(31)
    worker = world.worker()
    worker.line.next("put", failing(InvalidJobState))

    worker.job(ref)

    record = world.record(ref)
    assert (record["state"], record["ack"]) == ("queued", "no")
    assert ("verdict" in record) == (on_crash is OnCrash.RERUN)
    assert world.redis.zscore("dispatcher:index:Acme", ref.job_id) is None


def test_a_verdict_that_was_kept_is_sent_only_after_a_new_acknowledgement(world: World) -> None:
    action = world.action(on_crash=OnCrash.RERUN)
    ref = world.offered(action)
    _presumed_without_being_ours(world, ref)

    # AWS hands it out anew, to us.
    world.clock.advance(31)
    assert world.offer(action) == [ref]
    worker = world.worker()
    worker.job(ref)

    assert worker.line.calls.index("acknowledge") < worker.line.calls.index("put")
    assert len(world.runs) == 1
    assert world.status(ref) is aws.Status.SUCCEEDED


def test_a_verdict_that_was_kept_is_forgotten_when_another_fleet_has_the_job(
    world: World,
) -> None:
    action = world.action(on_crash=OnCrash.RERUN)
    ref = world.offered(action)
    _presumed_without_being_ours(world, ref)
    world.clock.advance(31)
    assert world.offer(action) == [ref]
    worker = world.worker()
    worker.line.next("acknowledge", first(lambda: world.acknowledge_elsewhere(ref)))

    worker.job(ref)

    assert worker.line.count("put") == 0
    assert "verdict" not in world.record(ref)
    assert world.record(ref)["state"] == "queued"


def _presumed_without_being_ours(world: World, ref: JobRef) -> None:
    """A refusal that was none of ours was read as our own; the put found out."""
    world.worker().line.dies_before("acknowledge")
    world.workers[-1].job(ref)
    world.clock.advance(31)
    worker = world.worker()
    worker.line.next("acknowledge", failing(InvalidNonce))
    worker.job(ref)
    assert worker.line.count("put") == 1
    assert "verdict" in world.record(ref)


@POLICIES
def test_a_put_that_nobody_answers_for_a_minute_is_handed_back_and_sent_later(
    world: World, on_crash: OnCrash
) -> None:
    ref = world.offered(world.action(on_crash=on_crash))
    worker = world.worker()
    worker.line.always(unanswered, "put")
    begun = world.clock.monotonic()

    worker.job(ref)

    assert 60 <= world.clock.monotonic() - begun <= 68
    assert worker.line.count("put") >= 10
    assert len(world.saw(Event.PUT_LATER)) == 1
    assert world.redis.zscore("dispatcher:resting:Acme", ref.job_id) is not None
    world.recover(after=14)
    assert world.verdict(ref) is None
    world.recover(after=2)
    assert world.status(ref) is aws.Status.SUCCEEDED


@POLICIES
@pytest.mark.parametrize("refused", [False, True])
def test_a_verdict_that_the_ledger_lost_while_aws_was_silent_is_stored_again(
    world: World, on_crash: OnCrash, refused: bool
) -> None:
    """A wiped record is made anew by a heartbeat, but as that of a running handler."""
    ref = world.offered(world.action(Owner.THIRD_PARTY, on_crash))
    worker = world.worker()

    def wiped() -> NoReturn:
        world.redis.flushall()
        worker.leases._beat()
        raise Unanswered

    worker.line.next("put", first(wiped))
    worker.line.always(failing(Refused) if refused else unanswered, "put")

    worker.job(ref)

    assert "verdict" in world.record(ref)
    assert is_dead(world, ref) is refused


def test_later_puts_come_ever_later_and_end_after_a_day_as_a_dead_letter(world: World) -> None:
    ref = world.offered(world.action())
    worker = world.worker()
    worker.line.always(unanswered, "put")
    worker.job(ref)
    pauses = [pause(world, ref)]

    for seconds in [15, 60, 3600]:
        world.clock.advance(seconds)
        worker.settle(ref)
        pauses.append(pause(world, ref))
    assert pauses == [15, pytest.approx(34, abs=1), 60, 60]
    assert not is_dead(world, ref)

    world.clock.advance(22.95 * 3600)
    worker.settle(ref)

    assert is_dead(world, ref)
    assert len(world.saw(Event.DEAD)) == 1
    assert world.redis.zscore("dispatcher:resting:Acme", ref.job_id) is None
    assert world.redis.zscore("dispatcher:index:Acme", ref.job_id) is None
    tries = worker.line.count("put")
    world.recover()
    worker.settle(ref)
    assert worker.line.count("put") == tries


def pause(world: World, ref: JobRef) -> int:
    """Seconds until somebody puts again."""
    seconds, micros = world.redis.time()
    due = world.redis.zscore("dispatcher:resting:Acme", ref.job_id) or 0
    return round(due / 1000 - seconds - micros / 1_000_000)


@pytest.mark.parametrize("error", [Refused, JobNotFound])
def test_a_result_that_aws_refuses_for_good_is_a_dead_letter(
    world: World, error: type[PortError]
) -> None:
    ref = world.offered(world.action())
    worker = world.worker()
    worker.line.always(failing(error), "put")

    worker.job(ref)

    assert worker.line.count("put") == 1
    assert is_dead(world, ref)
    assert len(world.saw(Event.DEAD)) == 1
    assert "verdict" in world.record(ref)


@pytest.mark.parametrize("error", [Denied, Malformed, InvalidClientToken, UnknownClient])
def test_what_an_operator_can_mend_is_not_tried_at_once_and_not_given_up(
    world: World, error: type[PortError]
) -> None:
    ref = world.offered(world.action())
    worker = world.worker()
    worker.line.always(failing(error), "put")

    worker.job(ref)

    # A refused token is looked up anew once.
    assert worker.line.count("put") == (2 if error is InvalidClientToken else 1)
    assert world.record(ref)["state"] == "finished"
    assert not is_dead(world, ref)
    world.recover(after=16)
    assert world.status(ref) is aws.Status.SUCCEEDED


def test_a_result_waits_for_the_token_store(world: World) -> None:
    ref = world.offered(world.action())
    worker = world.worker()
    worker.line.next("token", None, None)
    worker.line.always(failing(TokensDown), "token")

    worker.job(ref)

    assert world.verdict(ref) is None
    world.recover(after=16)
    assert world.status(ref) is aws.Status.SUCCEEDED


# Without the ledger.


@POLICIES
def test_a_verdict_that_cannot_be_stored_is_sent_after_half_a_minute_by_a_fail_type_alone(
    world: World, on_crash: OnCrash
) -> None:
    ref = world.offered(world.action(on_crash=on_crash))
    worker = world.worker()
    world.handler = doing(worker.lose_redis)
    sent: list[float] = []
    worker.line.next("put", first(lambda: sent.append(world.clock.monotonic())))
    begun = world.clock.monotonic()

    worker.job(ref)

    if on_crash is OnCrash.FAIL:
        assert 30 <= sent[0] - begun <= 38
        assert world.status(ref) is aws.Status.SUCCEEDED
        assert len(world.saw(Event.PUT_ANYHOW)) == 1
    else:
        assert sent == []
        assert world.status(ref) is aws.Status.IN_PROGRESS
    worker.line.mend()
    world.recover()
    assert world.status(ref) is aws.Status.SUCCEEDED
    assert world.accepted[ref.job_id] == 1
    assert world.record(ref)["state"] == "reported"
    assert len(world.runs) == (1 if on_crash is OnCrash.FAIL else 2)


def test_a_verdict_is_stored_and_sent_when_redis_is_back_in_time(world: World) -> None:
    ref = world.offered(world.action(on_crash=OnCrash.RERUN))
    worker = world.worker()
    worker.line.next("finish", *[failing(LedgerDown)] * 6)

    worker.job(ref)

    assert world.status(ref) is aws.Status.SUCCEEDED
    assert len(world.runs) == 1


def test_a_verdict_that_was_stored_unseen_is_stored_once_and_sent(world: World) -> None:
    ref = world.offered(world.action(on_crash=OnCrash.RERUN))
    worker = world.worker()
    worker.line.next("finish", losing(LedgerDown))

    worker.job(ref)

    assert world.status(ref) is aws.Status.SUCCEEDED
    assert len(world.puts) == 1


def test_an_end_that_cannot_be_noted_costs_one_more_put(world: World) -> None:
    ref = world.offered(world.action())
    worker = world.worker()
    worker.line.next("finish", None, *[failing(LedgerDown)] * 30)
    worker.job(ref)
    assert world.record(ref)["state"] == "finished"

    world.recover()

    assert len(world.puts) == 2
    assert world.accepted[ref.job_id] == 1
    assert world.record(ref)["state"] == "reported"


@POLICIES
def test_a_retry_that_cannot_be_stored_reports_nothing(world: World, on_crash: OnCrash) -> None:
    ref = world.offered(world.action(on_crash=on_crash))
    worker = world.worker()
    world.handler = raising(Retry())
    worker.line.always(failing(LedgerDown), "finish")

    worker.job(ref)

    assert world.puts == []
    assert world.saw(Event.RETRY) == []
    world.handler = lambda job: Succeeded()
    world.recover()
    rerun = on_crash is OnCrash.RERUN
    assert failure_type(world.verdict(ref)) == (None if rerun else "SystemUnavailable")


def test_a_fail_verdict_that_no_ledger_and_no_aws_took_is_stored_when_redis_is_back(
    world: World,
) -> None:
    ref = world.offered(world.action())
    worker = world.worker()
    worker.line.always(unanswered, "put")
    # Half a minute to store it takes eight tries.
    worker.line.next("finish", *[failing(LedgerDown)] * 9)
    world.handler = raising(JobFailed("it broke"))

    worker.job(ref)
    world.recover(after=61)

    verdict = world.verdict(ref)
    assert verdict is not None
    assert verdict.message == "it broke"
