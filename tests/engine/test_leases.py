"""Leases: who may go on, who must stop, and what is told of it."""

from datetime import timedelta
from typing import Any

import pytest
from redis import Redis

from dispatcher.emulator import jobs as aws
from dispatcher.engine.model import Claim, Kind, LedgerDown, Store, Verdict
from dispatcher.engine.ports import Event
from dispatcher.engine.times import Times
from dispatcher.sdk import Job, OnCrash, Outcome, Succeeded
from tests.engine.line import failing, first, losing, unanswered
from tests.engine.world import World, doing, failure_type

POLICIES = pytest.mark.parametrize("on_crash", list(OnCrash))
FIVE_MINUTES = timedelta(minutes=5)


def test_heartbeats_keep_a_job_for_as_long_as_its_handler_runs(world: World) -> None:
    action = world.action()
    ref = world.offered(action)
    worker, other = world.worker(), world.worker()

    def meanwhile() -> None:
        for _ in range(10):
            world.clock.advance(60)
            world.offer(action)
            world.sweep()
            other.job(ref)

    world.handler = doing(meanwhile)
    worker.job(ref)

    assert len(world.runs) == 1
    assert (len(world.queues.jobs), len(world.queues.settle)) == (0, 0)
    assert world.status(ref) is aws.Status.SUCCEEDED
    # Four in a lease, and one at the start.
    assert 39 <= worker.line.count("heartbeat") <= 41


def test_a_handler_whose_job_is_anothers_is_told_to_stop_at_the_next_heartbeat(
    world: World,
) -> None:
    ref = world.offered(world.action())
    waits: list[tuple[bool, float]] = []

    def handler(job: Job[Any]) -> Outcome:
        assert not job.stopping
        world.redis.hset(f"dispatcher:job:{ref.job_id}", "owner", "another/1/1")
        begun = world.clock.monotonic()
        waits.append((job.wait(60), world.clock.monotonic() - begun))
        return Succeeded()

    world.handler = handler
    worker = world.worker()
    worker.job(ref)

    [(stopping, seconds)] = waits
    assert stopping
    assert 14 <= seconds <= 16
    assert len(world.saw(Event.LOST)) == 2  # the lease, and then its late return
    assert world.puts == []
    assert worker.fenced == 0


@POLICIES
def test_a_process_that_reaches_no_redis_stops_its_handlers_before_a_lease_ends(
    world: World, on_crash: OnCrash
) -> None:
    ref = world.offered(world.action(on_crash=on_crash))
    worker = world.worker()
    waits: list[tuple[bool, float]] = []

    def handler(job: Job[Any]) -> Outcome:
        worker.lose_redis()
        begun = world.clock.monotonic()
        waits.append((job.wait(600), world.clock.monotonic() - begun))
        return Succeeded()

    world.handler = handler
    worker.job(ref)

    [(stopping, seconds)] = waits
    assert stopping
    assert 53 <= seconds <= 55
    assert worker.fenced == (on_crash is OnCrash.RERUN)


@POLICIES
def test_after_a_lease_without_redis_only_a_fail_handler_renews_what_it_had(
    world: World, on_crash: OnCrash
) -> None:
    ref = world.offered(world.action(on_crash=on_crash))
    worker = world.worker()
    found: list[dict[str, str]] = []

    def goes_on() -> None:
        worker.lose_redis()
        world.clock.advance(70)
        world.redis.flushall()
        worker.line.mend()
        world.clock.advance(40)
        found.append(world.record(ref))

    world.handler = doing(goes_on)
    worker.job(ref)

    assert found[0].get("state") == (None if on_crash is OnCrash.RERUN else "running")


def test_a_rerun_handler_without_its_lease_puts_nothing_itself(world: World) -> None:
    ref = world.offered(world.action(on_crash=OnCrash.RERUN))
    worker = world.worker()

    def goes_on() -> None:
        worker.lose_redis()
        world.clock.advance(70)
        worker.line.mend()

    world.handler = doing(goes_on)
    worker.job(ref)

    assert worker.line.count("put") == 0
    world.recover(after=1)
    assert world.status(ref) is aws.Status.SUCCEEDED


