"""Who is there to work, what is paused, whose turn it is to poll. What is lost renews itself.

dispatcher:slots:<provider>       hash: node -> "slots expiry", expiry in ms of Redis's clock; who
                                  has no slots leaves, and finishes what it runs
dispatcher:providers              set of those that had slots within the last 8 days
dispatcher:turn:<type>@<region>   string: who polls, with a TTL
dispatcher:asked:<type>@<region>  string: a poll message is on its way
dispatcher:rest:<type>@<region>   string: none may poll while it lives
dispatcher:pace:<type>@<region>   string: how long the type rested last, in ms
dispatcher:paused                 set of providers; the one key here that has no TTL"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from redis import Redis
from redis.exceptions import RedisError

from dispatcher.engine.model import Crew, LedgerDown
from dispatcher.engine.ports import Turn
from dispatcher.engine.times import Times
from dispatcher.metrics import Tally
from dispatcher.sdk import ActionType

T = TypeVar("T")

SLOTS = "dispatcher:slots:"
PAUSED = "dispatcher:paused"
PROVIDERS = "dispatcher:providers"
COUNTS = "dispatcher:counts"
COUNTS_KEPT = timedelta(days=30)
ANNOUNCE = timedelta(seconds=5)
GONE = 3 * ANNOUNCE  # without an announcement; a leaving worker withdraws at once
KNOWN = timedelta(days=8)
LISTED_MOST = 1_000  # waiting jobs of a provider that are looked at for the oldest
PACE_KEPT = timedelta(minutes=10)


@dataclass(frozen=True)
class Staff:
    """Of one provider, for people. `waiting`: jobs, with how long ago each was last offered."""

    provider: str
    paused: bool
    workers: Mapping[str, int]  # Celery names, and slots
    draining: Sequence[str]
    running: int
    retrying: int
    dead: int
    waiting: Mapping[str, timedelta]

    @property
    def slots(self) -> int:
        return sum(self.workers.values())


class RedisFleet:
    """`counts` are taken along when a turn ends."""

    def __init__(self, redis: Redis, times: Times, counts: Tally | None = None) -> None:
        self._redis = redis
        self._counts = counts or Tally()
        # A poller that died, or lost Redis, holds nobody up for more. Were a poll to take longer,
        # the worst would be two at once.
        self._turn_kept = times.poll_interval * 3 + timedelta(seconds=3)
        self._asked_kept = max(_ms(times.poll_interval * 3), 1)

    def crew(self, provider: str) -> Crew:
        def ask() -> Crew:
            pipe = self._redis.pipeline(transaction=False)
            pipe.time()
            pipe.hgetall(SLOTS + provider)
            pipe.zcard(f"dispatcher:index:{provider}")
            pipe.sismember(PAUSED, provider)
            (seconds, micros), workers, busy, paused = pipe.execute()
            return Crew(_alive(workers, seconds * 1000 + micros // 1000), busy, bool(paused))

        return _answered(ask)

    def providers(self) -> set[str]:
        """That are paused, or had workers lately."""
        found = _answered(lambda: self._redis.sunion([PROVIDERS, PAUSED]))
        return {str(one) for one in found}

    def staff(self, providers: Iterable[str]) -> list[Staff]:
        """In the order of their names. A key of another type than it should be counts as empty."""
        names = sorted(providers)

        def ask() -> list[Staff]:
            pipe = self._redis.pipeline(transaction=False)
            pipe.time()
            for name in names:
                pipe.sismember(PAUSED, name)
                pipe.hgetall(SLOTS + name)
                for kind in ("index", "resting", "dead"):
                    pipe.zcard(f"dispatcher:{kind}:{name}")
                waiting = f"dispatcher:waiting:{name}"
                pipe.zrange(waiting, 0, LISTED_MOST - 1, withscores=True)
            answers = pipe.execute(raise_on_error=False)
            _unless_wrong(answers[:1])  # an error of a provider's key is that key's
            (seconds, micros), *told = answers
            now = seconds * 1000 + micros // 1000
            each = [told[at : at + 6] for at in range(0, len(told), 6)]
            return [_staff(name, now, one) for name, one in zip(names, each, strict=True)]

        return _answered(ask)

    def counts(self) -> dict[str, str]:
        """What the fleet has counted, see `metrics.counted`."""
        found = _answered(lambda: self._redis.hgetall(COUNTS))
        return {str(name): str(value) for name, value in found.items()}

    def paused(self) -> set[str]:
        return _answered(lambda: {str(one) for one in self._redis.smembers(PAUSED)})

    def pause(self, provider: str) -> bool:
        """All its owners, versions and regions, until `resume`. False: it was already."""
        return _answered(lambda: bool(self._redis.sadd(PAUSED, provider)))

    def resume(self, provider: str) -> bool:
        """False: it was not paused."""
        return _answered(lambda: bool(self._redis.srem(PAUSED, provider)))

    def announce(self, node: str, slots: Mapping[str, int]) -> None:
        """All slots of a worker, not the free ones, for each provider that it serves."""

        def tell() -> None:
            expiry = self._now() + _ms(GONE)
            pipe = self._redis.pipeline(transaction=False)
            for provider, count in slots.items():
                pipe.hset(SLOTS + provider, node, f"{count} {expiry}")
                pipe.pexpire(SLOTS + provider, _ms(GONE))
            if slots:
                pipe.sadd(PROVIDERS, *slots)
                pipe.pexpire(PROVIDERS, KNOWN)
            pipe.execute()
            self._forget_gone(slots)

        _answered(tell)

    def _forget_gone(self, providers: Iterable[str]) -> None:
        """Nodes of earlier deploys: their field would live as long as anybody announces."""
        now = self._now()
        for provider in providers:
            key = SLOTS + provider
            nodes = self._redis.hgetall(key)
            gone = [node for node, value in nodes.items() if _announced(str(value))[1] <= now]
            if gone:
                self._redis.hdel(key, *gone)

    def now(self) -> datetime:
        """By Redis's clock."""
        return datetime.fromtimestamp(_answered(self._now) / 1000, UTC)

    def _now(self) -> int:
        seconds, micros = self._redis.time()
        return seconds * 1000 + micros // 1000

    def withdraw(self, node: str, providers: Sequence[str], leaves: timedelta) -> None:
        """`leaves`: for how long it still finishes what it runs, and is shown."""

        def tell() -> None:
            expiry = self._now() + _ms(leaves)
            pipe = self._redis.pipeline(transaction=False)
            for provider in providers:
                if leaves:
                    pipe.hset(SLOTS + provider, node, f"0 {expiry}")
                    pipe.pexpire(SLOTS + provider, _ms(max(leaves, GONE)))
                else:
                    pipe.hdel(SLOTS + provider, node)
            pipe.execute()

        _answered(tell)

    def rested(self, turns: Sequence[Turn]) -> list[Turn]:
        def ask() -> list[Turn]:
            resting = self._redis.mget([_key("rest", *turn) for turn in turns])
            ready = [turn for turn, rest in zip(turns, resting, strict=True) if rest is None]
            pipe = self._redis.pipeline(transaction=False)
            for turn in ready:
                pipe.set(_key("asked", *turn), 1, nx=True, px=self._asked_kept)
            return [turn for turn, new in zip(ready, pipe.execute(), strict=True) if new]

        return _answered(ask) if turns else []

    def take_turn(self, action_type: ActionType, region: str, holder: str) -> timedelta | None:
        def ask() -> timedelta | None:
            key = _key("turn", action_type, region)
            # The holder may be this call's own, when redis-py repeats one whose answer was lost.
            before = self._redis.set(key, holder, nx=True, get=True, px=_ms(self._turn_kept))
            if before not in {None, holder}:
                return None
            self._redis.delete(_key("asked", action_type, region))
            rest = self._redis.get(_key("pace", action_type, region))
            return timedelta(milliseconds=int(rest or 0))

        return _answered(ask)

    def end_turn(
        self,
        action_type: ActionType,
        region: str,
        holder: str,
        rest: timedelta,
        pause: timedelta,
    ) -> None:
        def tell() -> None:
            turn = _key("turn", action_type, region)
            pipe = self._redis.pipeline(transaction=False)
            pipe.set(_key("pace", action_type, region), _ms(rest), px=_ms(PACE_KEPT))
            if pause > timedelta():
                pipe.set(_key("rest", action_type, region), 1, px=max(_ms(pause), 1))
            # Were it somebody else's a moment later, the worst would be two polls at once.
            if self._redis.get(turn) == holder:
                pipe.delete(turn)
            needed = len(pipe)
            for name, by in counted.items():
                pipe.hincrby(COUNTS, name, by)
            if counted:
                pipe.pexpire(COUNTS, COUNTS_KEPT)
            _unless_wrong(pipe.execute(raise_on_error=False)[:needed])

        counted = self._counts.take()
        try:
            _answered(tell)
        except LedgerDown:
            self._counts.put_back(counted)
            raise


