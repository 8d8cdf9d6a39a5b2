"""The ledger's steps on a real Redis against a plain model of their rules, in whatever order.

Time passes by moving every time in Redis. The model's clock counts whole seconds, and its durations
are multiples of a minute, so that what a real step takes makes no difference."""

import json
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis import Redis

from dispatcher.engine.model import (
    Ack,
    Again,
    Arm,
    Beat,
    Begun,
    Claim,
    Dead,
    Done,
    Dropped,
    How,
    JobRef,
    Kind,
    Overdue,
    Park,
    Release,
    Store,
    Verdict,
    action_type,
)
from dispatcher.engine.times import Times
from dispatcher.redis_server import RedisServer
from dispatcher.sdk import ActionType
from dispatcher.store.ledger import RedisLedger

T = TypeVar("T")

MINUTE, HOUR, DAY = 60, 3_600, 86_400
WINDOW, FRESH, LEASE, SWEEP = 5 * MINUTE, 4 * MINUTE, 10 * MINUTE, 50
LONG_AGO = -1_000_000_000
TIMES = Times(
    ack_window=timedelta(seconds=WINDOW),
    lease=timedelta(seconds=LEASE),
    sweep_interval=timedelta(seconds=SWEEP),
)
JOBS = (
    JobRef("one", "client", action_type("ThirdParty.Deploy.Acme.1"), "eu-west-1"),
    JobRef("two", None, action_type("Custom.Build.Acme.1"), "eu-west-1"),
)
PROVIDER = "Acme"
TYPES = tuple(ref.type for ref in JOBS)
VERDICTS = (
    Verdict(Kind.SUCCESS, "well"),
    Verdict(Kind.CONTINUE, "half", percent=50, token="token-secret"),
    Verdict(Kind.FAILURE, "gone", failure_type="SystemUnavailable", ours=True),
)
BEGUN_STATES = ("running", "finished")


@dataclass
class Record:
    ref: JobRef
    state: str = "queued"
    owner: str = ""
    attempt: int = 0
    deaths: int = 0
    starts: int = 0
    retries: int = 0
    ack: Ack = Ack.NO
    nonce: str | None = None
    tried: list[str] = field(default_factory=list)
    offered: int = LONG_AGO
    poll: str | None = None
    publish_at: int = LONG_AGO
    lease: int = LONG_AGO
    deadline: int | None = None
    verdict: Verdict | None = None
    finished: int | None = None
    dead: bool = False
    begun: Begun | None = None
    ttl: int = DAY

    def held_by(self, owner: str) -> bool:
        return self.owner == owner and self.state in BEGUN_STATES

    @property
    def indexed(self) -> bool:
        acknowledged = self.state == "queued" and self.ack is not Ack.NO
        return not self.dead and (self.state in BEGUN_STATES or acknowledged)


