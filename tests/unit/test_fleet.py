"""Who is there to work, and whose turn it is to poll, on a real Redis."""

from datetime import timedelta

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from dispatcher.engine.model import Crew, LedgerDown
from dispatcher.engine.times import Times
from dispatcher.metrics import Tally
from dispatcher.redis_server import free_port
from dispatcher.sdk import ActionType, Owner
from dispatcher.store.audit import Audit
from dispatcher.store.fleet import RedisFleet

DEPLOY = ActionType("Deploy", Owner.THIRD_PARTY, "Acme", "1")
BUILD = ActionType("Build", Owner.CUSTOM, "Mine", "1")
EU, US = "eu-west-1", "us-east-1"
NO_TIME = timedelta()
A_WHILE = timedelta(seconds=2)


@pytest.fixture
def fleet(redis: Redis) -> RedisFleet:
    return RedisFleet(redis, Times())


def all_end(redis: Redis) -> bool:
    return all(redis.pttl(key) > 0 for key in redis.keys("dispatcher:*"))


def test_a_crew_is_the_slots_of_all_that_announced_themselves(fleet: RedisFleet) -> None:
    fleet.announce("node-1", {"Acme": 4, "Mine": 2})
    fleet.announce("node-2", {"Acme": 3})

    assert fleet.crew("Acme") == Crew(slots=7, busy=0)
    assert fleet.crew("Mine") == Crew(slots=2, busy=0)
    assert fleet.crew("Nobodys") == Crew(slots=0, busy=0)


def test_a_newer_announcement_takes_the_place_of_the_older(fleet: RedisFleet) -> None:
    fleet.announce("node-1", {"Acme": 4})
    fleet.announce("node-1", {"Acme": 1})

    assert fleet.crew("Acme").slots == 1


def test_a_crew_does_not_count_who_was_silent_for_too_long(fleet: RedisFleet, redis: Redis) -> None:
    fleet.announce("node-1", {"Acme": 4})
    fleet.announce("node-2", {"Acme": 3})
    slots, expiry = str(redis.hget("dispatcher:slots:Acme", "node-1")).split()
    redis.hset("dispatcher:slots:Acme", "node-1", f"{slots} {int(expiry) - 15_000}")

    assert fleet.crew("Acme").slots == 3


def test_a_crew_does_not_count_who_withdrew(fleet: RedisFleet) -> None:
    fleet.announce("node-1", {"Acme": 4, "Mine": 2})
    fleet.announce("node-2", {"Acme": 3})

    fleet.withdraw("node-1", ["Acme", "Mine", "Nobodys"], NO_TIME)

    assert fleet.crew("Acme").slots == 3
    assert fleet.crew("Mine").slots == 0


def test_a_paused_provider_says_so(fleet: RedisFleet, redis: Redis) -> None:
    fleet.announce("node-1", {"Acme": 4, "Mine": 2})
    redis.sadd("dispatcher:paused", "Acme")
    redis.zadd("dispatcher:index:Acme", {"job-1": 0, "job-2": 0})

    assert fleet.crew("Acme") == Crew(slots=4, busy=2, paused=True)
    assert fleet.crew("Mine") == Crew(slots=2, busy=0)


def test_a_turn_is_taken_once(fleet: RedisFleet) -> None:
    assert fleet.take_turn(DEPLOY, EU, "poller-1") == NO_TIME

    assert fleet.take_turn(DEPLOY, EU, "poller-2") is None


def test_turns_of_other_types_and_regions_are_others(fleet: RedisFleet) -> None:
    fleet.take_turn(DEPLOY, EU, "poller-1")

    assert fleet.take_turn(DEPLOY, US, "poller-2") == NO_TIME
    assert fleet.take_turn(BUILD, EU, "poller-2") == NO_TIME


def test_a_turn_that_ended_lets_the_next_begin_with_the_last_ones_rest(
    fleet: RedisFleet,
) -> None:
    fleet.take_turn(DEPLOY, EU, "poller-1")

    fleet.end_turn(DEPLOY, EU, "poller-1", rest=A_WHILE, pause=NO_TIME)

    assert fleet.take_turn(DEPLOY, EU, "poller-2") == A_WHILE


def test_a_turn_that_went_to_another_is_not_ended(fleet: RedisFleet, redis: Redis) -> None:
    fleet.take_turn(DEPLOY, EU, "poller-1")
    redis.flushall()
    fleet.take_turn(DEPLOY, EU, "poller-2")

    fleet.end_turn(DEPLOY, EU, "poller-1", rest=A_WHILE, pause=NO_TIME)

    assert fleet.take_turn(DEPLOY, EU, "poller-3") is None