@POLICIES
def test_two_handlers_of_a_frozen_process_and_of_its_successor_put_one_result(
    world: World, on_crash: OnCrash
) -> None:
    ref = world.offered(world.action(on_crash=on_crash))
    worker = world.worker()

    def stands_still() -> None:
        if len(world.runs) == 1:
            worker.frozen = True
            world.recover(after=61)
            worker.frozen = False

    world.handler = doing(stands_still)
    worker.job(ref)

    assert len(world.runs) == (2 if on_crash is OnCrash.RERUN else 1)
    assert world.accepted[ref.job_id] == 1
    assert worker.line.count("put") == 0


@POLICIES
def test_a_handler_past_its_time_limit_is_stopped_reported_and_counted(
    world: World, on_crash: OnCrash
) -> None:
    ref = world.offered(world.action(on_crash=on_crash, time_limit=FIVE_MINUTES))
    worker = world.worker()
    hung: list[int] = []

    def hangs() -> None:
        world.clock.advance(299)
        hung.append(worker.leases.hung())
        world.clock.advance(2)
        hung.append(worker.leases.hung())
        assert world.runs[0].stopping
        world.recover(after=30)
        hung.append(worker.leases.hung())

    world.handler = doing(hangs)
    worker.job(ref)

    assert hung == [0, 0, 1]
    assert worker.fenced == 1
    assert worker.leases.hung() == 0
    verdict = world.verdict(ref)
    assert verdict is not None
    assert (verdict.failure_type, "5 minutes" in verdict.message) == ("JobFailed", True)
    assert len(world.saw(Event.TIMED_OUT)) == 1
    assert len(world.puts) == 1
    assert worker.line.count("put") == 0


def test_a_late_return_before_the_time_out_was_sent_is_refused_too(world: World) -> None:
    ref = world.offered(world.action(time_limit=FIVE_MINUTES))
    worker = world.worker()
    world.handler = doing(lambda: world.clock.advance(302))

    worker.job(ref)

    assert world.puts == []
    assert world.record(ref)["state"] == "finished"
    world.recover(after=1)
    assert failure_type(world.verdict(ref)) == "JobFailed"


def test_a_handler_that_returns_while_its_time_out_is_told_is_not_timed_out(world: World) -> None:
    ref = world.offered(world.action(time_limit=FIVE_MINUTES))
    worker = world.worker()

    def returns() -> None:
        [held] = worker.leases.holding()
        held.deadline = None
        world.ledger.finish(held.claim, Store(Verdict(Kind.SUCCESS, "just in time")))

    def handler(job: Job[Any]) -> Outcome:
        worker.line.next("finish", first(returns))
        world.clock.advance(302)
        [held] = worker.leases.holding()
        assert not held.lost
        return Succeeded("just in time")

    world.handler = handler
    worker.job(ref)

    assert world.saw(Event.TIMED_OUT) == []
    assert world.status(ref) is aws.Status.SUCCEEDED


@POLICIES
def test_a_handler_that_returned_in_time_is_not_timed_out_while_its_result_is_sent(
    world: World, on_crash: OnCrash
) -> None:
    ref = world.offered(world.action(on_crash=on_crash, time_limit=FIVE_MINUTES))
    worker = world.worker()
    worker.line.next("put", *[unanswered] * 7)
    world.handler = doing(lambda: world.clock.advance(299))

    worker.job(ref)

    assert world.saw(Event.TIMED_OUT) == []
    assert worker.line.count("put") == 8
    assert world.status(ref) is aws.Status.SUCCEEDED


def test_a_time_out_is_stored_as_soon_as_redis_is_back(world: World) -> None:
    ref = world.offered(world.action(time_limit=timedelta(seconds=30)))
    worker = world.worker()

    def hangs() -> None:
        worker.line.always(failing(LedgerDown), "finish")
        world.clock.advance(35)
        assert world.saw(Event.TIMED_OUT) == []
        worker.line.mend()
        world.clock.advance(1)
        assert len(world.saw(Event.TIMED_OUT)) == 1

    world.handler = doing(hangs)
    worker.job(ref)

    assert world.record(ref)["state"] == "finished"


