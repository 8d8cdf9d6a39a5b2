"""Who is there to work, what is paused, whose turn it is to poll. What is lost renews itself.

dispatcher:slots:<provider>       hash: node -> "slots expiry", expiry in ms of Redis's clock
dispatcher:turn:<type>@<region>   string: who polls, with a TTL
dispatcher:asked:<type>@<region>  string: a poll message is on its way
dispatcher:rest:<type>@<region>   string: none may poll while it lives
dispatcher:pace:<type>@<region>   string: how long the type rested last, in ms
dispatcher:paused                 set of providers; the one key here that has no TTL"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TypeVar

from redis import Redis
from redis.exceptions import RedisError

from dispatcher.engine.model import Crew, LedgerDown
from dispatcher.engine.ports import Turn
from dispatcher.engine.times import Times
from dispatcher.sdk import ActionType

T = TypeVar("T")

SLOTS = "dispatcher:slots:"
PAUSED = "dispatcher:paused"
ANNOUNCE = timedelta(seconds=5)
GONE = 3 * ANNOUNCE  # without an announcement; a leaving worker withdraws at once
PACE_KEPT = timedelta(minutes=10)


class RedisFleet:
    def __init__(self, redis: Redis, times: Times) -> None:
        self._redis = redis
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

    def workers(self) -> dict[str, dict[str, int]]:
        """By provider: the slots of each worker that announced itself lately."""

        def ask() -> dict[str, dict[str, int]]:
            now, found = self._now(), {}
            for key in self._redis.scan_iter(f"{SLOTS}*", count=1000):
                told = {str(n): _announced(str(v)) for n, v in self._redis.hgetall(key).items()}
                alive = {node: slots for node, (slots, expiry) in told.items() if expiry > now}
                found[str(key).removeprefix(SLOTS)] = alive
            return found

        return _answered(ask)

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

    def _now(self) -> int:
        seconds, micros = self._redis.time()
        return seconds * 1000 + micros // 1000

    def withdraw(self, node: str, providers: Sequence[str]) -> None:
        def tell() -> None:
            pipe = self._redis.pipeline(transaction=False)
            for provider in providers:
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
            pipe.execute()

        _answered(tell)


def _alive(workers: Mapping[str, str], now: int) -> int:
    announced = map(_announced, workers.values())
    return sum(slots for slots, expiry in announced if expiry > now)


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