class Book:
    """What the ledger should answer."""

    def __init__(self) -> None:
        self.now = 0
        self.records: dict[str, Record] = {}
        self.index: dict[str, int] = {}  # of what is worked on, and of what rests
        self.resting: set[str] = set()
        self.paused: set[str] = set()
        self.swept: int | None = None
        self.blind = LONG_AGO

    def offer(self, poll: str, age: int, offers: Mapping[JobRef, str | None]) -> list[JobRef]:
        return [ref for ref, nonce in offers.items() if self._publish(poll, age, ref, nonce)]

    def _publish(self, poll: str, age: int, ref: JobRef, nonce: str | None) -> bool:
        record = self.records.get(ref.job_id)
        if record is None:
            self.records[ref.job_id] = Record(
                ref, nonce=nonce, offered=self.now - age, poll=poll, publish_at=self.now + FRESH
            )
            return True
        if record.state == "reported":
            return False
        record.offered = max(record.offered, self.now - age)
        record.nonce = nonce or record.nonce
        if record.poll == poll:
            return True
        if not self.nobody_works_on(record) or record.publish_at > self.now:
            return False
        record.poll, record.publish_at = poll, self.now + 2 * FRESH
        return True

    def ended(self, ref: JobRef) -> bool:
        record = self.records.get(ref.job_id)
        return record is not None and record.state == "reported"

    def nobody_works_on(self, record: Record) -> bool:
        open_to_all = record.state == "queued" or record.lease <= self.now
        alive = record.state != "reported" and not record.dead
        return alive and record.ack is Ack.NO and open_to_all

    def begin(
        self, ref: JobRef, owner: str, nonce: str | None, only: frozenset[How] | None
    ) -> Begun | None:
        record = self.records.get(ref.job_id)
        if record is None or record.ref != ref:
            return None
        if record.begun and record.held_by(owner):
            return record.begun
        how = self._how(record)
        if how is None or (only is not None and (record.ack is Ack.NO or how not in only)):
            return None
        return self._begun(record, how, owner, nonce)

    def _how(self, record: Record) -> How | None:
        if record.dead or record.state == "reported":
            return None
        if record.ack is Ack.NO and record.ref.type.provider in self.paused:
            return None
        waiting = record.state == "queued" and record.ack is Ack.NO
        if not waiting and record.lease > self.now:
            return None
        if record.verdict:
            return How.SEND
        if record.state == "queued":
            return How.FRESH if waiting else How.AGAIN
        return How.INHERITED if record.ack is Ack.NO else How.ACKED

    def _begun(self, record: Record, how: How, owner: str, given: str | None) -> Begun:
        acknowledges = record.ack is Ack.NO
        nonce = (given or record.nonce) if acknowledges else None
        record.deaths = min(record.deaths + 1, 2) if how is How.INHERITED else 0
        record.attempt += 1
        record.begun = Begun(
            how,
            record.ref,
            record.attempt,
            record.starts,
            record.retries,
            record.deaths,
            record.ack,
            timedelta(seconds=-whole(record.offered - self.now)),
            nonce,
            frozenset(record.tried if acknowledges else ()),
            record.verdict,
            timedelta(seconds=0 if record.finished is None else self.now - record.finished),
        )
        if nonce and self.now - record.offered < FRESH and nonce not in record.tried:
            record.tried = [*record.tried, nonce][-8:]
        record.state = "finished" if record.verdict else "running"
        record.owner, record.deadline = owner, None
        self._lease(record, WINDOW)
        return record.begun

    def _lease(self, record: Record, seconds: int, *, rests: bool = False) -> None:
        job = record.ref.job_id
        record.lease = self.index[job] = self.now + seconds
        self.resting = self.resting | {job} if rests else self.resting - {job}
        record.ttl = seconds + DAY

    def right(self, claim: Claim) -> str | None:
        record = self.records.get(claim.ref.job_id)
        if record is None:
            return "absent"
        if record.held_by(claim.owner):
            return "mine"
        sure = claim.ack is Ack.SURE and record.ack is not Ack.SURE
        behind = record.attempt <= claim.attempt and record.state != "reported"
        return "outranks" if sure and behind else None

    def beat(self, claim: Claim, left: int | None) -> bool:
        right = self.right(claim)
        if right is None:
            return False
        record = self.records.get(claim.ref.job_id) or Record(claim.ref)
        if right == "mine" and record.dead:
            return True
        if right == "mine" and record.state == "finished":
            return self._beat_while_putting(record, claim)
        deadline = record.deadline if right == "mine" else None
        if deadline is None and left is not None:
            deadline = self.now + left
        if deadline is not None and deadline <= self.now:
            return False
        self._write(record, claim, "running")
        record.deadline = deadline
        self._lease(record, LEASE)
        return True

    def _beat_while_putting(self, record: Record, claim: Claim) -> bool:
        if record.starts != claim.starts:
            return False
        record.ack = claim.ack
        self._lease(record, LEASE)
        return True

    def _write(self, record: Record, claim: Claim, state: str) -> None:
        if not record.held_by(claim.owner):
            record.begun = None
        record.state, record.owner, record.ack = state, claim.owner, claim.ack
        record.attempt, record.starts, record.retries = claim.attempt, claim.starts, claim.retries
        record.verdict, record.finished, record.dead, record.deaths = None, None, False, 0
        self.records[claim.ref.job_id] = record

    def finish(self, claim: Claim, arm: Arm) -> bool:
        record = self.records.get(claim.ref.job_id)
        mine = record is not None and record.held_by(claim.owner)
        match arm:
            case Store(verdict):
                return self._store(claim, verdict, record if mine else None)
            case Again(after):
                return self._again(claim, seconds(after), record)
            case Park(_, forget):
                return record is not None and self._park(record, mine=mine, forget=forget)
            case Release(after):
                return self.release(claim.ref.job_id, claim.owner, seconds(after)) is not None
            case Dead():
                return record is not None and mine and self._bury(record)
            case Done(accepted):
                return self._done(claim, record, mine=mine, accepted=accepted)

    def _store(self, claim: Claim, verdict: Verdict, mine: Record | None) -> bool:
        if mine and mine.state == "finished":
            return mine.verdict == verdict
        if not self.right(claim):
            return False
        record = self.records.get(claim.ref.job_id) or Record(claim.ref)
        self._write(record, claim, "finished")
        record.verdict, record.finished, record.tried = verdict, self.now, []
        record.deadline = None
        self._lease(record, LEASE)
        return True

    def _again(self, claim: Claim, after: int, record: Record | None) -> bool:
        waits = record and record.owner == claim.owner and record.state == "queued"
        if waits and record and record.ack is not Ack.NO:
            return True
        ended = record and record.held_by(claim.owner) and record.state == "finished"
        if ended or not self.right(claim):
            return False
        record = record or Record(claim.ref)
        self._write(record, claim, "queued")
        record.tried, record.deadline = [], None
        self._lease(record, after, rests=True)
        return True

    def _park(self, record: Record, *, mine: bool, forget: bool) -> bool:
        if record.state == "queued" and record.ack is Ack.NO:
            record.publish_at = LONG_AGO
            return True
        if not mine:
            return False
        record.state, record.ack, record.deaths, record.tried = "queued", Ack.NO, 0, []
        record.publish_at = record.lease = LONG_AGO
        record.deadline, record.dead, record.ttl = None, False, DAY
        if forget:
            record.verdict = record.finished = None
        self.index.pop(record.ref.job_id, None)
        return True

    def _bury(self, record: Record) -> bool:
        record.dead, record.ttl = True, 7 * DAY
        self.index.pop(record.ref.job_id, None)
        return True

    def _done(self, claim: Claim, record: Record | None, *, mine: bool, accepted: bool) -> bool:
        if record is None:
            return accepted
        if record.state == "reported":
            return accepted or record.owner == claim.owner
        if not mine and not accepted:
            return False
        self.index.pop(claim.ref.job_id, None)
        record.state, record.owner, record.ttl = "reported", claim.owner, HOUR
        record.tried, record.nonce, record.poll = [], None, None
        record.verdict, record.begun, record.dead, record.deadline = None, None, False, None
        return True

    def release(self, job: str, owner: str, after: int) -> Overdue | None:
        record = self.records.get(job)
        if record is None or record.dead or record.state not in BEGUN_STATES:
            return None
        if not owner or not record.owner.startswith(owner):
            return None
        if record.owner == owner:
            record.deaths = 0
        self._lease(record, after, rests=after > 0)
        return overdue(record)

    def due(self, types: Sequence[ActionType]) -> list[Overdue]:
        if self.swept is None or not 0 <= self.now - self.swept <= 3 * SWEEP:
            self.blind = self.now + LEASE // 2
        self.swept = self.now
        if self.now < self.blind:
            return []
        found = [self._look(ref, types) for ref in JOBS] if types else []
        return [overdue(record) for record in found if record is not None]

    def _look(self, ref: JobRef, types: Sequence[ActionType]) -> Record | None:
        if self.index.get(ref.job_id, self.now + 1) > self.now:
            return None
        record = self.records.get(ref.job_id)
        if record is None or not record.indexed:
            del self.index[ref.job_id]
            return None
        if ref.type not in types:
            return None
        self.index[ref.job_id] = self.now + FRESH
        return record