@POLICIES
def test_a_hanging_handler_that_lost_its_lease_holds_its_slot_all_the_same(
    world: World, on_crash: OnCrash
) -> None:
    ref = world.offered(world.action(on_crash=on_crash, time_limit=timedelta(seconds=100)))
    worker = world.worker()

    def hangs() -> None:
        worker.lose_redis()
        world.clock.advance(129)
        assert worker.leases.hung() == 0
        world.clock.advance(2)
        assert worker.leases.hung() == 1

    world.handler = doing(hangs)
    worker.job(ref)

    assert worker.leases.hung() == 0


@POLICIES
def test_a_handler_that_goes_on_after_its_job_was_ended_is_hung_and_fenced(
    world: World, on_crash: OnCrash
) -> None:
    ref = world.offered(world.action(on_crash=on_crash, time_limit=timedelta(hours=1)))
    worker = world.worker()

    def goes_on() -> None:
        assert world.ledger.overrule(ref, Store(Verdict(Kind.FAILURE, "ended by an operator")))
        world.clock.advance(25)
        assert world.runs[0].stopping
        assert (worker.leases.hung(), worker.fenced) == (0, 0)
        world.clock.advance(30)
        assert (worker.leases.hung(), worker.fenced) == (1, 1)

    world.handler = doing(goes_on)
    worker.job(ref)

    assert worker.leases.hung() == 0


def test_a_hanging_handler_whose_job_is_anothers_holds_its_slot_all_the_same(
    world: World,
) -> None:
    ref = world.offered(world.action(time_limit=timedelta(seconds=100)))
    worker = world.worker()

    def hangs() -> None:
        worker.frozen = True
        world.recover(after=61)
        world.clock.advance(50)
        worker.frozen = False
        world.clock.advance(31)
        assert worker.leases.hung() == 1
        calls = len(worker.line.calls)
        world.clock.advance(60)
        assert len(worker.line.calls) == calls  # and asks the ledger no more

    world.handler = doing(hangs)
    worker.job(ref)

    assert worker.leases.hung() == 0
    assert world.accepted[ref.job_id] == 1


def test_a_time_out_that_another_sent_at_once_is_counted_though_its_release_found_no_answer(
    world: World,
) -> None:
    ref = world.offered(world.action(time_limit=timedelta(seconds=290)))
    worker = world.worker()
    other = world.worker()

    def hangs() -> None:
        worker.line.next("finish", None, losing(LedgerDown))
        worker.line.next("finish", first(lambda: other.settle(ref)))
        world.clock.advance(322)
        assert worker.leases.hung() == 1

    world.handler = doing(hangs)
    worker.job(ref)

    assert failure_type(world.verdict(ref)) == "JobFailed"
    assert len(world.puts) == 1


def test_a_lease_that_is_longer_than_the_window_is_renewed_within_the_first(redis: Redis) -> None:
    times = Times(ack_window=timedelta(seconds=6), lease=timedelta(seconds=60))
    world = World(redis, times)
    ref = world.offered(world.action())
    world.worker().line.dies_before("put")
    world.workers[-1].job(ref)
    world.clock.advance(61)
    worker, other = world.worker(), world.worker()
    worker.line.always(unanswered, "put")
    world.clock.after(10, lambda: other.settle(ref))

    worker.settle(ref)

    assert other.line.calls == ["begin"]
    assert world.saw(Event.DROPPED)[-1].fields["why"] == "leased"


def test_a_refused_heartbeat_of_a_superseded_delivery_does_not_touch_the_living_one(
    world: World,
) -> None:
    action = world.action(on_crash=OnCrash.RERUN)
    ref = world.offered(action)
    worker = world.worker()
    stopping: list[bool] = []

    def handler(job: Job[Any]) -> Outcome:
        if len(world.runs) == 1:
            world.redis.hset(f"dispatcher:job:{ref.job_id}", "lease", 0)
            worker.job(ref)  # the same process takes it again
            stopping.append(job.stopping)
        else:
            assert len(worker.leases.holding()) == 2
            world.clock.advance(20)
            stopping.append(job.stopping)
        return Succeeded()

    world.handler = handler
    worker.job(ref)

    assert stopping == [False, True]
    assert len(world.runs) == 2
    assert world.accepted[ref.job_id] == 1


