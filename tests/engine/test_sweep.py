"""What a sweep publishes again, and as which message."""

from collections.abc import Callable

import pytest

from dispatcher.emulator import jobs as aws
from dispatcher.engine.model import Ack, BrokerDown, JobRef, LedgerDown, Overdue
from dispatcher.engine.ports import Event
from dispatcher.sdk import OnCrash, Owner, Retry, Succeeded
from tests.engine.line import failing, unanswered
from tests.engine.world import World, doing, raising

POLICIES = pytest.mark.parametrize("on_crash", list(OnCrash))


def dies_unacknowledged(world: World, ref: JobRef) -> None:
    world.worker().line.dies_before("acknowledge")
    world.workers[-1].job(ref)


def dies_in_its_handler(world: World, ref: JobRef) -> None:
    world.worker().line.dies_before("finish")
    world.workers[-1].job(ref)


def dies_with_its_verdict(world: World, ref: JobRef) -> None:
    world.worker().line.dies_before("put")
    world.workers[-1].job(ref)


def finds_no_answer_to_its_put(world: World, ref: JobRef) -> None:
    world.worker().line.always(unanswered, "put")
    world.workers[-1].job(ref)


def asks_to_come_again(world: World, ref: JobRef) -> None:
    world.handler = raising(Retry())
    world.worker().job(ref)
    world.handler = lambda job: Succeeded()


OWN, SETTLE = "own", "settle"


@pytest.mark.parametrize(
    ("life", "fail", "rerun"),
    [
        (dies_unacknowledged, OWN, OWN),
        (dies_in_its_handler, SETTLE, OWN),
        (dies_with_its_verdict, SETTLE, SETTLE),
        (finds_no_answer_to_its_put, SETTLE, SETTLE),
        (asks_to_come_again, OWN, OWN),
    ],
)
@POLICIES
def test_only_what_ends_with_a_put_is_published_as_a_settle_message(
    world: World,
    life: Callable[[World, JobRef], None],
    fail: str,
    rerun: str,
    on_crash: OnCrash,
) -> None:
    ref = world.offered(world.action(on_crash=on_crash))
    life(world, ref)
    world.clock.advance(61)

    world.sweep()

    found = {OWN: list(world.queues.jobs), SETTLE: list(world.queues.settle)}
    wanted = fail if on_crash is OnCrash.FAIL else rerun
    assert found[wanted] == [ref]
    assert sum(map(len, found.values())) == 1
    assert [seen.fields["settles"] for seen in world.saw(Event.SWEPT)] == [wanted == SETTLE]
    world.deliver(world.worker())
    assert world.accepted[ref.job_id] == 1


@pytest.mark.parametrize("ack", list(Ack))
@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("verdict", [True, False])
@POLICIES
def test_the_routes_are_these(
    world: World, ack: Ack, waits: bool, verdict: bool, on_crash: OnCrash
) -> None:
    action = world.action(on_crash=on_crash)
    ref = world.submit(action)

    world.worker().sweeper.hand_on(Overdue(ref, ack, waits, verdict), "a test")

    own = ack is Ack.NO or waits or (not verdict and on_crash is OnCrash.RERUN)
    assert list(world.queues.jobs) == [ref] * own
    assert list(world.queues.settle) == [ref] * (not own)


def test_a_settle_message_starts_no_handler(world: World) -> None:
    ref = world.offered(world.action(on_crash=OnCrash.RERUN))
    dies_in_its_handler(world, ref)
    world.clock.advance(61)
    worker = world.worker()

    worker.settle(ref)

    assert len(world.runs) == 1
    assert worker.line.calls == ["begin"]
    assert world.record(ref)["attempt"] == "1"


def test_a_settle_message_of_a_job_that_waits_for_its_retry_does_nothing(world: World) -> None:
    ref = world.offered(world.action())
    asks_to_come_again(world, ref)
    world.clock.advance(61)

    world.worker().settle(ref)

    assert world.puts == []
    assert world.record(ref)["state"] == "queued"