def overdue(record: Record) -> Overdue:
    return Overdue(record.ref, record.ack, record.state == "queued", record.verdict is not None)


def seconds(duration: timedelta) -> int:
    return int(duration.total_seconds())


def whole(moment: float) -> int:
    """Of the real Redis, in the model's time: what the steps themselves took is rounded away."""
    return LONG_AGO if moment < LONG_AGO / 2 else round(moment / MINUTE) * MINUTE


@dataclass(eq=False)
class Delivery:
    """Of one message: what its process believes."""

    claim: Claim
    limit: int
    deadline: int | None = None
    leased_until: int = LONG_AGO


@dataclass(frozen=True)
class Snapshot:
    """What a replica had of one job."""

    at: int
    record: Record
    score: int | None
    rests: bool
    keys: Mapping[str, bytes]


@dataclass(frozen=True)
class Seen:
    """What Redis holds of one job. `epoch`: the model's 0 in Redis's time."""

    ref: JobRef
    stored: Mapping[str, str]
    ttl: int
    works: float | None  # its score among those that somebody works on
    rests: float | None  # its score among those that wait for a time
    epoch: float


deliveries: Bundle[Delivery] = Bundle("deliveries")
minutes = st.sampled_from([0, 1, 4, 10]).map(lambda count: timedelta(minutes=count))
jobs = st.sampled_from(JOBS)
arms: st.SearchStrategy[Arm] = st.one_of(
    st.sampled_from(VERDICTS).map(Store),
    minutes.map(Again),
    st.builds(Park, st.just("a test"), st.booleans()),
    st.builds(Release, minutes, st.just("a test")),
    st.just(Dead()),
    st.builds(Done, st.booleans(), st.just("success")),
)
TIME_FIELDS = {"offered", "publish_at", "lease", "deadline", "finished"}
ZSETS = ("dispatcher:index:Acme", "dispatcher:resting:Acme")


