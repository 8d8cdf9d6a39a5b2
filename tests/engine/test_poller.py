"""One action type's turn at polling: how much is asked for, how often, and what goes wrong."""

from collections.abc import Callable

import pytest

from dispatcher.emulator import jobs as aws
from dispatcher.engine.model import (
    Action,
    ActionTypeNotFound,
    BrokerDown,
    Denied,
    LedgerDown,
    Malformed,
    Offer,
    PortError,
    Throttled,
    Unanswered,
)
from dispatcher.engine.ports import Event
from dispatcher.sdk import Owner
from tests.engine.line import Call, failing, first, losing, then
from tests.engine.world import REGION, Worker, World


@pytest.fixture
def action(world: World) -> Action:
    world.fleet.announce("node", {"Acme": 4, "Mine": 2})
    return world.action()


def rests(world: World, action: Action) -> bool:
    """Seen by the next tick."""
    ready = world.fleet.rested([(action.spec.type, REGION)])
    world.redis.delete(f"dispatcher:asked:{action.spec.type.task_name}@{REGION}")
    return not ready


def rest(world: World, action: Action) -> int:
    """Milliseconds."""
    return int(world.redis.pttl(f"dispatcher:rest:{action.spec.type.task_name}@{REGION}"))


def turn_is_free(world: World, action: Action) -> bool:
    return not world.redis.exists(f"dispatcher:turn:{action.spec.type.task_name}@{REGION}")


def polls(worker: Worker) -> int:
    return worker.line.count("poll")


def each_poll_takes(seconds: float, world: World) -> Callable[[Call], object]:
    return first(lambda: world.clock.advance(seconds))


# How much.


def test_as_many_jobs_are_asked_for_as_there_is_room(world: World, action: Action) -> None:
    world.queues.waiting = 1
    world.redis.zadd("dispatcher:index:Acme", {"busy-1": 0})

    world.worker().turn(action)

    assert world.asked.limits == [2]


def test_a_call_asks_for_a_hundred_at_most(world: World, action: Action) -> None:
    world.fleet.announce("giant", {"Acme": 500})

    world.worker().turn(action)

    assert world.asked.limits == [100]


def test_jobs_that_wait_for_a_time_take_no_room(world: World, action: Action) -> None:
    world.redis.zadd("dispatcher:resting:Acme", {"later-1": 0, "later-2": 0})

    world.worker().turn(action)

    assert world.asked.limits == [4]


@pytest.mark.parametrize("paused", [True, False])
def test_aws_is_not_asked_for_a_provider_without_workers_or_on_pause(
    world: World, *, paused: bool
) -> None:
    action = world.action()
    world.submit(action)
    if paused:
        world.fleet.announce("node", {"Acme": 4})
        world.redis.sadd("dispatcher:paused", "Acme")
    worker = world.worker()

    worker.turn(action)

    assert worker.line.calls == []
    assert turn_is_free(world, action)
    assert not rests(world, action)


def test_a_full_house_asks_for_nothing_and_soon_gives_its_turn_back(
    world: World, action: Action
) -> None:
    world.queues.waiting = 4
    worker = world.worker()
    begun = world.clock.monotonic()

    worker.turn(action)

    assert polls(worker) == 0
    assert world.clock.monotonic() - begun < 0.5
    assert turn_is_free(world, action)


def test_room_that_comes_up_while_the_house_is_full_is_used(world: World, action: Action) -> None:
    world.queues.waiting = 4
    worker = world.worker()

    def one_leaves() -> None:
        world.queues.waiting = 3

    worker.line.next("waiting", None, None, first(one_leaves))
    worker.turn(action)

    assert world.asked.limits == [1]


# How often.


def test_new_jobs_are_noted_published_and_followed_by_another_poll(
    world: World, action: Action
) -> None:
    refs = [world.submit(action) for _ in range(6)]
    worker = world.worker()
    worker.line.always(each_poll_takes(0.1, world), "poll")

    worker.turn(action)

    assert list(world.queues.jobs) == refs
    assert polls(worker) == 3
    assert [seen.ref for seen in world.saw(Event.OFFERED)] == refs
    assert all(world.record(ref)["state"] == "queued" for ref in refs)


