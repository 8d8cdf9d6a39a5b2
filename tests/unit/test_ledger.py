"""The ledger's five steps on a real Redis, one rule a test.

Time passes by moving every time in Redis."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from dispatcher.engine.model import (
    Ack,
    Again,
    Beat,
    Begun,
    Claim,
    Dead,
    Done,
    Dropped,
    How,
    JobRef,
    Kind,
    LedgerDown,
    Overdue,
    Park,
    Release,
    Store,
    Verdict,
    action_type,
)
from dispatcher.engine.times import Times
from dispatcher.metrics import Tally
from dispatcher.redis_server import free_port
from dispatcher.store.ledger import RedisLedger

TIMES = Times()  # a window of 30 s, so fresh for 24 s; a lease of 60 s; a sweep each 10 s
JOB = JobRef("job-1", "client-1", action_type("ThirdParty.Deploy.Acme.1"), "eu-west-1")
CUSTOM = JobRef("job-2", None, action_type("Custom.Build.Mine.1"), "eu-west-1")
NOBODYS = action_type("Custom.Test.Nobodys.1")
KEY = "dispatcher:job:job-1"
INDEX, RESTING = "dispatcher:index:Acme", "dispatcher:resting:Acme"
TIME_FIELDS = {"offered", "publish_at", "lease", "deadline", "finished"}
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
SOON = timedelta(seconds=15)
WELL = Verdict(Kind.SUCCESS, "well")
GONE = Verdict(Kind.FAILURE, "gone", failure_type="SystemUnavailable", ours=True)
SETTLE = frozenset({How.SEND, How.ACKED})


@pytest.fixture
def ledger(redis: Redis) -> RedisLedger:
    return RedisLedger(redis, TIMES)


def pass_time(redis: Redis, seconds: float) -> None:
    by = int(seconds * 1000)
    for key in keys(redis, "dispatcher:job:*"):
        if not key.endswith(":timeline"):
            for name in redis.hgetall(key).keys() & TIME_FIELDS:
                redis.hincrby(key, str(name), -by)
    for index in [*keys(redis, "dispatcher:index:*"), *keys(redis, "dispatcher:resting:*")]:
        for job in members(redis, index):
            redis.zincrby(index, -by, job)
    for name in redis.hgetall("dispatcher:sweep"):
        redis.hincrby("dispatcher:sweep", str(name), -by)


def keys(redis: Redis, pattern: str) -> list[str]:
    return [str(key) for key in redis.keys(pattern)]


def members(redis: Redis, zset: str) -> list[str]:
    return [str(job) for job in redis.zrange(zset, 0, -1)]


def offer(
    ledger: RedisLedger,
    poll: str = "poll-1",
    ref: JobRef = JOB,
    nonce: str | None = None,
    age: timedelta = timedelta(),
) -> bool:
    return bool(ledger.offer(poll, ledger.now() - age, {ref: nonce}))


def begin(
    ledger: RedisLedger,
    owner: str,
    nonce: str | None = "nonce-1",
    ref: JobRef = JOB,
    only: frozenset[How] | None = None,
) -> Begun:
    begun = ledger.begin(ref, owner, nonce, only)
    assert isinstance(begun, Begun), begun
    return begun


def drop(
    ledger: RedisLedger,
    owner: str = "host/other/1",
    ref: JobRef = JOB,
    only: frozenset[How] | None = None,
) -> str:
    dropped = ledger.begin(ref, owner, "nonce-1", only)
    assert isinstance(dropped, Dropped), dropped
    return dropped.why


def claim_of(begun: Begun, owner: str, ack: Ack = Ack.SURE) -> Claim:
    return Claim(begun.ref, owner, begun.attempt, ack, begun.starts, begun.retries)


def beat(
    ledger: RedisLedger, claim: Claim, left: timedelta | None = HOUR, percent: int | None = None
) -> bool:
    return not ledger.heartbeat([Beat(claim, left, percent)])


def begun_by(ledger: RedisLedger, owner: str, ack: Ack = Ack.SURE) -> Claim:
    """A job that was offered and begun, and AWS has accepted its acknowledgement."""
    offer(ledger)
    return claim_of(begin(ledger, owner), owner, ack)


def started_by(ledger: RedisLedger, owner: str, ack: Ack = Ack.SURE) -> Claim:
    claim = replace(begun_by(ledger, owner, ack), starts=1)
    assert beat(ledger, claim)
    return claim


def ended_by(ledger: RedisLedger, owner: str, verdict: Verdict = WELL) -> Claim:
    claim = started_by(ledger, owner)
    assert ledger.finish(claim, Store(verdict))
    return claim


def index_of(redis: Redis) -> list[str]:
    return members(redis, INDEX)


def ttl(redis: Redis, key: str) -> timedelta:
    """To the nearest minute."""
    return timedelta(minutes=round(redis.pttl(key) / 60_000))


# offer


def test_a_job_that_is_offered_for_the_first_time_is_published(
    ledger: RedisLedger, redis: Redis
) -> None:
    published = ledger.offer("poll-1", ledger.now(), {JOB: None, CUSTOM: "nonce-c"})

    assert published == [JOB, CUSTOM]
    assert redis.hget(KEY, "state") == "queued"
    assert index_of(redis) == []


def test_a_second_offer_is_quiet_while_the_first_message_may_be_on_its_way(
    ledger: RedisLedger, redis: Redis
) -> None:
    offer(ledger, "poll-1")

    assert not offer(ledger, "poll-2")
    pass_time(redis, 23)
    assert not offer(ledger, "poll-3")
    pass_time(redis, 1)
    assert offer(ledger, "poll-4")


def test_after_the_first_time_an_offer_is_published_half_as_often(
    ledger: RedisLedger, redis: Redis
) -> None:
    offer(ledger, "poll-1")
    pass_time(redis, 24)
    offer(ledger, "poll-2")

    pass_time(redis, 47)
    assert not offer(ledger, "poll-3")
    pass_time(redis, 1)
    assert offer(ledger, "poll-4")


def test_a_replayed_offer_is_published_again_and_changes_nothing(
    ledger: RedisLedger, redis: Redis
) -> None:
    offer(ledger, "poll-1")
    before = redis.hget(KEY, "publish_at")

    assert offer(ledger, "poll-1")

    assert redis.hget(KEY, "publish_at") == before
    assert redis.llen(f"{KEY}:timeline") == 1


def test_a_job_that_somebody_works_on_is_not_published(ledger: RedisLedger, redis: Redis) -> None:
    offer(ledger)
    begin(ledger, "host/task/1")
    pass_time(redis, 29)

    assert not offer(ledger, "poll-2")


def test_a_job_whose_owner_died_unacknowledged_is_published(
    ledger: RedisLedger, redis: Redis
) -> None:
    offer(ledger)
    begin(ledger, "host/task/1")
    pass_time(redis, 30)

    assert offer(ledger, "poll-2")


@pytest.mark.parametrize("ack", [Ack.PRESUMED, Ack.SURE])
def test_an_acknowledged_job_is_not_published_by_an_offer(
    ledger: RedisLedger, redis: Redis, ack: Ack
) -> None:
    started_by(ledger, "host/task/1", ack)
    pass_time(redis, 3600)

    assert not offer(ledger, "poll-2")


def test_a_reported_job_is_not_published_and_learns_no_nonce(
    ledger: RedisLedger, redis: Redis
) -> None:
    ledger.offer("poll-1", ledger.now(), {CUSTOM: "nonce-1"})
    begun = begin(ledger, "host/task/1", None, CUSTOM)
    ledger.finish(claim_of(begun, "host/task/1"), Done(accepted=True, outcome="success"))
    pass_time(redis, 600)

    assert not offer(ledger, "poll-2", CUSTOM, "nonce-2")
    assert ledger.nonce("job-2") is None


def test_a_dead_letter_is_not_published(ledger: RedisLedger, redis: Redis) -> None:
    claim = begun_by(ledger, "host/task/1")
    ledger.finish(claim, Dead())
    pass_time(redis, 3600)

    assert not offer(ledger, "poll-2")


def test_a_custom_jobs_newest_nonce_is_kept_even_by_a_quiet_offer(ledger: RedisLedger) -> None:
    offer(ledger, "poll-1", CUSTOM, "nonce-1")

    assert not offer(ledger, "poll-2", CUSTOM, "nonce-2")

    assert ledger.nonce("job-2") == "nonce-2"


def test_an_offer_dates_from_when_its_poll_was_sent(ledger: RedisLedger) -> None:
    offer(ledger, age=timedelta(seconds=20))

    assert timedelta(seconds=20) <= begin(ledger, "host/task/1").offer_age < timedelta(seconds=22)


def test_a_slower_polls_offer_does_not_make_the_newest_one_older(ledger: RedisLedger) -> None:
    offer(ledger, "poll-1")
    offer(ledger, "poll-2", age=timedelta(seconds=20))

    assert begin(ledger, "host/task/1").offer_age < timedelta(seconds=2)


# begin: what it answers


def test_what_nobody_has_begun_is_fresh(ledger: RedisLedger, redis: Redis) -> None:
    offer(ledger)

    begun = begin(ledger, "host/task/1")

    assert begun.how is How.FRESH
    assert (begun.attempt, begun.starts, begun.retries, begun.deaths) == (1, 0, 0, 0)
    assert (begun.ack, begun.nonce, begun.tried) == (Ack.NO, "nonce-1", frozenset())
    assert begun.verdict is None
    assert index_of(redis) == ["job-1"]


def test_what_a_dead_predecessor_did_not_acknowledge_is_inherited_with_the_nonces_it_had(
    ledger: RedisLedger, redis: Redis
) -> None:
    offer(ledger)
    begin(ledger, "host/task/1", "nonce-1")
    pass_time(redis, 30)

    begun = begin(ledger, "host/task/2", "nonce-2")

    assert begun.how is How.INHERITED
    assert (begun.attempt, begun.deaths) == (2, 1)
    assert (begun.nonce, set(begun.tried)) == ("nonce-2", {"nonce-1"})


def test_deaths_are_counted_to_two(ledger: RedisLedger, redis: Redis) -> None:
    offer(ledger)

    deaths = []
    for number in range(4):
        deaths.append(begin(ledger, f"host/task/{number}").deaths)
        pass_time(redis, 30)

    assert deaths == [0, 1, 2, 2]


@pytest.mark.parametrize("ack", [Ack.PRESUMED, Ack.SURE])
def test_what_a_dead_predecessor_had_acknowledged_is_acked(
    ledger: RedisLedger, redis: Redis, ack: Ack
) -> None:
    started_by(ledger, "host/task/1", ack)
    pass_time(redis, 60)

    begun = begin(ledger, "host/task/2")

    assert begun.how is How.ACKED
    assert (begun.ack, begun.starts, begun.deaths, begun.nonce) == (ack, 1, 0, None)


def test_a_retry_that_is_due_is_again(ledger: RedisLedger, redis: Redis) -> None:
    claim = started_by(ledger, "host/task/1")
    ledger.finish(replace(claim, retries=1), Again(timedelta(seconds=40)))
    pass_time(redis, 40)

    begun = begin(ledger, "host/task/2")

    assert begun.how is How.AGAIN
    assert (begun.ack, begun.starts, begun.retries) == (Ack.SURE, 1, 1)


def test_a_stored_verdict_is_to_be_sent(ledger: RedisLedger, redis: Redis) -> None:
    ended_by(ledger, "host/task/1")
    pass_time(redis, 90)

    begun = begin(ledger, "host/task/2")

    assert (begun.how, begun.ack, begun.verdict) == (How.SEND, Ack.SURE, WELL)
    assert timedelta(seconds=90) <= begun.verdict_age < timedelta(seconds=92)


def test_a_parked_verdict_is_to_be_sent_after_a_new_acknowledgement(ledger: RedisLedger) -> None:
    claim = ended_by(ledger, "host/task/1")
    ledger.finish(claim, Park("another state"))
    offer(ledger, "poll-2")

    begun = begin(ledger, "host/task/2", "nonce-2")

    assert (begun.how, begun.ack, begun.nonce) == (How.SEND, Ack.NO, "nonce-2")
    assert begun.verdict == WELL


def test_a_custom_jobs_nonce_is_its_newest_offers(ledger: RedisLedger) -> None:
    offer(ledger, "poll-1", CUSTOM, "nonce-1")
    offer(ledger, "poll-2", CUSTOM, "nonce-2")

    assert begin(ledger, "host/task/1", None, CUSTOM).nonce == "nonce-2"


def test_begin_gives_a_lease_of_the_acknowledgement_window(
    ledger: RedisLedger, redis: Redis
) -> None:
    offer(ledger)
    begin(ledger, "host/task/1")

    pass_time(redis, 29)
    assert drop(ledger) == "leased"
    pass_time(redis, 1)
    assert begin(ledger, "host/task/2").how is How.INHERITED


def test_a_nonce_that_was_read_late_is_not_remembered(ledger: RedisLedger, redis: Redis) -> None:
    offer(ledger)
    pass_time(redis, 24)
    begin(ledger, "host/task/1", "nonce-late")
    pass_time(redis, 30)

    assert begin(ledger, "host/task/2").tried == frozenset()


def test_every_nonce_that_was_read_in_time_is_remembered_up_to_eight(
    ledger: RedisLedger, redis: Redis
) -> None:
    for number in range(10):
        offer(ledger, f"poll-{number}")
        begin(ledger, f"host/task/{number}", f"nonce-{number}")
        begin(ledger, f"host/task/{number}", f"nonce-{number}")
        pass_time(redis, 60)

    assert begin(ledger, "host/task/last").tried == {f"nonce-{number}" for number in range(2, 10)}


def test_a_replayed_begin_is_answered_as_the_first_time(ledger: RedisLedger) -> None:
    offer(ledger)
    first = begin(ledger, "host/task/1")

    second = begin(ledger, "host/task/1")

    assert replace(second, offer_age=first.offer_age) == first


def test_two_deliveries_of_one_message_are_two_owners(ledger: RedisLedger) -> None:
    offer(ledger)
    begin(ledger, "host/task/random-1")

    assert drop(ledger, "host/task/random-2") == "leased"


# begin: why it drops


def test_what_was_never_offered_is_dropped(ledger: RedisLedger) -> None:
    assert drop(ledger) == "no record"


@pytest.mark.parametrize(
    "other",
    [
        replace(JOB, type=action_type("ThirdParty.Deploy.Acme.2")),
        replace(JOB, client_id="client-2"),
        replace(JOB, client_id=None),
        replace(JOB, region="us-east-1"),
    ],
)
def test_a_message_that_names_the_job_otherwise_than_its_offer_is_dropped(
    ledger: RedisLedger, other: JobRef
) -> None:
    offer(ledger)

    assert drop(ledger, ref=other) == "another job"


def test_what_has_a_living_owner_is_dropped(ledger: RedisLedger, redis: Redis) -> None:
    started_by(ledger, "host/task/1")
    pass_time(redis, 59)

    assert drop(ledger) == "leased"


def test_what_is_being_put_is_dropped(ledger: RedisLedger) -> None:
    ended_by(ledger, "host/task/1")

    assert drop(ledger) == "leased"


def test_a_retry_before_its_time_is_dropped(ledger: RedisLedger) -> None:
    claim = started_by(ledger, "host/task/1")
    ledger.finish(claim, Again(SOON))

    assert drop(ledger) == "not yet due"


def test_a_reported_job_is_dropped(ledger: RedisLedger) -> None:
    claim = ended_by(ledger, "host/task/1")
    ledger.finish(claim, Done(accepted=True, outcome="success"))

    assert drop(ledger) == "reported"


def test_a_dead_letter_is_dropped(ledger: RedisLedger, redis: Redis) -> None:
    claim = ended_by(ledger, "host/task/1")
    ledger.finish(claim, Dead())
    pass_time(redis, 3600)

    assert drop(ledger) == "a dead letter"


def test_a_paused_providers_new_jobs_are_dropped_and_others_are_not(
    ledger: RedisLedger, redis: Redis
) -> None:
    ledger.offer("poll-1", ledger.now(), {JOB: None, CUSTOM: "nonce-c"})
    redis.sadd("dispatcher:paused", "Acme")

    assert drop(ledger) == "paused"
    assert begin(ledger, "host/task/1", None, CUSTOM).how is How.FRESH


def test_a_paused_providers_acknowledged_jobs_go_on(ledger: RedisLedger, redis: Redis) -> None:
    started_by(ledger, "host/task/1")
    redis.sadd("dispatcher:paused", "Acme")
    pass_time(redis, 60)

    assert begin(ledger, "host/task/2").how is How.ACKED


def test_a_settle_message_takes_only_what_was_acknowledged(
    ledger: RedisLedger, redis: Redis
) -> None:
    offer(ledger)

    assert drop(ledger, only=SETTLE) == "not for settle"

    claim = ended_by(ledger, "host/task/1")
    ledger.finish(claim, Park("another state"))
    assert drop(ledger, only=SETTLE) == "not for settle"


def test_a_settle_message_takes_only_what_it_was_sent_for(
    ledger: RedisLedger, redis: Redis
) -> None:
    started_by(ledger, "host/task/1")
    pass_time(redis, 60)

    assert drop(ledger, only=frozenset({How.SEND})) == "not for settle"
    assert drop(ledger, only=frozenset()) == "not for settle"
    assert begin(ledger, "host/task/2", None, only=SETTLE).how is How.ACKED


def test_a_dropped_message_changes_nothing(ledger: RedisLedger, redis: Redis) -> None:
    started_by(ledger, "host/task/1")
    before = redis.hgetall(KEY)

    drop(ledger)
    drop(ledger, only=SETTLE)

    assert redis.hgetall(KEY) == before


# heartbeat


def test_a_heartbeat_extends_the_lease_and_keeps_what_it_says(
    ledger: RedisLedger, redis: Redis
) -> None:
    claim = begun_by(ledger, "host/task/1")
    pass_time(redis, 29)

    assert not ledger.heartbeat([Beat(replace(claim, starts=1), HOUR, 40, "copying")])

    pass_time(redis, 59)
    assert drop(ledger) == "leased"
    stored = redis.hgetall(KEY)
    assert (stored["ack"], stored["starts"], stored["percent"]) == ("sure", "1", "40")
    assert stored["note"] == "copying"


def test_one_heartbeat_speaks_for_many_jobs_and_names_the_owners_that_lost_theirs(
    ledger: RedisLedger,
) -> None:
    mine = started_by(ledger, "host/task/1")
    ledger.offer("poll-1", ledger.now(), {CUSTOM: "nonce-c"})
    begin(ledger, "host/task/2", None, CUSTOM)

    lost = ledger.heartbeat([Beat(mine, HOUR), Beat(Claim(CUSTOM, "host/task/3", 1), HOUR)])

    assert lost == {"host/task/3"}


def test_a_late_owner_may_renew_while_nobody_else_has_begun(
    ledger: RedisLedger, redis: Redis
) -> None:
    claim = started_by(ledger, "host/task/1")
    pass_time(redis, 600)

    assert beat(ledger, claim)
    assert drop(ledger) == "leased"


def test_another_owners_job_is_lost(ledger: RedisLedger, redis: Redis) -> None:
    first = started_by(ledger, "host/task/1")
    pass_time(redis, 60)
    begin(ledger, "host/task/2")

    assert not beat(ledger, first)
    assert redis.hget(KEY, "owner") == "host/task/2"


def test_a_heartbeat_makes_a_lost_record_again(ledger: RedisLedger, redis: Redis) -> None:
    claim = started_by(ledger, "host/task/1")
    redis.flushall()

    assert beat(ledger, claim)

    assert index_of(redis) == ["job-1"]
    assert drop(ledger) == "leased"
    pass_time(redis, 60)
    again = begin(ledger, "host/task/2")
    assert (again.how, again.attempt, again.starts) == (How.ACKED, 2, 1)


def test_sure_outranks_not_sure_when_a_failover_lost_its_writes(
    ledger: RedisLedger, redis: Redis
) -> None:
    first = begun_by(ledger, "host/task/1")
    redis.delete(KEY)
    offer(ledger, "poll-2")
    begin(ledger, "host/task/2")

    assert beat(ledger, first)

    assert redis.hget(KEY, "owner") == "host/task/1"
    assert not beat(ledger, replace(first, owner="host/task/2"))


def test_presumed_does_not_outrank(ledger: RedisLedger) -> None:
    begun_by(ledger, "host/task/1")

    assert not beat(ledger, Claim(JOB, "host/task/2", 5, Ack.PRESUMED))


def test_sure_does_not_outrank_sure(ledger: RedisLedger) -> None:
    started_by(ledger, "host/task/1")

    assert not beat(ledger, Claim(JOB, "host/task/2", 5, Ack.SURE))


def test_sure_outranks_presumed(ledger: RedisLedger) -> None:
    started_by(ledger, "host/task/1", Ack.PRESUMED)

    assert beat(ledger, Claim(JOB, "host/task/2", 1, Ack.SURE))


def test_an_owner_that_fell_behind_does_not_outrank(ledger: RedisLedger, redis: Redis) -> None:
    first = begun_by(ledger, "host/task/1")
    pass_time(redis, 30)
    begin(ledger, "host/task/2")

    assert not beat(ledger, first)
    assert beat(ledger, replace(first, attempt=2))


def test_nobody_outranks_a_reported_job(ledger: RedisLedger) -> None:
    claim = begun_by(ledger, "host/task/1")
    ledger.finish(claim, Done(accepted=True, outcome="success"))

    assert not beat(ledger, Claim(JOB, "host/task/2", 9, Ack.SURE))


def test_who_outranks_drops_a_verdict_that_was_not_acknowledged(
    ledger: RedisLedger, redis: Redis
) -> None:
    first = ended_by(ledger, "host/task/1", GONE)
    ledger.finish(first, Park("another state"))
    begin(ledger, "host/task/2")

    assert beat(ledger, Claim(JOB, "host/task/3", 2, Ack.SURE))

    pass_time(redis, 60)
    assert begin(ledger, "host/task/4").how is How.ACKED


def test_a_heartbeat_past_the_deadline_is_refused(ledger: RedisLedger, redis: Redis) -> None:
    claim = begun_by(ledger, "host/task/1")
    assert beat(ledger, claim, left=timedelta(seconds=50))

    pass_time(redis, 49)
    assert beat(ledger, claim, left=HOUR), "the first heartbeat's deadline holds"
    pass_time(redis, 1)
    assert not beat(ledger, claim, left=HOUR)


def test_a_heartbeat_past_the_deadline_makes_no_record_again(
    ledger: RedisLedger, redis: Redis
) -> None:
    claim = started_by(ledger, "host/task/1")
    redis.flushall()

    assert not beat(ledger, claim, left=timedelta())
    assert redis.keys("dispatcher:*") == []


def test_the_next_owner_has_its_own_deadline(ledger: RedisLedger, redis: Redis) -> None:
    claim = begun_by(ledger, "host/task/1")
    beat(ledger, claim, left=timedelta(seconds=50))
    pass_time(redis, 60)
    second = claim_of(begin(ledger, "host/task/2"), "host/task/2")

    assert beat(ledger, second)


def test_a_job_whose_handler_has_not_started_has_no_deadline(
    ledger: RedisLedger, redis: Redis
) -> None:
    claim = begun_by(ledger, "host/task/1")

    assert beat(ledger, claim, left=None)
    pass_time(redis, 59)
    assert beat(ledger, claim, left=timedelta(seconds=10))

    pass_time(redis, 10)
    assert not beat(ledger, claim)


def test_who_outranks_another_is_not_held_to_its_deadline(
    ledger: RedisLedger, redis: Redis
) -> None:
    first = begun_by(ledger, "host/task/1", Ack.PRESUMED)
    assert beat(ledger, first, left=timedelta(seconds=10))
    second = Claim(JOB, "host/task/2", 1, Ack.SURE)
    assert beat(ledger, second, left=None)
    pass_time(redis, 20)

    assert beat(ledger, second, left=HOUR)


def test_a_first_heartbeat_after_the_verdict_was_stored_is_refused(ledger: RedisLedger) -> None:
    claim = begun_by(ledger, "host/task/1")
    ledger.finish(claim, Store(GONE))

    assert not beat(ledger, replace(claim, starts=1))
    assert beat(ledger, claim, left=None)


def test_a_heartbeat_extends_the_lease_while_the_verdict_is_put_even_past_the_deadline(
    ledger: RedisLedger, redis: Redis
) -> None:
    claim = ended_by(ledger, "host/task/1")
    pass_time(redis, 2 * 3600)

    assert beat(ledger, claim, left=timedelta())
    pass_time(redis, 59)
    assert drop(ledger) == "leased"


def test_a_heartbeat_while_a_parked_verdict_is_put_tells_of_the_acknowledgement(
    ledger: RedisLedger, redis: Redis
) -> None:
    ledger.finish(ended_by(ledger, "host/task/1"), Park("another state"))
    second = claim_of(begin(ledger, "host/task/2"), "host/task/2")

    assert beat(ledger, second)

    pass_time(redis, 60)
    begun = begin(ledger, "host/task/3")
    assert (begun.how, begun.ack, begun.verdict) == (How.SEND, Ack.SURE, WELL)


def test_a_heartbeat_ends_the_row_of_deaths(ledger: RedisLedger, redis: Redis) -> None:
    offer(ledger)
    begin(ledger, "host/task/1")
    pass_time(redis, 30)
    second = claim_of(begin(ledger, "host/task/2"), "host/task/2")

    beat(ledger, second)

    assert redis.hget(KEY, "deaths") == "0"


def test_a_late_heartbeat_does_not_bring_a_dead_letter_back(
    ledger: RedisLedger, redis: Redis
) -> None:
    claim = ended_by(ledger, "host/task/1")
    ledger.finish(claim, Dead())

    assert beat(ledger, claim)

    assert index_of(redis) == []
    assert ttl(redis, KEY) == 7 * DAY


def test_a_note_that_is_no_unicode_does_not_cost_the_heartbeat(
    ledger: RedisLedger, redis: Redis
) -> None:
    claim = begun_by(ledger, "host/task/1")

    assert not ledger.heartbeat([Beat(claim, HOUR, None, "at caf\udce9 \N{PILE OF POO}")])

    assert redis.hget(KEY, "note") == "at caf? \N{PILE OF POO}"


# finish


def test_a_verdict_is_kept_and_leased_while_it_is_put(ledger: RedisLedger, redis: Redis) -> None:
    claim = started_by(ledger, "host/task/1")
    pass_time(redis, 50)

    assert ledger.finish(claim, Store(WELL))

    pass_time(redis, 59)
    assert drop(ledger) == "leased"
    assert redis.hget(KEY, "state") == "finished"


def test_a_replayed_verdict_is_taken_and_another_one_is_not(ledger: RedisLedger) -> None:
    claim = ended_by(ledger, "host/task/1")

    assert ledger.finish(claim, Store(WELL))
    assert not ledger.finish(claim, Store(GONE))


def test_a_late_return_after_the_time_limit_is_ignored(ledger: RedisLedger, redis: Redis) -> None:
    timed_out = ended_by(ledger, "host/task/1", GONE)

    assert not ledger.finish(timed_out, Store(WELL))
    assert not ledger.finish(timed_out, Again(SOON))
    pass_time(redis, 60)
    assert begin(ledger, "host/task/2").verdict == GONE


def test_a_verdict_of_one_that_lost_its_lease_is_refused(ledger: RedisLedger, redis: Redis) -> None:
    first = started_by(ledger, "host/task/1")
    pass_time(redis, 60)
    begin(ledger, "host/task/2")

    assert not ledger.finish(first, Store(WELL))
    assert not ledger.finish(first, Again(SOON))
    assert "verdict" not in redis.hgetall(KEY)


@pytest.mark.parametrize("arm", [Store(WELL), Again(SOON)])
def test_a_verdict_or_retry_makes_a_lost_record_again(
    ledger: RedisLedger, redis: Redis, arm: Store | Again
) -> None:
    claim = started_by(ledger, "host/task/1")
    redis.flushall()

    assert ledger.finish(claim, arm)

    assert members(redis, INDEX if arm == Store(WELL) else RESTING) == ["job-1"]
    assert ttl(redis, f"{KEY}:timeline") == ttl(redis, KEY)
    pass_time(redis, 60)
    assert begin(ledger, "host/task/2").how is (How.SEND if arm == Store(WELL) else How.AGAIN)


@pytest.mark.parametrize("arm", [Store(WELL), Again(SOON)])
def test_a_sure_owner_writes_its_end_over_an_unsure_one(
    ledger: RedisLedger, arm: Store | Again
) -> None:
    begun_by(ledger, "host/task/1")

    assert not ledger.finish(Claim(JOB, "host/task/2", 1, Ack.PRESUMED), arm)
    assert not ledger.finish(Claim(JOB, "host/task/2", 0, Ack.SURE), arm)
    assert ledger.finish(Claim(JOB, "host/task/2", 1, Ack.SURE), arm)


def test_a_replayed_retry_is_taken(ledger: RedisLedger) -> None:
    claim = started_by(ledger, "host/task/1")

    assert ledger.finish(claim, Again(SOON))
    assert ledger.finish(claim, Again(SOON))


def test_a_retry_rests_until_it_begins_again(ledger: RedisLedger, redis: Redis) -> None:
    claim = started_by(ledger, "host/task/1")

    ledger.finish(claim, Again(SOON))

    assert (index_of(redis), members(redis, RESTING)) == ([], ["job-1"])
    pass_time(redis, 15)
    begin(ledger, "host/task/2")
    assert (index_of(redis), members(redis, RESTING)) == (["job-1"], [])


def test_a_parked_job_waits_for_the_next_offer_only(ledger: RedisLedger, redis: Redis) -> None:
    claim = begun_by(ledger, "host/task/1")

    assert ledger.finish(claim, Park("somebody else's"))
    assert ledger.finish(claim, Park("somebody else's")), "a replay"

    assert index_of(redis) == []
    assert offer(ledger, "poll-2")
    begun = begin(ledger, "host/task/2", "nonce-2")
    assert (begun.how, begun.attempt, begun.tried) == (How.FRESH, 2, frozenset())


def test_park_ends_the_row_of_deaths(ledger: RedisLedger, redis: Redis) -> None:
    offer(ledger)
    begin(ledger, "host/task/1")
    pass_time(redis, 30)
    second = claim_of(begin(ledger, "host/task/2"), "host/task/2")

    ledger.finish(second, Park("somebody else's"))

    assert redis.hget(KEY, "deaths") == "0"


def test_park_may_forget_the_verdict(ledger: RedisLedger) -> None:
    claim = ended_by(ledger, "host/task/1", GONE)

    ledger.finish(claim, Park("another state", forget=True))

    assert begin(ledger, "host/task/2").how is How.FRESH


def test_nobody_may_park_what_nobody_has_begun(ledger: RedisLedger) -> None:
    offer(ledger)

    assert ledger.finish(Claim(JOB, owner=""), Park("no client token"))
    assert offer(ledger, "poll-2")


def test_parking_what_nobody_has_begun_forgets_nothing(ledger: RedisLedger, redis: Redis) -> None:
    claim = ended_by(ledger, "host/task/1")
    ledger.finish(claim, Park("another state"))

    assert ledger.finish(Claim(JOB, owner=""), Park("no client token"))

    assert begin(ledger, "host/task/2").verdict == WELL


def test_nobody_may_not_park_what_somebody_holds(ledger: RedisLedger) -> None:
    assert not ledger.finish(Claim(JOB, owner=""), Park("no client token"))

    claim = started_by(ledger, "host/task/1")
    assert not ledger.finish(Claim(JOB, owner=""), Park("no client token"))

    ledger.finish(claim, Again(SOON))
    assert not ledger.finish(Claim(JOB, owner=""), Park("no client token"))


def test_a_release_ends_the_lease_after_a_while(ledger: RedisLedger, redis: Redis) -> None:
    claim = ended_by(ledger, "host/task/1")

    assert ledger.finish(claim, Release(SOON, "the put found no answer"))

    pass_time(redis, 14)
    assert drop(ledger) == "leased"
    pass_time(redis, 1)
    assert begin(ledger, "host/task/2").how is How.SEND


def test_what_was_released_for_a_while_rests_and_what_was_released_at_once_does_not(
    ledger: RedisLedger, redis: Redis
) -> None:
    claim = ended_by(ledger, "host/task/1")

    ledger.finish(claim, Release(SOON, "the put found no answer"))
    assert (index_of(redis), members(redis, RESTING)) == ([], ["job-1"])

    ledger.finish(claim, Release(timedelta(), "a test"))
    assert (index_of(redis), members(redis, RESTING)) == (["job-1"], [])


def test_an_owner_that_gives_its_job_back_did_not_die_and_one_whose_process_is_gone_did(
    ledger: RedisLedger, redis: Redis
) -> None:
    offer(ledger)
    begin(ledger, "host/task/1")
    ledger.release("job-1", "host/task/", Release(timedelta(), "its process is gone"))
    second = begin(ledger, "host/task/2")
    assert second.deaths == 1

    ledger.finish(claim_of(second, "host/task/2", Ack.NO), Release(timedelta(), "unknown"))

    third = begin(ledger, "host/task/3")
    assert (third.how, third.deaths, set(third.tried)) == (How.INHERITED, 1, {"nonce-1"})


def test_a_parent_releases_by_the_prefix_of_its_childs_delivery(ledger: RedisLedger) -> None:
    started_by(ledger, "host/task1/random")

    facts = ledger.release("job-1", "host/task1/", Release(timedelta(), "its process is gone"))

    assert facts == Overdue(JOB, Ack.SURE, waits=False, verdict=False)
    assert begin(ledger, "host/task2/random").how is How.ACKED


@pytest.mark.parametrize("prefix", ["", "host/task1/", "other/task10/", "task10", "host/task10/ "])
def test_no_other_delivery_is_released(ledger: RedisLedger, prefix: str) -> None:
    started_by(ledger, "host/task10/random")

    assert ledger.release("job-1", prefix, Release(timedelta(), "its process is gone")) is None
    assert drop(ledger) == "leased"


def test_nothing_is_released_that_nobody_holds(ledger: RedisLedger) -> None:
    gone = Release(timedelta(), "its process is gone")
    assert ledger.release("job-1", "host/", gone) is None

    claim = ended_by(ledger, "host/task/1")
    ledger.finish(claim, Dead())
    assert ledger.release("job-1", "host/", gone) is None, "a dead letter stays one"

    ledger.finish(claim, Done(accepted=True, outcome="success"))
    assert ledger.release("job-1", "host/", gone) is None


def test_a_released_verdict_is_told_of(ledger: RedisLedger) -> None:
    ended_by(ledger, "host/task/1")

    facts = ledger.release("job-1", "host/task/", Release(SOON, "its process is gone"))

    assert facts == Overdue(JOB, Ack.SURE, waits=False, verdict=True)


@pytest.mark.parametrize(
    "arm",
    [
        Park("somebody else's"),
        Release(SOON, "lease lost"),
        Dead(),
        Done(accepted=False, outcome="closed"),
    ],
)
def test_only_its_owner_ends_a_job(
    ledger: RedisLedger, redis: Redis, arm: Park | Release | Dead | Done
) -> None:
    started_by(ledger, "host/task/1")
    before = redis.hgetall(KEY)

    assert not ledger.finish(Claim(JOB, "host/task/2", 9, Ack.SURE), arm)

    assert redis.hgetall(KEY) == before


def test_what_aws_accepted_is_reported_whoever_says_so(ledger: RedisLedger) -> None:
    started_by(ledger, "host/task/1")

    assert ledger.finish(Claim(JOB, "host/task/2"), Done(accepted=True, outcome="success"))

    assert drop(ledger) == "reported"


def test_a_replayed_end_is_taken_and_told_once(ledger: RedisLedger, redis: Redis) -> None:
    claim = ended_by(ledger, "host/task/1")

    assert ledger.finish(claim, Done(accepted=False, outcome="closed"))
    assert ledger.finish(claim, Done(accepted=False, outcome="closed"))

    assert redis.llen("dispatcher:history") == 1


def test_the_end_of_a_lost_record_is_taken_only_when_aws_accepted(ledger: RedisLedger) -> None:
    claim = Claim(JOB, "host/task/1", 1, Ack.SURE)

    assert ledger.finish(claim, Done(accepted=True, outcome="success"))
    assert not ledger.finish(claim, Done(accepted=False, outcome="closed"))


def test_a_reported_record_keeps_no_secret(ledger: RedisLedger, redis: Redis) -> None:
    ledger.offer("poll-1", ledger.now(), {CUSTOM: "secret-nonce"})
    claim = claim_of(begin(ledger, "host/task/1", None, CUSTOM), "host/task/1")
    ledger.finish(claim, Store(Verdict(Kind.CONTINUE, token="secret-token")))
    pass_time(redis, 60)
    begin(ledger, "host/task/2", None, CUSTOM)
    ledger.finish(replace(claim, owner="host/task/2"), Done(accepted=True, outcome="continue"))

    told = redis.lrange("dispatcher:job:job-2:timeline", 0, -1)
    told += redis.lrange("dispatcher:history", 0, -1)
    assert "secret" not in str(redis.hgetall("dispatcher:job:job-2")) + str(told)
    assert members(redis, "dispatcher:index:Mine") == []


def test_a_dead_letter_is_kept_a_week_and_is_not_due(ledger: RedisLedger, redis: Redis) -> None:
    claim = ended_by(ledger, "host/task/1")

    assert ledger.finish(claim, Dead())
    assert ledger.finish(claim, Dead()), "a replay"

    assert index_of(redis) == []
    assert ttl(redis, KEY) == ttl(redis, f"{KEY}:timeline") == 7 * DAY
    assert [json.loads(line)["outcome"] for line in redis.lrange("dispatcher:history", 0, -1)] == [
        "dead"
    ]


# due


@pytest.fixture
def seeing(ledger: RedisLedger, redis: Redis) -> RedisLedger:
    """A ledger whose sweeps ran all the time."""
    ledger.due([JOB.type], 10)
    pass_time(redis, 29)
    ledger.due([JOB.type], 10)
    pass_time(redis, 1)
    return ledger


def refs(found: object) -> list[str]:
    assert isinstance(found, list)
    return [one.ref.job_id for one in found]


def sweep_on(ledger: RedisLedger, redis: Redis, rounds: int) -> list[list[str]]:
    found = []
    for _ in range(rounds):
        pass_time(redis, 10)
        found.append(refs(ledger.due([JOB.type], 10)))
    return found


def test_a_sweep_finds_what_nobody_works_on_once_in_a_while(
    seeing: RedisLedger, redis: Redis
) -> None:
    offer(seeing)
    begin(seeing, "host/task/1")

    found = sweep_on(seeing, redis, 6)

    # Its lease ends after 30 s; 24 s later it is looked at again, by the sixth sweep.
    assert found == [[], [], ["job-1"], [], [], ["job-1"]]


def test_a_sweep_leaves_the_lease_alone(seeing: RedisLedger, redis: Redis) -> None:
    started_by(seeing, "host/task/1")
    found = sweep_on(seeing, redis, 6)
    assert found[-1] == ["job-1"]

    assert begin(seeing, "host/task/2").how is How.ACKED


def test_a_sweep_says_what_it_knows(seeing: RedisLedger, redis: Redis) -> None:
    claim = ended_by(seeing, "host/task/1")
    seeing.finish(claim, Release(timedelta(), "the put found no answer"))

    assert seeing.due([JOB.type], 10) == [Overdue(JOB, Ack.SURE, waits=False, verdict=True)]


def test_a_retry_is_due_in_its_time(seeing: RedisLedger, redis: Redis) -> None:
    claim = started_by(seeing, "host/task/1")
    seeing.finish(claim, Again(timedelta(seconds=20)))
    assert sweep_on(seeing, redis, 1) == [[]]
    pass_time(redis, 10)

    assert seeing.due([JOB.type], 10) == [Overdue(JOB, Ack.SURE, waits=True, verdict=False)]


def test_a_sweep_finds_only_what_it_asks_for(seeing: RedisLedger, redis: Redis) -> None:
    many = [replace(JOB, job_id=f"many-{number}") for number in range(5)]
    seeing.offer("poll-1", seeing.now(), dict.fromkeys([*many, CUSTOM]))
    for ref in [*many, CUSTOM]:
        seeing.begin(ref, "host/task/1", "nonce", None)
        seeing.release(ref.job_id, "host/task/", Release(timedelta(), "its process is gone"))

    assert len(seeing.due([JOB.type], 3)) == 3
    assert len(seeing.due([JOB.type], 3)) == 2
    assert refs(seeing.due([CUSTOM.type, NOBODYS], 3)) == ["job-2"]


def test_a_sweep_that_never_ran_sees_nothing_for_half_a_lease(
    ledger: RedisLedger, redis: Redis
) -> None:
    begun_by(ledger, "host/task/1")
    pass_time(redis, 60)
    ledger.due([JOB.type], 10)

    assert sweep_on(ledger, redis, 3) == [[], [], ["job-1"]]


@pytest.mark.parametrize("stood", [31, -1])
def test_after_a_standstill_or_a_jump_of_the_clock_sweeps_see_nothing_for_half_a_lease(
    seeing: RedisLedger, redis: Redis, stood: int
) -> None:
    claim = begun_by(seeing, "host/task/1")
    seeing.finish(claim, Release(timedelta(), "a test"))
    pass_time(redis, 10)
    redis.hset("dispatcher:sweep", "last", redis.time()[0] * 1000 - stood * 1000)

    assert seeing.due([JOB.type], 10) == []
    assert sweep_on(seeing, redis, 3) == [[], [], ["job-1"]]


def test_sweeps_that_ran_in_time_are_not_blind(seeing: RedisLedger, redis: Redis) -> None:
    claim = begun_by(seeing, "host/task/1")
    seeing.finish(claim, Release(timedelta(), "a test"))
    pass_time(redis, 28)

    assert refs(seeing.due([JOB.type], 10)) == ["job-1"]


def test_a_sweep_takes_out_what_has_no_record_or_waits_for_an_offer(
    seeing: RedisLedger, redis: Redis
) -> None:
    offer(seeing)
    redis.zadd(INDEX, {"job-1": 0, "lost": 0})
    redis.zadd(RESTING, {"lost": 0})

    assert seeing.due([JOB.type], 10) == []
    assert index_of(redis) == members(redis, RESTING) == []


def test_a_sweep_leaves_a_type_that_it_does_not_know_to_one_that_does(
    seeing: RedisLedger, redis: Redis
) -> None:
    claim = begun_by(seeing, "host/task/1")
    seeing.finish(claim, Release(timedelta(), "a test"))
    other = action_type("ThirdParty.Test.Acme.1")

    assert seeing.due([other], 10) == []
    assert refs(seeing.due([other, JOB.type], 10)) == ["job-1"]


def test_a_sweep_sees_past_what_it_does_not_know(seeing: RedisLedger, redis: Redis) -> None:
    other = action_type("ThirdParty.Test.Acme.1")
    many = [replace(JOB, job_id=f"many-{number}", type=other) for number in range(9)]
    for ref in [*many, JOB]:
        seeing.offer("poll-1", seeing.now(), {ref: None})
        seeing.begin(ref, "host/task/1", "nonce", None)
        seeing.release(ref.job_id, "host/task/", Release(timedelta(), "its process is gone"))
        pass_time(redis, 0.01)

    assert refs(seeing.due([JOB.type], 1)) == ["job-1"]


def test_sweeps_are_not_blind_for_longer_than_half_a_lease(
    seeing: RedisLedger, redis: Redis
) -> None:
    claim = begun_by(seeing, "host/task/1")
    seeing.finish(claim, Release(timedelta(), "a test"))
    redis.hset("dispatcher:sweep", "blind", 10**15)

    assert sweep_on(seeing, redis, 5) == [[], [], [], ["job-1"], []]


def test_a_retry_is_swept_once_in_a_while_and_still_rests(
    seeing: RedisLedger, redis: Redis
) -> None:
    claim = started_by(seeing, "host/task/1")
    seeing.finish(claim, Again(timedelta(seconds=10)))

    assert sweep_on(seeing, redis, 4) == [["job-1"], [], [], ["job-1"]]
    assert (index_of(redis), members(redis, RESTING)) == ([], ["job-1"])


# How long things are kept


def test_every_key_has_a_ttl_at_every_step(ledger: RedisLedger, redis: Redis) -> None:
    def all_end() -> bool:
        return all(redis.pttl(key) > 0 for key in redis.keys("dispatcher:*"))

    ledger.due([JOB.type], 10)
    offer(ledger)
    assert all_end()
    claim = claim_of(begin(ledger, "host/task/1"), "host/task/1")
    assert all_end()
    beat(ledger, claim)
    assert all_end()
    ledger.finish(claim, Store(WELL))
    assert all_end()
    ledger.finish(claim, Done(accepted=True, outcome="success"))
    assert all_end()


def test_a_record_outlives_its_lease_by_a_day(ledger: RedisLedger, redis: Redis) -> None:
    offer(ledger)
    assert ttl(redis, KEY) == DAY

    claim = claim_of(begin(ledger, "host/task/1"), "host/task/1")
    ledger.finish(claim, Again(timedelta(minutes=15)))
    assert ttl(redis, KEY) == DAY + timedelta(minutes=15)
    assert ttl(redis, f"{KEY}:timeline") == DAY + timedelta(minutes=15)


def test_a_parked_record_is_kept_a_day(ledger: RedisLedger, redis: Redis) -> None:
    claim = begun_by(ledger, "host/task/1")
    redis.expire(KEY, 60)

    ledger.finish(claim, Park("somebody else's"))

    assert ttl(redis, KEY) == DAY


def test_a_reported_record_is_kept_an_hour(ledger: RedisLedger, redis: Redis) -> None:
    claim = ended_by(ledger, "host/task/1")

    ledger.finish(claim, Done(accepted=True, outcome="success"))

    assert ttl(redis, KEY) == ttl(redis, f"{KEY}:timeline") == HOUR


def test_the_history_tells_what_ended_newest_first(ledger: RedisLedger, redis: Redis) -> None:
    redis.rpush("dispatcher:history", *["older"] * 10_000)
    claim = ended_by(ledger, "host/task/1")

    ledger.finish(claim, Done(accepted=True, outcome="success"))

    assert redis.llen("dispatcher:history") == 10_000
    newest = json.loads(redis.lrange("dispatcher:history", 0, 0)[0])
    assert (newest["job"], newest["outcome"], newest["attempt"]) == ("job-1", "success", 1)
    assert newest["type"] == "ThirdParty.Deploy.Acme.1"
    assert ttl(redis, "dispatcher:history") == 7 * DAY


def test_the_timeline_tells_the_newest_forty_lines(ledger: RedisLedger, redis: Redis) -> None:
    for number in range(60):
        offer(ledger, f"poll-{number}")
        pass_time(redis, 60)
    begin(ledger, "host/task/1")

    lines = [json.loads(line) for line in redis.lrange(f"{KEY}:timeline", 0, -1)]

    assert len(lines) == 40
    assert [line[1:] for line in lines[-2:]] == [
        ["offered again", ""],
        ["begun", "fresh by host"],
    ]


# Values, and Redis itself


@pytest.mark.parametrize(
    "verdict",
    [
        Verdict(Kind.SUCCESS),
        Verdict(
            Kind.SUCCESS,
            "§ done \N{PILE OF POO} \udce9",
            external_id="42",
            revision={"revision": "r", "changeIdentifier": "c"},
            variables={"KEY": 'value with "quotes"'},
        ),
        Verdict(Kind.CONTINUE, "half", external_id="42", percent=50, token="token"),
        Verdict(Kind.FAILURE, "gone", failure_type="JobFailed", ours=True),
    ],
)
def test_a_verdict_comes_back_as_it_was_stored(
    ledger: RedisLedger, redis: Redis, verdict: Verdict
) -> None:
    ended_by(ledger, "host/task/1", verdict)
    pass_time(redis, 60)

    assert begin(ledger, "host/task/2").verdict == verdict


def test_what_a_newer_release_added_to_a_verdict_is_passed_over(
    ledger: RedisLedger, redis: Redis
) -> None:
    ended_by(ledger, "host/task/1")
    stored = json.loads(str(redis.hget(KEY, "verdict")))
    redis.hset(KEY, "verdict", json.dumps(stored | {"mood": "good"}))
    pass_time(redis, 60)

    assert begin(ledger, "host/task/2").verdict == WELL


def test_a_verdict_that_only_another_release_can_read_is_left_to_that_release(
    ledger: RedisLedger, redis: Redis
) -> None:
    ended_by(ledger, "host/task/1")
    redis.hset(KEY, "verdict", '{"kind":"maybe"}')
    pass_time(redis, 60)

    assert drop(ledger) == "written by another release, which this one cannot read"


def test_an_unknown_job_has_no_nonce(ledger: RedisLedger) -> None:
    assert ledger.nonce("job-1") is None


def test_scripts_that_redis_forgot_are_loaded_again(ledger: RedisLedger, redis: Redis) -> None:
    offer(ledger)
    redis.script_flush()

    assert begin(ledger, "host/task/1").how is How.FRESH


def test_a_redis_that_is_away_is_said_to_be_down_without_a_word_of_what_it_was_told() -> None:
    url = f"redis://127.0.0.1:{free_port()}/0"
    with Redis.from_url(url, decode_responses=True, retry=Retry(NoBackoff(), 0)) as away:
        ledger = RedisLedger(away, TIMES)

        with pytest.raises(LedgerDown) as offered:
            ledger.offer("poll-1", datetime.now(UTC), {CUSTOM: "secret-nonce"})
        with pytest.raises(LedgerDown) as asked:
            ledger.nonce("secret-job")

    assert str(offered.value) == str(asked.value) == "ConnectionError"
    assert offered.value.__suppress_context__


def test_a_script_error_is_said_without_a_word_of_what_it_was_told(
    ledger: RedisLedger, redis: Redis
) -> None:
    redis.config_set("maxmemory", "1")
    try:
        with pytest.raises(LedgerDown) as raised:
            offer(ledger, nonce="secret-nonce")
    finally:
        redis.config_set("maxmemory", "0")

    assert str(raised.value) == "OutOfMemoryError"


# What is damaged


OTHER = replace(JOB, job_id="job-3")
OTHER_KEY = "dispatcher:job:job-3"


class Alarms(list[tuple[str, str]]):
    def __call__(self, key: str, why: str) -> None:
        self.append((key, why))

    @property
    def keys(self) -> set[str]:
        return {key for key, _ in self}


@pytest.fixture
def alarms() -> Alarms:
    return Alarms()


@pytest.fixture
def watched(redis: Redis, alarms: Alarms) -> RedisLedger:
    return RedisLedger(redis, TIMES, alarms)


def spoil(redis: Redis, field: str, value: str | bytes) -> None:
    if field == "":
        redis.delete(KEY)
        redis.set(KEY, value)
    else:
        redis.hset(KEY, field, value)


DAMAGE = {
    "no hash": ("", "text"),
    "version": ("v", "2"),
    "state": ("state", "lost"),
    "ack": ("ack", "maybe"),
    "type": ("type", "Acme"),
    "lease": ("lease", "soon"),
    "endless lease": ("lease", "inf"),
    "attempt": ("attempt", "1.5"),
    "tried": ("tried", "["),
    "begun": ("begun", "}"),
    "tried no list": ("tried", "5"),
    "bytes": ("region", b"eu-west-\xff"),
}
damage = pytest.mark.parametrize("spoilt", DAMAGE.values(), ids=DAMAGE)


@damage
def test_a_damaged_record_is_neither_offered_nor_begun_and_others_are(
    watched: RedisLedger, redis: Redis, alarms: Alarms, spoilt: tuple[str, str | bytes]
) -> None:
    offer(watched)
    spoil(redis, *spoilt)
    before = redis.dump(KEY)
    pass_by = watched.offer("poll-2", watched.now(), {JOB: None, OTHER: None})

    assert pass_by == [OTHER]
    assert drop(watched) == "its record is damaged"
    assert redis.dump(KEY) == before
    assert alarms.keys == {KEY}
    assert begin(watched, "host/task/3", ref=OTHER).how is How.FRESH


@damage
@pytest.mark.usefixtures("seeing")
def test_a_sweep_passes_over_a_damaged_record_and_sees_the_others(
    watched: RedisLedger, redis: Redis, alarms: Alarms, spoilt: tuple[str, str | bytes]
) -> None:
    for ref in (JOB, OTHER):
        offer(watched, ref=ref)
        begin(watched, "host/task/1", ref=ref)
        watched.release(ref.job_id, "host/task/", Release(timedelta(), "its process is gone"))
    redis.zincrby(INDEX, -1, "job-1")  # it is looked at first
    spoil(redis, *spoilt)

    (seen,) = watched.due([JOB.type], 1)
    assert seen.ref == OTHER
    assert alarms.keys == {KEY}
    assert "job-1" in members(redis, INDEX)


@damage
def test_who_is_sure_of_its_job_makes_a_damaged_record_anew(
    watched: RedisLedger, redis: Redis, alarms: Alarms, spoilt: tuple[str, str | bytes]
) -> None:
    claim = started_by(watched, "host/task/1")
    spoil(redis, *spoilt)

    kept = beat(watched, claim)

    assert kept is (spoilt != ("v", "2"))  # a newer release's is not ours to mend
    assert alarms.keys == {KEY}
    if kept:
        assert watched.finish(claim, Store(WELL))
        assert redis.hgetall(KEY)["state"] == "finished"


@damage
def test_a_verdict_over_a_damaged_record_is_stored(
    watched: RedisLedger, redis: Redis, spoilt: tuple[str, str | bytes]
) -> None:
    claim = started_by(watched, "host/task/1")
    spoil(redis, *spoilt)

    assert watched.finish(claim, Store(WELL)) is (spoilt != ("v", "2"))


def test_who_only_presumes_loses_a_job_whose_record_is_damaged(
    watched: RedisLedger, redis: Redis
) -> None:
    claim = started_by(watched, "host/task/1", Ack.PRESUMED)
    other = replace(claim, ref=OTHER, owner="host/task/2", ack=Ack.SURE)
    spoil(redis, "state", "lost")

    lost = watched.heartbeat([Beat(claim, HOUR), Beat(other, HOUR)])

    assert lost == {"host/task/1"}
    assert not watched.finish(claim, Store(WELL))


@pytest.mark.parametrize("key", [INDEX, RESTING])
def test_nothing_is_begun_that_no_sweep_would_find(
    watched: RedisLedger, redis: Redis, alarms: Alarms, key: str
) -> None:
    held = started_by(watched, "host/task/1")
    offer(watched, ref=OTHER)
    offer(watched, ref=CUSTOM)
    redis.delete(key)
    redis.set(key, "text")

    assert drop(watched, ref=OTHER) == "no sweep would find it"
    assert begin(watched, "host/task/2", ref=CUSTOM).how is How.FRESH  # of another provider
    assert beat(watched, held)
    assert watched.due([JOB.type, CUSTOM.type], 9) == []
    assert watched.finish(held, Store(WELL))
    assert watched.finish(held, Done(accepted=True, outcome="success"))
    assert alarms.keys == {key}
    assert redis.hget(OTHER_KEY, "state") == "queued"

    redis.delete(key)
    assert begin(watched, "host/task/3", ref=OTHER).how is How.FRESH


@pytest.mark.parametrize(
    "key", ["dispatcher:history", "dispatcher:paused", f"{KEY}:timeline", "dispatcher:sweep"]
)
def test_what_is_only_looked_at_stops_nothing(
    watched: RedisLedger, redis: Redis, alarms: Alarms, key: str
) -> None:
    redis.set(key, "text")

    claim = ended_by(watched, "host/task/1")
    watched.due([JOB.type], 9)

    assert watched.finish(claim, Done(accepted=True, outcome="success"))
    assert alarms.keys == {key}


# What an operator may do


def test_an_operator_sends_a_dead_letter_again_with_what_is_known_of_it(
    ledger: RedisLedger, redis: Redis
) -> None:
    claim = ended_by(ledger, "host/task/1")
    ledger.finish(claim, Dead())
    pass_time(redis, 3600)

    assert ledger.overrule(JOB, Release(timedelta(), "sent again"))

    again = begin(ledger, "host/other/2", only=SETTLE)
    assert (again.how, again.verdict, again.ack) == (How.SEND, WELL, Ack.SURE)


def test_an_operator_ends_a_job_that_nobody_holds(ledger: RedisLedger, redis: Redis) -> None:
    started_by(ledger, "host/task/1")
    pass_time(redis, 3600)

    assert ledger.overrule(JOB, Store(GONE))

    sent = begin(ledger, "host/other/2", only=SETTLE)
    assert (sent.how, sent.verdict, sent.ack, sent.starts) == (How.SEND, GONE, Ack.SURE, 1)


@pytest.mark.parametrize("arm", [Release(timedelta(), "now"), Dead()])
def test_an_operator_may_not_touch_what_somebody_holds_or_nobody_knows(
    ledger: RedisLedger, arm: Release | Dead
) -> None:
    assert not ledger.overrule(JOB, arm)
    started_by(ledger, "host/task/1")

    assert not ledger.overrule(JOB, arm)


def test_an_operator_ends_a_job_that_runs_and_its_owner_learns_that_it_is_not_his(
    ledger: RedisLedger,
) -> None:
    claim = started_by(ledger, "host/task/1")

    assert ledger.overrule(JOB, Store(GONE))

    assert ledger.heartbeat([Beat(claim, HOUR)]) == {"host/task/1"}
    assert not ledger.finish(claim, Store(WELL))
    assert not ledger.finish(claim, Again(SOON))
    sent = begin(ledger, "host/other/2", only=SETTLE)
    assert (sent.how, sent.verdict, sent.ack) == (How.SEND, GONE, Ack.SURE)


def test_an_operator_ends_nothing_before_its_acknowledgement_or_after_its_result(
    ledger: RedisLedger,
) -> None:
    offer(ledger)
    assert not ledger.overrule(JOB, Store(GONE))
    begin(ledger, "host/task/1")
    assert not ledger.overrule(JOB, Store(GONE))
    ended_by(ledger, "host/task/1")
    assert not ledger.overrule(JOB, Store(GONE))


def test_an_operator_ends_the_wait_for_a_retry(ledger: RedisLedger, redis: Redis) -> None:
    claim = started_by(ledger, "host/task/1")
    ledger.finish(replace(claim, retries=1), Again(HOUR, "ConnectionError"))

    assert ledger.overrule(JOB, Release(timedelta(), "released"))

    assert begin(ledger, "host/other/2").how is How.AGAIN


# For people


def test_a_job_is_listed_where_it_stands_and_in_one_list_alone(
    ledger: RedisLedger, redis: Redis
) -> None:
    def lists() -> list[str]:
        kinds = ("index", "resting", "waiting", "dead")
        return [kind for kind in kinds if redis.zscore(f"dispatcher:{kind}:Acme", JOB.job_id)]

    offer(ledger)
    assert lists() == ["waiting"]
    claim = started_by(ledger, "host/task/1")
    assert lists() == ["index"]
    ledger.finish(replace(claim, retries=1), Again(HOUR))
    assert lists() == ["resting"]
    ledger.overrule(JOB, Store(WELL))
    assert lists() == ["index"]
    sent = begin(ledger, "host/other/2", only=SETTLE).claim("host/other/2")
    ledger.finish(sent, Dead())
    assert lists() == ["dead"]
    ledger.overrule(JOB, Release(timedelta(), "again"))
    assert lists() == ["index"]
    sent = begin(ledger, "host/other/3", only=SETTLE).claim("host/other/3")
    ledger.finish(sent, Done(accepted=True, outcome="success"))
    assert lists() == []


def test_a_parked_job_waits_again(ledger: RedisLedger, redis: Redis) -> None:
    offer(ledger)
    claim = begin(ledger, "host/task/1").claim("host/task/1")

    ledger.finish(claim, Park("refused"))

    assert redis.zscore("dispatcher:waiting:Acme", JOB.job_id)
    assert 0 < redis.pttl("dispatcher:waiting:Acme") <= DAY / timedelta(milliseconds=1)


def test_what_waits_no_more_for_a_day_is_forgotten(ledger: RedisLedger, redis: Redis) -> None:
    redis.zadd("dispatcher:waiting:Acme", {"taken-by-another": 1})

    offer(ledger)

    assert members(redis, "dispatcher:waiting:Acme") == [JOB.job_id]


def test_what_aws_was_told_is_kept_without_its_token(ledger: RedisLedger, redis: Redis) -> None:
    told = Verdict(Kind.CONTINUE, "half done \ud800", token="canary-token", percent=50)
    claim = started_by(ledger, "host/task/1")
    ledger.finish(claim, Store(told))

    ledger.finish(claim, Done(accepted=True, outcome="continue", told=told))

    kept = " ".join(map(str, redis.hgetall(KEY).values()))
    (line,) = redis.lrange("dispatcher:history", 0, -1)
    assert "half done" in kept
    assert "canary-token" not in kept + str(line)
    assert json.loads(str(line))["message"] == "half done ?"


def test_the_history_keeps_the_beginning_of_a_message(ledger: RedisLedger, redis: Redis) -> None:
    told = Verdict(Kind.FAILURE, "x" * 5_000, failure_type="JobFailed")
    claim = ended_by(ledger, "host/task/1")

    ledger.finish(claim, Dead(told))

    (line,) = redis.lrange("dispatcher:history", 0, -1)
    assert json.loads(str(line))["message"] == "x" * 300


def test_counts_that_cannot_be_added_cost_no_step(redis: Redis) -> None:
    counts = Tally()
    ledger = RedisLedger(redis, TIMES, counts=counts)
    redis.hset("dispatcher:counts", "results|Acme|success", "no number")
    counts.add("results", "Acme", "success")
    counts.add("results", "Acme", "failure")

    assert offer(ledger)
    redis.set("dispatcher:counts", "no hash")
    counts.add("results", "Acme", "success")

    assert isinstance(begin(ledger, "host/task/1"), Begun)


def test_a_full_redis_still_lets_a_job_be_done_whatever_is_to_be_counted(redis: Redis) -> None:
    counts = Tally()
    ledger = RedisLedger(redis, TIMES, counts=counts)
    claim = ended_by(ledger, "host/task/1")
    counts.add("results", "Acme", "success")
    redis.config_set("maxmemory", 1)
    try:
        assert ledger.finish(claim, Done(accepted=True, outcome="success"))
    finally:
        redis.config_set("maxmemory", 0)

    assert redis.hget(KEY, "state") == "reported"


def test_counts_ride_on_any_step_and_are_kept_while_redis_is_away(redis: Redis) -> None:
    counts = Tally()
    ledger = RedisLedger(redis, TIMES, counts=counts)
    url = f"redis://127.0.0.1:{free_port()}/0"
    with Redis.from_url(url, decode_responses=True, retry=Retry(NoBackoff(), 0)) as away:
        counts.add("results", "Acme", "success")
        with pytest.raises(LedgerDown):
            RedisLedger(away, TIMES, counts=counts).due([JOB.type], 9)

    ledger.due([JOB.type], 9)
    ledger.heartbeat([])
    counts.add("results", "Acme", "success", by=2)
    offer(ledger)

    assert redis.hgetall("dispatcher:counts") == {"results|Acme|success": "3"}
    assert redis.pttl("dispatcher:counts") > 29 * DAY / timedelta(milliseconds=1)
