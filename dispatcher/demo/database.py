"""A database on the user's own Redis: an empty one is taken for the demo, and left empty again.

Nothing is flushed, and no database that holds anything else is touched: a live fleet's workers
would take the demo's jobs, and the demo's workers the fleet's."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

from redis import Redis
from redis.exceptions import RedisError

from dispatcher.demo.processes import DemoError
from dispatcher.store.connection import connect, faults

MARK = "dispatcher:demo"  # whose database it is: "host pid"
MOST = 15  # Redis has 16 unless told otherwise
# All that the dispatcher, Celery and kombu write, for the case that somebody else came meanwhile.
OURS = (
    "dispatcher", "dispatcher:*", "provider.*",
    "_kombu.*", "unacked*", "*celery.pidbox", "celeryev.*",
)  # fmt: skip


@contextmanager
def borrowed(url: str) -> Iterator[str]:
    """The URL of the database. Raises DemoError."""
    if urlsplit(url).scheme not in {"redis", "rediss"}:
        raise DemoError("DISPATCHER_REDIS_URL: the demo needs redis://HOST:PORT/DB or rediss://.")
    taken = _take(url)
    try:
        yield taken
    finally:
        with connect(taken) as redis:
            _clear(redis)


def number(url: str) -> int:
    path = urlsplit(url).path.strip("/")
    return int(path) if path.isdecimal() else 0


def _take(url: str) -> str:
    with connect(url) as redis:
        if wrong := faults(redis):
            raise DemoError("\n".join(wrong))
    given = number(url)
    for database in (given, *(other for other in range(MOST, -1, -1) if other != given)):
        candidate = urlunsplit(urlsplit(url)._replace(path=f"/{database}"))
        if _taken(candidate):
            return candidate
    raise DemoError("DISPATCHER_REDIS_URL: no database of this Redis is empty; the demo needs one.")


def _taken(url: str) -> bool:
    with connect(url) as redis:
        try:
            if _left_behind(redis):
                _clear(redis)
            return not redis.dbsize() and bool(redis.set(MARK, _me(os.getpid()), nx=True))
        except RedisError:
            return False  # it has fewer databases than most


def _left_behind(redis: Redis) -> bool:
    """By a demo of this machine that was killed."""
    mark = redis.get(MARK)
    if not isinstance(mark, str):
        return False
    host, _, pid = mark.rpartition(" ")
    return host == socket.gethostname() and not _runs(int(pid))


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _me(pid: int) -> str:
    return f"{socket.gethostname()} {pid}"


def _clear(redis: Redis) -> None:
    for pattern in OURS:
        for key in redis.scan_iter(pattern, count=1000):
            redis.unlink(key)