def test_none_may_poll_while_the_type_rests(fleet: RedisFleet, redis: Redis) -> None:
    turns = [(DEPLOY, EU), (DEPLOY, US), (BUILD, EU)]
    fleet.take_turn(DEPLOY, EU, "poller-1")

    fleet.end_turn(DEPLOY, EU, "poller-1", rest=A_WHILE, pause=A_WHILE)

    assert fleet.rested(turns) == [(DEPLOY, US), (BUILD, EU)]
    assert fleet.rested([]) == []
    (resting,) = redis.keys("dispatcher:rest:*")
    assert 1_000 < redis.pttl(resting) <= 2_000


def test_a_type_is_asked_to_poll_once_until_its_turn_begins(fleet: RedisFleet) -> None:
    turns = [(DEPLOY, EU), (BUILD, EU)]
    assert fleet.rested(turns) == turns
    assert fleet.rested(turns) == []

    fleet.take_turn(DEPLOY, EU, "poller-1")

    assert fleet.rested(turns) == [(DEPLOY, EU)]


def test_a_type_whose_poll_message_was_lost_is_asked_again(fleet: RedisFleet, redis: Redis) -> None:
    fleet.rested([(DEPLOY, EU)])

    (asked,) = redis.keys("dispatcher:asked:*")
    assert 2_000 < redis.pttl(asked) <= 3_000


def test_a_busy_type_rests_not_at_all(fleet: RedisFleet) -> None:
    fleet.take_turn(DEPLOY, EU, "poller-1")

    fleet.end_turn(DEPLOY, EU, "poller-1", rest=NO_TIME, pause=NO_TIME)

    assert fleet.rested([(DEPLOY, EU)]) == [(DEPLOY, EU)]


def test_nothing_that_the_fleet_keeps_stays_for_ever(fleet: RedisFleet, redis: Redis) -> None:
    fleet.announce("node-1", {"Acme": 4})
    fleet.rested([(DEPLOY, EU), (BUILD, EU)])
    fleet.take_turn(DEPLOY, EU, "poller-1")
    assert all_end(redis)

    fleet.end_turn(DEPLOY, EU, "poller-1", rest=A_WHILE, pause=A_WHILE)

    assert all_end(redis)


def test_a_poller_that_died_holds_nobody_up_for_long(fleet: RedisFleet, redis: Redis) -> None:
    fleet.take_turn(DEPLOY, EU, "poller-1")

    (turn,) = redis.keys("dispatcher:turn:*")
    assert 3_000 < redis.pttl(turn) <= 6_000


def test_a_redis_that_is_away_is_said_to_be_down() -> None:
    url = f"redis://127.0.0.1:{free_port()}/0"
    with Redis.from_url(url, decode_responses=True, retry=Retry(NoBackoff(), 0)) as away:
        fleet = RedisFleet(away, Times())

        for ask in (
            lambda: fleet.crew("Acme"),
            lambda: fleet.announce("node-1", {"Acme": 1}),
            lambda: fleet.withdraw("node-1", ["Acme"], NO_TIME),
            fleet.providers,
            lambda: fleet.staff({"Acme"}),
            fleet.counts,
            fleet.now,
            lambda: fleet.rested([(DEPLOY, EU)]),
            lambda: fleet.take_turn(DEPLOY, EU, "poller-1"),
            lambda: fleet.end_turn(DEPLOY, EU, "poller-1", A_WHILE, A_WHILE),
        ):
            with pytest.raises(LedgerDown, match=r"^ConnectionError$"):
                ask()


def test_a_node_that_is_gone_is_forgotten_by_the_next_announcement(
    fleet: RedisFleet, redis: Redis
) -> None:
    redis.hset("dispatcher:slots:Acme", "of-an-old-deploy", "4 1")

    fleet.announce("node-1", {"Acme": 4})

    assert redis.hkeys("dispatcher:slots:Acme") == ["node-1"]


def test_the_holder_of_a_turn_is_answered_alike_when_it_asks_again(fleet: RedisFleet) -> None:
    first = fleet.take_turn(DEPLOY, EU, "poller-1")

    assert fleet.take_turn(DEPLOY, EU, "poller-1") == first == NO_TIME