def test_a_settle_message_of_an_unacknowledged_job_does_nothing(world: World) -> None:
    ref = world.offered(world.action())
    dies_unacknowledged(world, ref)
    world.clock.advance(61)

    world.worker().settle(ref)

    assert world.puts == []
    assert world.record(ref)["state"] == "running"


def test_a_sweep_leaves_alone_what_is_worked_on_done_or_only_queued(world: World) -> None:
    action = world.action()
    world.offered(action)
    world.worker().job(world.offered(action))
    running = world.offered(action)
    dies_in_its_handler(world, running)
    world.clock.advance(50)

    world.sweep()

    assert (list(world.queues.jobs), list(world.queues.settle)) == ([], [])


def test_one_sweep_gets_each_job(world: World) -> None:
    ref = world.offered(world.action())
    dies_in_its_handler(world, ref)
    world.clock.advance(61)

    world.sweep()
    world.sweep(world.worker())

    assert list(world.queues.settle) == [ref]
    world.clock.advance(24)
    world.sweep()
    assert list(world.queues.settle) == [ref, ref]


def test_a_broker_that_is_down_ends_the_round_and_a_later_one_publishes(world: World) -> None:
    action = world.action()
    refs = [world.offered(action) for _ in range(3)]
    for ref in refs:
        dies_in_its_handler(world, ref)
    world.clock.advance(61)
    worker = world.worker()
    worker.line.always(failing(BrokerDown), "settle")

    world.sweep(worker)
    assert worker.line.count("settle") == 1
    assert len(world.saw(Event.BROKER_DOWN)) == 1
    worker.line.mend()
    world.clock.advance(25)
    world.sweep(worker)

    assert sorted(ref.job_id for ref in world.queues.settle) == sorted(ref.job_id for ref in refs)


def test_a_sweep_without_redis_is_only_a_sweep_less(world: World) -> None:
    worker = world.worker()
    worker.line.next("due", failing(LedgerDown))

    world.sweep(worker)

    assert len(world.saw(Event.LEDGER_DOWN)) == 1


def test_a_type_that_this_process_does_not_know_is_left_for_one_that_does(world: World) -> None:
    action = world.action()
    other = world.action(Owner.CUSTOM)
    theirs, ours = world.offered(action), world.offered(other)
    for ref in (theirs, ours):
        dies_in_its_handler(world, ref)
    world.clock.advance(61)
    del world.actions[action.spec.type]

    world.sweep()

    assert list(world.queues.settle) == [ours]
    world.actions[action.spec.type] = action
    world.sweep()
    assert list(world.queues.settle) == [ours, theirs]


def test_a_dead_childs_job_of_an_unknown_type_is_left_with_an_alarm(world: World) -> None:
    action = world.action()
    ref = world.offered(action)
    del world.actions[action.spec.type]

    went_on = world.worker().sweeper.hand_on(
        Overdue(ref, Ack.SURE, waits=False, verdict=False), "its process is gone"
    )

    assert went_on
    assert [seen.ref for seen in world.saw(Event.NO_ACTION)] == [ref]
    assert list(world.queues.settle) == []


def test_nothing_is_recovered_right_after_a_standstill_so_that_the_living_renew_first(
    world: World,
) -> None:
    action = world.action()
    ref = world.offered(action)
    worker = world.worker()

    def everything_stands_still() -> None:
        worker.frozen = True
        world.clock.advance(120)
        sweeper.sweep()
        worker.frozen = False
        for _ in range(4):
            world.clock.advance(10)
            sweeper.sweep()

    sweeper = world.worker()
    sweeper.sweep()
    world.handler = doing(everything_stands_still)
    worker.job(ref)

    assert (list(world.queues.jobs), list(world.queues.settle)) == ([], [])
    assert world.status(ref) is aws.Status.SUCCEEDED
