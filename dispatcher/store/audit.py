"""What operators did: when, who, what and to which; the newest thousand, for 90 days.

dispatcher:audit  list of [time in ms of Redis's clock, who, act, subject], newest first"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from redis import Redis

KEY: Final = "dispatcher:audit"
MOST: Final = 1_000
KEPT: Final = timedelta(days=90)


@dataclass(frozen=True)
class Act:
    at: datetime
    who: str
    act: str
    subject: str


class Audit:
    """Raises redis-py's RedisError."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def add(self, who: str, act: str, subject: str) -> None:
        seconds, micros = self._redis.time()
        pipe = self._redis.pipeline(transaction=True)
        pipe.lpush(KEY, json.dumps([seconds * 1000 + micros // 1000, who, act, subject]))
        pipe.ltrim(KEY, 0, MOST - 1)
        pipe.pexpire(KEY, KEPT)
        pipe.execute()

    def acts(self) -> list[Act]:
        """Newest first. What is none of ours is passed over."""
        return [act for line in self._redis.lrange(KEY, 0, -1) if (act := _act(str(line)))]


def _act(line: str) -> Act | None:
    try:
        at, who, act, subject = json.loads(line)
        return Act(datetime.fromtimestamp(at / 1000, UTC), str(who), str(act), str(subject))
    except (OSError, OverflowError, TypeError, ValueError):
        return None