def _alive(workers: Mapping[str, str], now: int) -> int:
    announced = map(_announced, workers.values())
    return sum(slots for slots, expiry in announced if expiry > now)


def _staff(provider: str, now: int, told: Sequence[Any]) -> Staff:
    paused, nodes, *cards, waiting = (None if isinstance(one, RedisError) else one for one in told)
    announced = {str(node): _announced(str(value)) for node, value in (nodes or {}).items()}
    there = {node: slots for node, (slots, expiry) in announced.items() if expiry > now}
    running, retrying, dead = (card or 0 for card in cards)
    return Staff(
        provider=provider,
        paused=bool(paused),
        workers={node: slots for node, slots in there.items() if slots},
        draining=sorted(node for node, slots in there.items() if not slots),
        running=running,
        retrying=retrying,
        dead=dead,
        waiting={str(job): timedelta(milliseconds=now - offered) for job, offered in waiting or ()},
    )


def _unless_wrong(answers: Iterable[object]) -> None:
    for answer in answers:
        if isinstance(answer, RedisError):
            raise answer


def _announced(value: str) -> tuple[int, int]:
    """Slots and expiry. What is no announcement is one that has expired."""
    try:
        slots, expiry = map(int, value.split())
    except ValueError:
        return 0, 0
    return slots, expiry


def _key(what: str, action_type: ActionType, region: str) -> str:
    return f"dispatcher:{what}:{action_type.task_name}@{region}"


def _ms(duration: timedelta) -> int:
    return int(duration / timedelta(milliseconds=1))


def _answered(ask: Callable[[], T]) -> T:
    try:
        return ask()
    except RedisError as error:
        raise LedgerDown(type(error).__name__) from None