def test_a_turn_ends_with_the_poll_interval(world: World, action: Action) -> None:
    for _ in range(40):
        world.submit(action)
    worker = world.worker()
    worker.line.always(each_poll_takes(0.3, world), "poll")

    worker.turn(action)

    assert polls(worker) == 4
    assert not rests(world, action)
    assert turn_is_free(world, action)


def test_a_type_without_jobs_rests_ever_longer_up_to_a_limit(world: World, action: Action) -> None:
    worker = world.worker()
    rested = []

    for _ in range(7):
        worker.turn(action)
        rested.append(round(rest(world, action) / 1000, 1))
        assert rests(world, action)
        world.clock.advance(rested[-1] + 0.1)
        assert not rests(world, action)

    assert polls(worker) == 7
    assert rested == pytest.approx([1, 1.5, 2.2, 3.4, 5, 5, 5], abs=0.11)


def test_a_job_ends_the_rest(world: World, action: Action) -> None:
    worker = world.worker()
    worker.turn(action)
    worker.turn(action)
    world.submit(action)

    worker.turn(action)

    # The poll that found nothing more is followed by the shortest rest again.
    assert polls(worker) == 4
    assert 900 < rest(world, action) <= 1000


@pytest.mark.parametrize("owner", list(Owner))
def test_jobs_that_are_offered_again_while_they_are_known_are_nothing_new(
    world: World, action: Action, owner: Owner
) -> None:
    action = world.action(owner)
    ref = world.offered(action)
    world.clock.advance(30)
    world.worker().turn(action)
    world.queues.jobs.clear()
    world.clock.advance(30)

    worker = world.worker()
    worker.turn(action)

    assert polls(worker) == 1
    assert list(world.queues.jobs) == []
    assert world.record(ref)["state"] == "queued"


# What goes wrong.


def test_a_throttled_type_rests_twice_as_long_each_time_and_no_other_does(
    world: World, action: Action
) -> None:
    other = world.action(Owner.CUSTOM)
    ref = world.submit(other)
    worker = world.worker()
    worker.line.next("poll", *[failing(Throttled)] * 7)
    rested = []

    for _ in range(7):
        worker.turn(action)
        rested.append(round(rest(world, action) / 1000))
        assert turn_is_free(world, action)
    worker.turn(other)

    assert rested == [2, 4, 8, 16, 32, 60, 60]
    assert len(world.saw(Event.POLL_THROTTLED)) == 7
    assert list(world.queues.jobs) == [ref]


def test_a_type_that_aws_does_not_know_is_left_alone_for_a_while(
    world: World, action: Action
) -> None:
    other = world.action(Owner.CUSTOM)
    ref = world.submit(other)
    worker = world.worker()
    worker.line.next("poll", failing(ActionTypeNotFound))

    worker.turn(action)
    worker.turn(other)

    assert round(rest(world, action) / 1000) == 5
    assert turn_is_free(world, action)
    assert len(world.saw(Event.TYPE_UNKNOWN)) == 1
    assert list(world.queues.jobs) == [ref]


@pytest.mark.parametrize("error", [Unanswered, Denied, Malformed])
def test_a_poll_that_fails_is_followed_by_a_rest(
    world: World, action: Action, error: type[PortError]
) -> None:
    worker = world.worker()
    worker.line.next("poll", failing(error))

    worker.turn(action)

    assert polls(worker) == 1
    assert 900 < rest(world, action) <= 1000
    assert turn_is_free(world, action)
    assert len(world.saw(Event.POLL_FAILED)) == 1


@pytest.mark.parametrize("applied", [True, False])
def test_a_job_whose_message_the_broker_did_not_take_is_published_by_the_next_offer(
    world: World, action: Action, *, applied: bool
) -> None:
    ref = world.submit(action)
    worker = world.worker()
    worker.line.next("publish", (losing if applied else failing)(BrokerDown))
    worker.turn(action)
    assert turn_is_free(world, action)
    assert rests(world, action)
    world.queues.jobs.clear()

    world.clock.advance(31)
    worker.turn(action)

    assert list(world.queues.jobs) == [ref]