def test_workers_are_told_by_provider_as_long_as_they_announce_themselves(
    fleet: RedisFleet, redis: Redis
) -> None:
    fleet.announce("node-1", {"Acme": 4, "Mine": 2})
    fleet.announce("node-2", {"Acme": 3})
    redis.hset("dispatcher:slots:Acme", "gone", "9 1")

    acme, mine = fleet.staff(fleet.providers())
    assert (acme.provider, acme.workers, acme.slots) == ("Acme", {"node-1": 4, "node-2": 3}, 7)
    assert (mine.provider, mine.workers) == ("Mine", {"node-1": 2})
    assert 0 < redis.ttl("dispatcher:providers") <= 8 * 86_400


def test_who_leaves_has_no_slots_and_is_shown_until_its_grace_is_over(
    fleet: RedisFleet, redis: Redis
) -> None:
    fleet.announce("node-1", {"Acme": 4})
    fleet.announce("node-2", {"Acme": 3})

    fleet.withdraw("node-1", ["Acme"], timedelta(seconds=25))

    (acme,) = fleet.staff({"Acme"})
    assert (acme.draining, acme.workers) == (["node-1"], {"node-2": 3})
    assert fleet.crew("Acme").slots == 3
    redis.hset("dispatcher:slots:Acme", "node-1", "0 1")
    assert fleet.staff({"Acme"})[0].draining == []


def test_a_provider_is_told_with_its_jobs_and_a_damaged_key_counts_as_empty(
    fleet: RedisFleet, redis: Redis
) -> None:
    seconds, _ = redis.time()
    redis.zadd("dispatcher:index:Acme", {"runs-1": 0, "runs-2": 0})
    redis.zadd("dispatcher:resting:Acme", {"later": 0})
    redis.zadd("dispatcher:waiting:Acme", {"waits": (seconds - 7) * 1000})
    redis.set("dispatcher:dead:Acme", "no zset")
    fleet.pause("Acme")

    (acme,) = fleet.staff({"Acme"})

    assert (acme.running, acme.retrying, acme.dead, acme.paused) == (2, 1, 0, True)
    assert timedelta(seconds=7) <= acme.waiting["waits"] < timedelta(seconds=9)
    assert fleet.providers() == {"Acme"}, "paused, so it is known"


def test_counts_that_cannot_be_added_cost_no_turn(redis: Redis) -> None:
    counts = Tally()
    counts.add("polls", "Acme", "empty")
    redis.set("dispatcher:counts", "no hash")
    fleet = RedisFleet(redis, Times(), counts)
    fleet.take_turn(DEPLOY, EU, "poller-1")

    fleet.end_turn(DEPLOY, EU, "poller-1", A_WHILE, NO_TIME)

    assert fleet.take_turn(DEPLOY, EU, "poller-2") is not None
    assert not counts.take()


def test_counts_ride_on_the_end_of_a_turn_and_are_kept_while_redis_is_away(
    redis: Redis,
) -> None:
    counts = Tally()
    counts.add("polls", "Acme", "empty", by=2)
    away = Redis.from_url(
        f"redis://127.0.0.1:{free_port()}/0", decode_responses=True, retry=Retry(NoBackoff(), 0)
    )
    with away, pytest.raises(LedgerDown):
        RedisFleet(away, Times(), counts).end_turn(DEPLOY, EU, "poller-1", A_WHILE, NO_TIME)
    fleet = RedisFleet(redis, Times(), counts)

    fleet.end_turn(DEPLOY, EU, "poller-1", A_WHILE, NO_TIME)
    fleet.end_turn(DEPLOY, EU, "poller-1", A_WHILE, NO_TIME)

    assert fleet.counts() == {"polls|Acme|empty": "2"}
    assert 0 < redis.ttl("dispatcher:counts") <= 30 * 86_400


def test_a_pause_has_no_end_but_resume(fleet: RedisFleet, redis: Redis) -> None:
    assert (fleet.pause("Acme"), fleet.pause("Acme")) == (True, False)
    assert fleet.paused() == {"Acme"}
    assert fleet.crew("Acme").paused
    assert redis.ttl("dispatcher:paused") == -1

    assert (fleet.resume("Acme"), fleet.resume("Acme")) == (True, False)
    assert not fleet.crew("Acme").paused


def test_acts_are_kept_newest_first_and_not_for_ever(redis: Redis) -> None:
    audit = Audit(redis)
    for number in range(1_002):
        audit.add("ann", "pause", str(number))

    acts = audit.acts()

    assert [(one.who, one.act, one.subject) for one in acts[:2]] == [
        ("ann", "pause", "1001"),
        ("ann", "pause", "1000"),
    ]
    assert len(acts) == 1_000
    assert 0 < redis.ttl("dispatcher:audit") <= 90 * 86_400
