"""One Redis client a process, and what a Redis must be to hold the ledger."""

from typing import Any

from redis import Redis
from redis.backoff import ConstantBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

ANSWER_WITHIN = 2.0  # seconds; redis-py's own 10 tries of 5 s would outlast a lease
OLDEST = (7, 0)
REFUSALS = frozenset({"AuthenticationError", "NoPermissionError", "ResponseError"})


def connect(url: str) -> Redis:
    """A client that tries a call twice, for two seconds each. Connects with the first call."""
    return Redis.from_url(
        url,
        decode_responses=True,
        socket_timeout=ANSWER_WITHIN,
        socket_connect_timeout=ANSWER_WITHIN,
        socket_keepalive=True,
        retry=Retry(ConstantBackoff(0.05), 1),
        retry_on_error=[RedisConnectionError, RedisTimeoutError],
    )


def faults(redis: Redis) -> list[str]:
    """What is wrong with this Redis, a sentence each with its remedy, and never its URL."""
    try:
        server: dict[str, Any] = redis.info("server")
        memory: dict[str, Any] = redis.info("memory")
    except RedisError as error:
        return [unanswered(type(error).__name__)]
    return [*_too_old(server), *_is_cluster(server), *_evicts(memory)]


def unanswered(error: str) -> str:
    """`error`: the name of redis-py's. The text of it may quote what it was given."""
    if error in REFUSALS:
        return (
            f"DISPATCHER_REDIS_URL: the Redis there refuses it ({error}); correct the user, the "
            "password or the database's number, or what that user may do."
        )
    remedy = "start one, or correct the address"
    return f"DISPATCHER_REDIS_URL: no Redis answers there ({error}); {remedy}."


def _too_old(server: dict[str, Any]) -> list[str]:
    if "valkey_version" in server:
        return []
    version = str(server["redis_version"])
    if tuple(int(part) for part in version.split(".")[:2]) >= OLDEST:
        return []
    return [f"DISPATCHER_REDIS_URL: this is Redis {version}; use Redis 7 or newer, or Valkey."]


def _is_cluster(server: dict[str, Any]) -> list[str]:
    if server.get("redis_mode") != "cluster":
        return []
    return [
        "DISPATCHER_REDIS_URL: this is a Redis Cluster; use one Redis, with replicas if need be."
    ]


def _evicts(memory: dict[str, Any]) -> list[str]:
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        return []
    return [
        f"DISPATCHER_REDIS_URL: this Redis may evict records (maxmemory-policy {policy}); "
        "set maxmemory-policy noeviction."
    ]