def test_progress_is_in_the_record_with_the_next_heartbeat(world: World) -> None:
    ref = world.offered(world.action())
    found: list[dict[str, str]] = []

    def handler(job: Job[Any]) -> Outcome:
        job.progress(40, "half way")
        world.clock.advance(16)
        found.append(world.record(ref))
        return Succeeded()

    world.handler = handler
    world.worker().job(ref)

    assert (found[0]["percent"], found[0]["note"]) == ("40", "half way")


def test_waiting_ends_early_when_the_process_stops(world: World) -> None:
    ref = world.offered(world.action())
    worker = world.worker()
    waits: list[tuple[bool, float]] = []

    def stop() -> None:
        worker.stops = True

    def handler(job: Job[Any]) -> Outcome:
        begun = world.clock.monotonic()
        waits.append((job.wait(5), world.clock.monotonic() - begun))
        world.clock.after(5, stop)
        begun = world.clock.monotonic()
        waits.append((job.wait(60), world.clock.monotonic() - begun))
        return Succeeded()

    world.handler = handler
    worker.job(ref)

    assert [stopping for stopping, _ in waits] == [False, True]
    assert [round(seconds) for _, seconds in waits] == [5, 5]
    # What it was at is ended and reported.
    assert world.status(ref) is aws.Status.SUCCEEDED


def test_waiting_ends_at_the_deadline(world: World) -> None:
    ref = world.offered(world.action(time_limit=timedelta(seconds=30)))
    worker = world.worker()
    waits: list[tuple[bool, float]] = []

    def handler(job: Job[Any]) -> Outcome:
        worker.frozen = True  # nobody looks
        begun = world.clock.monotonic()
        waits.append((job.wait(60), world.clock.monotonic() - begun))
        return Succeeded()

    world.handler = handler
    worker.job(ref)

    [(stopping, seconds)] = waits
    assert stopping
    assert 29.9 <= seconds <= 30.1


def test_a_failed_heartbeat_is_repeated_within_a_second(world: World) -> None:
    ref = world.offered(world.action())
    worker = world.worker()
    counts: list[int] = []

    def handler(job: Job[Any]) -> Outcome:
        worker.line.next("heartbeat", *[failing(LedgerDown)] * 3)
        world.clock.advance(20)
        counts.append(worker.line.count("heartbeat"))
        assert not job.stopping
        return Succeeded()

    world.handler = handler
    worker.job(ref)

    assert counts == [5]
    assert world.status(ref) is aws.Status.SUCCEEDED


def test_all_jobs_of_a_process_share_a_heartbeat(world: World) -> None:
    action = world.action()
    refs = [world.offered(action) for _ in range(3)]
    worker = world.worker()
    counts: list[int] = []

    def handler(job: Job[Any]) -> Outcome:
        if len(world.runs) < 3:
            worker.job(refs[len(world.runs)])
        else:
            before = worker.line.count("heartbeat")
            world.clock.advance(15.5)
            counts.append(worker.line.count("heartbeat") - before)
        return Succeeded()

    world.handler = handler
    worker.job(refs[0])

    assert counts == [1]
    assert all(world.status(ref) is aws.Status.SUCCEEDED for ref in refs)


def test_a_process_that_ends_itself_beats_no_more(world: World) -> None:
    ref = world.offered(world.action())
    worker = world.worker()

    def ends() -> None:
        worker.leases.end()
        before = worker.line.count("heartbeat")
        world.clock.advance(31)
        assert worker.line.count("heartbeat") == before

    world.handler = doing(ends)
    worker.job(ref)

    assert len(world.runs) == 1


def test_a_job_that_nobody_started_yet_has_no_deadline(world: World) -> None:
    action = world.action(time_limit=timedelta(seconds=1))
    ref = world.offered(action)
    world.ledger.begin(ref, "host/task/1", "nonce", None)
    worker = world.worker()
    held = worker.leases.hold(Claim(ref, "host/task/1", attempt=1), action.spec)

    world.clock.advance(120)

    assert not held.stopping()
    assert "deadline" not in world.record(ref)
    assert world.record(ref)["state"] == "running"
