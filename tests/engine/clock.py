"""The one time of a test. Redis's own clock cannot be moved: the times that it holds are."""

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from redis import Redis

LOOK = 0.5  # seconds between two looks of the leases' thread

# Everything that tells a time moves into the past; what then has no time left is gone.
SHIFT = """
local by = tonumber(ARGV[1])
local times = {'offered', 'publish_at', 'lease', 'deadline', 'finished', 'last', 'blind'}
for _, key in ipairs(redis.call('KEYS', 'dispatcher:*')) do
  local kind = redis.call('TYPE', key).ok
  if kind == 'hash' and not string.find(key, ':slots:') then
    for _, name in ipairs(times) do
      local value = redis.call('HGET', key, name)
      if value then redis.call('HSET', key, name, string.format('%.0f', value - by)) end
    end
  elseif kind == 'zset' then
    local scored = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    for i = 1, #scored, 2 do
      redis.call('ZADD', key, string.format('%.0f', scored[i + 1] - by), scored[i])
    end
  end
  local left = redis.call('PTTL', key)
  if left > 0 and not string.find(key, ':slots:') then redis.call('PEXPIRE', key, left - by) end
end
"""


class Clock:
    def __init__(self, redis: Redis) -> None:
        self._ms = 0
        self._behind = 0  # by how much Redis's times are to be moved yet
        self._shift = redis.register_script(SHIFT)
        self.watched: Callable[[], bool] = lambda: False
        self.look: Callable[[], None] = lambda: None
        self.wait: Callable[[float], None] = self.advance  # what a sleeping process does
        self._at: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()

    def monotonic(self) -> float:
        return 1000 + self._ms / 1000

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(milliseconds=self._ms)

    def sleep(self, seconds: float) -> None:
        self.wait(seconds)

    def after(self, seconds: float, step: Callable[[], object]) -> None:
        """Something that happens while somebody waits."""
        self._at.append((self.monotonic() + seconds, next(self._order), step))
        self._at.sort(key=lambda one: one[:2])

    def advance(self, seconds: float) -> None:
        until = self._ms + max(round(seconds * 1000), 1)
        while self._ms < until:
            step = round(LOOK * 1000) if self.watched() or self._at else until - self._ms
            self._move(min(step, until - self._ms))
            while self._at and self._at[0][0] <= self.monotonic():
                self._at.pop(0)[2]()
            self.look()

    def move_redis(self) -> None:
        if self._behind:
            by, self._behind = self._behind, 0
            self._shift(args=[by])

    def _move(self, ms: int) -> None:
        self._ms += ms
        self._behind += ms


class MovedRedis(Redis):
    """Looks at Redis's times only after they were moved."""

    def __init__(self, redis: Redis, clock: Clock) -> None:
        super().__init__(connection_pool=redis.connection_pool)
        self._clock = clock

    def execute_command(self, *args: Any, **options: Any) -> Any:
        self._clock.move_redis()
        return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    def pipeline(self, transaction: Any = True, shard_hint: Any = None) -> Any:
        self._clock.move_redis()
        return super().pipeline(transaction, shard_hint)