def test_a_poll_whose_reply_was_lost_costs_a_wait_for_the_next_offer(
    world: World, action: Action
) -> None:
    ref = world.submit(action)
    worker = world.worker()
    worker.line.next("poll", losing(Unanswered))
    worker.turn(action)
    assert list(world.queues.jobs) == []

    world.clock.advance(31)
    worker.turn(action)

    assert list(world.queues.jobs) == [ref]


@pytest.mark.parametrize("name", ["offer", "waiting", "poll"])
def test_an_error_of_redis_or_the_broker_ends_the_turn(
    world: World, action: Action, name: str
) -> None:
    world.submit(action)
    worker = world.worker()
    error = LedgerDown if name == "offer" else BrokerDown
    worker.line.next(name, failing(error))

    worker.turn(action)

    assert turn_is_free(world, action)
    assert len(worker.line.calls) <= 4


def test_a_job_that_one_answer_names_twice_is_published_once(world: World, action: Action) -> None:
    ref = world.submit(action)
    worker = world.worker()

    def doubled(call: Call) -> list[Offer]:
        return [*call()] * 2

    worker.line.next("poll", doubled)
    worker.turn(action)

    assert list(world.queues.jobs) == [ref]


def test_an_offer_dates_from_before_its_poll_was_sent(world: World, action: Action) -> None:
    ref = world.submit(action)
    worker = world.worker()
    worker.line.next("poll", then(lambda: world.clock.advance(25)))
    worker.turn(action)

    worker.job(ref)

    assert worker.line.count("acknowledge") == 0  # the nonce was 25 s old
    world.clock.advance(6)
    worker.turn(action)
    worker.job(ref)
    assert world.status(ref) is aws.Status.SUCCEEDED


def test_an_offer_that_reaches_redis_late_is_as_old_as_its_poll(
    world: World, action: Action
) -> None:
    ref = world.submit(action)
    worker = world.worker()
    worker.line.next("offer", first(lambda: world.clock.advance(25)))
    worker.turn(action)

    worker.job(ref)

    assert worker.line.count("acknowledge") == 0


# Whose turn.


def test_of_two_pollers_one_has_the_turn(world: World, action: Action) -> None:
    ref = world.submit(action)
    worker, other = world.worker(), world.worker()
    worker.line.next("poll", first(lambda: other.turn(action)))

    worker.turn(action)

    assert polls(other) == 0
    assert list(world.queues.jobs) == [ref]


def test_the_turn_of_a_poller_that_died_is_anothers_after_a_while(
    world: World, action: Action
) -> None:
    ref = world.submit(action)
    dying, other = world.worker(), world.worker()
    dying.line.dies_before("poll")
    dying.turn(action)
    # A process that died ends nothing itself; here the engine's `finally` did.
    world.redis.set(f"dispatcher:turn:{ref.type.task_name}@{REGION}", "dead", px=33_000)

    other.turn(action)
    assert polls(other) == 0
    world.clock.advance(34)
    other.turn(action)

    assert list(world.queues.jobs) == [ref]


def test_a_tick_asks_for_the_polls_of_all_types_that_have_rested(
    world: World, action: Action
) -> None:
    other = world.action(Owner.CUSTOM)
    turns = [(one.spec.type, REGION) for one in (action, other)]
    worker = world.worker()
    worker.turn(action)

    worker.poller.tick(turns)
    worker.poller.tick(turns)

    assert world.queues.polls == [(other.spec.type, REGION)]


def test_a_tick_without_a_broker_is_only_a_tick_less(world: World, action: Action) -> None:
    worker = world.worker()
    worker.line.next("ask", failing(BrokerDown))

    worker.poller.tick([(action.spec.type, REGION)])
    assert len(world.saw(Event.BROKER_DOWN)) == 1
    world.clock.advance(4)
    worker.poller.tick([(action.spec.type, REGION)])

    assert world.queues.polls == [(action.spec.type, REGION)]