class LedgerMachine(RuleBasedStateMachine):
    redis: ClassVar[Redis]
    url: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.redis.flushall()
        self.ledger = RedisLedger(self.redis, TIMES)
        self.book = Book()
        self.clock = 0  # of the workers, which nobody sets back
        self.count = 0
        self.known: list[Delivery] = []
        self.attempts: dict[str, int] = {}
        self.snapshots: dict[str, Snapshot] = {}
        self.leftover: set[str] = set()

    def _new(self, what: str) -> str:
        self.count += 1
        return f"{what}-{self.count}"

    def _same(self, call: Callable[[], T], twice: bool) -> T:
        answer = call()
        if twice:
            assert call() == answer
        return answer

    # Offers

    @initialize()
    def first_offer(self) -> None:
        self.offer(JOBS, 0, twice=False)

    @rule(
        refs=st.lists(jobs, min_size=1, unique=True),
        age=st.sampled_from([0, 0, 0, 1, 5]),
        twice=st.booleans(),
    )
    def offer(self, refs: Sequence[JobRef], age: int, twice: bool) -> None:
        poll = self._new("poll")
        offers = {ref: self._new("nonce") if ref.client_id is None else None for ref in refs}
        stranded = {
            ref
            for ref in refs
            if (record := self.book.records.get(ref.job_id)) is None
            or (self.book.nobody_works_on(record) and record.publish_at <= self.book.now)
        }

        published = self._same(
            lambda: self.ledger.offer(poll, self.ledger.now() - timedelta(minutes=age), offers),
            twice,
        )

        assert published == self.book.offer(poll, age * MINUTE, offers)
        assert set(published) == stranded

    # Deliveries

    @rule(
        target=deliveries,
        ref=jobs,
        task=st.sampled_from(["host/task1", "host/task10", "other/task1"]),
        nonce=st.sampled_from(["nonce-a", "nonce-b", "nonce-c"]),
        limit=st.sampled_from([2, 30]),
        ack=st.sampled_from([Ack.NO, Ack.PRESUMED, Ack.SURE, Ack.SURE]),
        twice=st.booleans(),
    )
    def begin(self, ref: JobRef, task: str, nonce: str, limit: int, ack: Ack, twice: bool) -> Any:
        begun = self._begin(ref, task, nonce if ref.client_id else None, None, limit, twice)
        if isinstance(begun, Delivery):
            self.acknowledge(begun, ack)
        return begun

    @rule(
        target=deliveries,
        ref=jobs,
        only=st.sampled_from(
            [frozenset[How](), frozenset({How.SEND}), frozenset({How.SEND, How.ACKED})]
        ),
        twice=st.booleans(),
    )
    def settle(self, ref: JobRef, only: frozenset[How], twice: bool) -> Any:
        return self._begin(ref, "host/settle", None, only, 30, twice)

    @rule(target=deliveries, predecessor=deliveries, wait=st.sampled_from([5, 10]))
    def begin_after_another(self, predecessor: Delivery, wait: int) -> Any:
        """Its message comes once more, to the same process."""
        self._pass(wait * MINUTE)
        ref, owner = predecessor.claim.ref, predecessor.claim.owner
        nonce = "nonce-a" if ref.client_id else None
        return self._begin(ref, owner.rpartition("/")[0], nonce, None, 30, twice=False)

    def _begin(
        self,
        ref: JobRef,
        task: str,
        nonce: str | None,
        only: frozenset[How] | None,
        limit: int,
        twice: bool,
    ) -> Any:
        owner = self._new(f"{task}/random")

        answer = self.ledger.begin(ref, owner, nonce, only)

        expected = self.book.begin(ref, owner, nonce, only)
        assert rounded(answer) == expected
        if twice:
            assert rounded(self.ledger.begin(ref, owner, nonce, only)) == expected
        if isinstance(answer, Dropped):
            return multiple()
        claim = Claim(ref, owner, answer.attempt, answer.ack, answer.starts, answer.retries)
        delivery = Delivery(claim, limit * MINUTE, leased_until=self.clock + WINDOW)
        self.known.append(delivery)
        return delivery

    @rule(ref=jobs, type_name=st.sampled_from(["ThirdParty.Deploy.Acme.2", "Custom.Build.Acme.2"]))
    def begin_as_another_type(self, ref: JobRef, type_name: str) -> None:
        other = replace(ref, type=action_type(type_name))

        answer = self.ledger.begin(other, self._new("host/task1/random"), "nonce-a", None)

        assert isinstance(answer, Dropped)

    @rule(delivery=deliveries, ack=st.sampled_from([Ack.SURE, Ack.SURE, Ack.PRESUMED]))
    def acknowledge(self, delivery: Delivery, ack: Ack) -> None:
        if delivery.claim.ack is Ack.NO:
            delivery.claim = replace(delivery.claim, ack=ack)

    @rule(
        several=st.lists(deliveries, min_size=1, max_size=3),
        starts=st.integers(0, 1),
        twice=st.booleans(),
    )
    def heartbeat(self, several: Sequence[Delivery], starts: int, twice: bool) -> None:
        one_a_job = {delivery.claim.ref.job_id: delivery for delivery in several}
        self._beats(list(one_a_job.values()), starts, twice)

    @rule(delivery=deliveries, arm=arms, twice=st.booleans())
    def finish(self, delivery: Delivery, arm: Arm, twice: bool) -> None:
        if isinstance(arm, Again):
            retries = delivery.claim.retries + 1
            delivery.claim = replace(delivery.claim, retries=retries)
        self._finish(delivery, arm, twice)

    @rule(
        ref=jobs,
        ahead=st.integers(-1, 1),
        ack=st.sampled_from(Ack),
        arm=st.none() | arms,
        twice=st.booleans(),
    )
    def a_stranger(self, ref: JobRef, ahead: int, ack: Ack, arm: Arm | None, twice: bool) -> None:
        """One whose begin a failover lost: the record knows nothing of its claim."""
        record = self.book.records.get(ref.job_id)
        attempt = max((record.attempt if record else 0) + ahead, 0)
        claim = Claim(ref, self._new("stranger/task/random"), attempt, ack)
        stranger = Delivery(claim, 30 * MINUTE)
        self.known.append(stranger)
        if arm is None:
            self._beats([stranger], 0, twice)
        else:
            self._finish(stranger, arm, twice)

    def _beats(self, several: Sequence[Delivery], starts: int, twice: bool) -> None:
        beats = []
        for one in several:
            one.claim = replace(one.claim, starts=one.claim.starts + starts)
            if one.deadline is None and one.claim.starts:
                one.deadline = self.book.now + one.limit
            beats.append(Beat(one.claim, self._left(one), 5, "half way"))

        lost = self._same(lambda: self.ledger.heartbeat(beats), twice)

        for one, beat in zip(several, beats, strict=True):
            outranks = self.book.right(one.claim) == "outranks"
            kept = self.book.beat(one.claim, None if beat.left is None else seconds(beat.left))
            assert (one.claim.owner not in lost) == kept
            if kept and outranks:
                self._nobody_believes(one.claim.ref.job_id)
            one.leased_until = self.clock + LEASE if kept and not self._dead(one) else LONG_AGO

    def _left(self, one: Delivery) -> timedelta | None:
        if one.deadline is None:
            return None
        return timedelta(seconds=max(one.deadline - self.book.now, 0))

    def _dead(self, one: Delivery) -> bool:
        return self.book.records[one.claim.ref.job_id].dead

    def _finish(self, delivery: Delivery, arm: Arm, twice: bool) -> None:
        if isinstance(arm, Store | Again):
            self.acknowledge(delivery, Ack.SURE)
        claim = delivery.claim
        outranks = self.book.right(claim) == "outranks" and isinstance(arm, Store | Again)
        until = self._believes_until(delivery, arm)

        done = self._same(lambda: self.ledger.finish(claim, arm), twice)

        assert done == self.book.finish(claim, arm)
        if done and (outranks or self.book.ended(claim.ref)):
            self._nobody_believes(claim.ref.job_id)
        if done:
            delivery.leased_until = until

    def _believes_until(self, delivery: Delivery, arm: Arm) -> int:
        """How long a delivery whose arm is taken may believe that the job is its."""
        record = self.book.records.get(delivery.claim.ref.job_id)
        match arm:
            case Store():
                replays = record is not None and record.held_by(delivery.claim.owner)
                again = replays and record is not None and record.state == "finished"
                return delivery.leased_until if again else self.clock + LEASE
            case Release(after):
                return self.clock + seconds(after)
        return LONG_AGO

    @rule(ref=jobs, forget=st.booleans(), twice=st.booleans())
    def park_by_nobody(self, ref: JobRef, forget: bool, twice: bool) -> None:
        claim, arm = Claim(ref, owner=""), Park("no client token", forget)

        parked = self._same(lambda: self.ledger.finish(claim, arm), twice)

        assert parked == self.book.finish(claim, arm)

    @rule(
        ref=jobs,
        prefix=st.sampled_from(["", "host/task1/", "host/task10/", "other/task1/", "host/settle/"]),
        after=minutes,
        twice=st.booleans(),
    )
    def release_by_prefix(self, ref: JobRef, prefix: str, after: timedelta, twice: bool) -> None:
        arm = Release(after, "its process is gone")

        facts = self._same(lambda: self.ledger.release(ref.job_id, prefix, arm), twice)

        assert facts == self.book.release(ref.job_id, prefix, seconds(after))
        if facts is not None:
            self._nobody_believes(ref.job_id)

    # The world

    @rule(types=st.just(TYPES) | st.lists(st.sampled_from(TYPES), unique=True))
    def due(self, types: Sequence[ActionType]) -> None:
        found = self.ledger.due(types, 10)

        assert sorted(found, key=repr) == sorted(self.book.due(types), key=repr)

    @rule(types=st.just(TYPES) | st.lists(st.sampled_from(TYPES), unique=True))
    def a_while_of_sweeps(self, types: Sequence[ActionType]) -> None:
        """Longer than they see nothing for."""
        for _ in range(4):
            self._pass(2 * MINUTE)
            self.due(types)

    @rule()
    def pause_or_resume(self) -> None:
        if self.book.paused:
            self.redis.srem("dispatcher:paused", PROVIDER)
        else:
            self.redis.sadd("dispatcher:paused", PROVIDER)
        self.book.paused ^= {PROVIDER}

    @rule(step=st.sampled_from([2, 4, 5, 10, 31, -5]))
    def time_passes(self, step: int) -> None:
        """Minutes; below 0, Redis's clock was set back."""
        self._pass(step * MINUTE)

    def _pass(self, by: int) -> None:
        self.book.now += by
        self.clock += max(by, 0)
        for ref in JOBS:
            self._older(ref.job_id, by)
        for zset in ZSETS:
            for job in self.redis.zrange(zset, 0, -1):
                self.redis.zincrby(zset, -by * 1000, str(job))
        for name in self.redis.hgetall("dispatcher:sweep"):
            self.redis.hincrby("dispatcher:sweep", str(name), -by * 1000)

    def _older(self, job: str, by: int) -> None:
        key = f"dispatcher:job:{job}"
        stored = self.redis.hgetall(key)
        for name in TIME_FIELDS & stored.keys():
            self.redis.hincrby(key, name, -by * 1000)
        if "begun" in stored:
            begun = json.loads(stored["begun"])
            begun["offered"] -= by * 1000
            self.redis.hset(key, "begun", json.dumps(begun))

    @rule(ref=jobs)
    def lose_the_record(self, ref: JobRef) -> None:
        job = ref.job_id
        self.redis.delete(f"dispatcher:job:{job}", f"dispatcher:job:{job}:timeline")
        self.book.records.pop(job, None)
        self.leftover |= {job} & self.book.index.keys()
        self._rewrite_history(job)

    @rule(ref=jobs)
    def replicate(self, ref: JobRef) -> None:
        record = self.book.records.get(ref.job_id)
        if record is None:
            return
        names = (f"dispatcher:job:{ref.job_id}", f"dispatcher:job:{ref.job_id}:timeline")
        with Redis.from_url(self.url) as raw:
            dumps = {name: raw.dump(name) for name in names}
        keys = {name: dump for name, dump in dumps.items() if isinstance(dump, bytes)}
        score, rests = self.book.index.get(ref.job_id), ref.job_id in self.book.resting
        self.snapshots[ref.job_id] = Snapshot(self.book.now, deepcopy(record), score, rests, keys)

    @precondition(lambda self: self.snapshots)
    @rule(data=st.data())
    def fail_over(self, data: st.DataObject) -> None:
        """What was written of one job since its snapshot is lost."""
        job = data.draw(st.sampled_from(sorted(self.snapshots)))
        snapshot = self.snapshots.pop(job)
        record = deepcopy(snapshot.record)
        with Redis.from_url(self.url) as raw:
            for name, dump in snapshot.keys.items():
                raw.restore(name, record.ttl * 1000, dump, replace=True)
        self._older(job, self.book.now - snapshot.at)
        self.book.records[job] = record
        self._restore_score(record, snapshot)
        self._rewrite_history(job)

    def _restore_score(self, record: Record, snapshot: Snapshot) -> None:
        job = record.ref.job_id
        for zset in ZSETS:
            self.redis.zrem(zset, job)
        self.book.index.pop(job, None)
        self.book.resting.discard(job)
        if snapshot.score is None:
            return
        zset = ZSETS[snapshot.rests]
        now, micros = self.redis.time()
        moment = (now + snapshot.score - self.book.now) * 1000 + micros // 1000
        self.redis.zadd(zset, {job: moment})
        self.redis.pexpire(zset, 8 * DAY * 1000)
        self.book.index[job] = snapshot.score
        self.book.resting |= {job} if snapshot.rests else set()

    def _rewrite_history(self, job: str) -> None:
        self.attempts.pop(job, None)
        self._nobody_believes(job)

    def _nobody_believes(self, job: str) -> None:
        for one in self.known:
            if one.claim.ref.job_id == job:
                one.leased_until = LONG_AGO

    # What always holds

    @invariant()
    def the_rules_hold(self) -> None:
        seen = self._look()
        self._records_are_as_the_rules_say(seen)
        self._one_at_most_believes_that_a_job_is_its()
        self._attempts_only_grow(seen)
        self._the_index_has_what_somebody_must_look_at(seen)
        self._a_reported_record_keeps_no_secret(seen)
        self._nothing_stays_for_ever_and_no_secret_leaves_the_record()

    def _look(self) -> list[Seen]:
        pipe = self.redis.pipeline()
        pipe.time()
        for ref in JOBS:
            pipe.hgetall(f"dispatcher:job:{ref.job_id}")
            pipe.ttl(f"dispatcher:job:{ref.job_id}")
            for zset in ZSETS:
                pipe.zscore(zset, ref.job_id)
        (now, micros), *answers = pipe.execute()
        epoch = now + micros / 1e6 - self.book.now
        rows = [answers[n : n + 4] for n in range(0, len(answers), 4)]
        return [
            Seen(ref, stored, ttl, works, rests, epoch)
            for ref, (stored, ttl, works, rests) in zip(JOBS, rows, strict=True)
        ]

    def _records_are_as_the_rules_say(self, seen: Sequence[Seen]) -> None:
        for one in seen:
            record = self.book.records.get(one.ref.job_id)
            assert read(one) == (record and expected(record))
            if record is not None:
                assert whole(one.ttl) == record.ttl

    def _one_at_most_believes_that_a_job_is_its(self) -> None:
        believers = [one.claim.ref.job_id for one in self.known if one.leased_until > self.clock]
        assert len(set(believers)) == len(believers)

    def _attempts_only_grow(self, seen: Sequence[Seen]) -> None:
        for one in seen:
            attempt = int(one.stored.get("attempt", 0))
            assert attempt >= self.attempts.get(one.ref.job_id, 0)
            self.attempts[one.ref.job_id] = attempt

    def _the_index_has_what_somebody_must_look_at(self, seen: Sequence[Seen]) -> None:
        for one in seen:
            state, ack = one.stored.get("state"), one.stored.get("ack")
            acknowledged = state == "queued" and ack != "no"
            belongs = (state in BEGUN_STATES or acknowledged) and "dead" not in one.stored
            job = one.ref.job_id
            scores = [score for score in (one.works, one.rests) if score is not None]
            assert [whole(score / 1000 - one.epoch) for score in scores] == (
                [self.book.index[job]] if job in self.book.index else []
            )
            assert not scores or (one.rests is not None) == (job in self.book.resting)
            if belongs or not scores:
                self.leftover.discard(job)
            if job not in self.leftover:
                assert bool(scores) == belongs

    def _a_reported_record_keeps_no_secret(self, seen: Sequence[Seen]) -> None:
        for one in seen:
            if one.stored.get("state") == "reported":
                assert not one.stored.keys() & {"nonce", "tried", "verdict", "begun"}
                texts = "".join(one.stored.values())
                assert "nonce-" not in texts
                assert "token-" not in texts

    def _nothing_stays_for_ever_and_no_secret_leaves_the_record(self) -> None:
        keys = sorted({str(key) for key in self.redis.keys("dispatcher:*")} - {"dispatcher:paused"})
        lists = [key for key in keys if key.endswith((":timeline", ":history"))]
        pipe = self.redis.pipeline()
        for key in keys:
            pipe.ttl(key)
        for key in lists:
            pipe.lrange(key, 0, -1)
        answers = pipe.execute()
        assert all(ttl > 0 for ttl in answers[: len(keys)]), keys
        for key, lines in zip(lists, answers[len(keys) :], strict=True):
            assert len(lines) <= 40 or key == "dispatcher:history"
            assert "nonce-" not in "".join(lines)
            assert "token-" not in "".join(lines)

    def teardown(self) -> None:
        """In the end everything that nobody works on is found: by an offer, or by a sweep."""
        self._pass(2 * HOUR)
        records = self.book.records.values()
        unacknowledged = {record.ref for record in records if self.book.nobody_works_on(record)}
        indexed = {record.ref for record in records if record.indexed}
        offers: dict[JobRef, str | None] = dict.fromkeys(ref for ref in JOBS)

        published = set(self.ledger.offer("the last poll", self.ledger.now(), offers))
        swept = {one.ref for one in self._sweep_until_it_sees()}

        assert published - unacknowledged == {
            ref for ref in JOBS if ref.job_id not in self.book.records
        }
        assert unacknowledged <= published
        assert swept == indexed

    def _sweep_until_it_sees(self) -> Sequence[Overdue]:
        for _ in range(LEASE // 2 // (2 * MINUTE) + 1):
            self.ledger.due(TYPES, 10)
            self._pass(2 * MINUTE)
        return self.ledger.due(TYPES, 10)


def rounded(answer: Begun | Dropped) -> Begun | None:
    if isinstance(answer, Dropped):
        return None
    return replace(answer, offer_age=_age(answer.offer_age), verdict_age=_age(answer.verdict_age))


def _age(age: timedelta) -> timedelta:
    return timedelta(seconds=-whole(-age.total_seconds()))


def read(seen: Seen) -> dict[str, Any] | None:
    stored = seen.stored
    if not stored:
        return None
    moments = {
        name: whole(int(stored.get(name, 0)) / 1000 - seen.epoch)
        for name in ("offered", "publish_at", "lease")
    }
    numbers = ("attempt", "deaths", "starts", "retries")
    return moments | {
        "type": stored["type"],
        "state": stored["state"],
        "ack": stored["ack"],
        "owner": stored.get("owner", ""),
        "numbers": [int(stored.get(name, 0)) for name in numbers],
        "nonce": stored.get("nonce"),
        "tried": json.loads(stored.get("tried", "[]")),
        "verdict": "verdict" in stored,
        "deadline": "deadline" in stored,
        "dead": "dead" in stored,
    }


def expected(record: Record) -> dict[str, Any]:
    return {
        "type": record.ref.type.task_name,
        "state": record.state,
        "ack": record.ack.value,
        "owner": record.owner,
        "numbers": [record.attempt, record.deaths, record.starts, record.retries],
        "offered": record.offered,
        "publish_at": record.publish_at,
        "lease": record.lease,
        "nonce": record.nonce,
        "tried": record.tried,
        "verdict": record.verdict is not None,
        "deadline": record.deadline is not None,
        "dead": record.dead,
    }


@pytest.mark.timeout(400)  # a failure takes its time to be made small
def test_the_ledger_answers_as_its_rules_say(redis: Redis, redis_server: RedisServer) -> None:
    LedgerMachine.redis, LedgerMachine.url = redis, redis_server.url

    run_state_machine_as_test(
        LedgerMachine,
        settings=settings(
            max_examples=150,
            report_multiple_bugs=False,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
