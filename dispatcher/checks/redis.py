"""Whether Redis can hold the ledger, whether it would survive a crash, and what time it has."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from dispatcher.checks.clocks import ahead, compared
from dispatcher.checks.exposure import redis_exposed
from dispatcher.checks.report import Report, joined
from dispatcher.settings import PREFIX, Settings
from dispatcher.store.connection import connect, faults

VARIABLE: Final = f"{PREFIX}REDIS_URL"
LOSES: Final = (
    f"{VARIABLE}: a crash of this Redis loses jobs; set appendonly yes and appendfsync everysec."
)


def needed(given: Settings) -> Report:
    """What no process can do without."""
    return _asked(given, lambda client: Report(faults=tuple(faults(client))))


def whole(given: Settings) -> Report:
    """That, and all that can be said of it."""
    return _asked(given, _looked_at)


def _asked(given: Settings, look: Callable[[Redis], Report]) -> Report:
    if exposed := redis_exposed(given):
        return Report(faults=exposed)  # not even asked: the password would go there in clear
    try:
        with connect(given.redis_url.get_secret_value()) as client:
            return look(client)
    except (TypeError, ValueError):  # of an option after the address's question mark
        text = "its options are none that the client knows; correct what stands after the ?"
    except RedisError as error:
        text = f"Redis answered at first, then no more ({type(error).__name__}); look at its log"
    return Report(faults=(f"{VARIABLE}: {text}.",))


def _looked_at(client: Redis) -> Report:
    if wrong := faults(client):
        return Report(faults=tuple(wrong))
    server = client.info("server")
    name = "Valkey" if "valkey_version" in server else "Redis"
    version = server.get("valkey_version", server["redis_version"])
    answers = Report((f"{name} {version} answers, and evicts nothing.",))
    return joined([answers, _kept(client), compared("Redis's", _ahead(client))])


def _ahead(client: Redis) -> float:
    asked = time.time()
    seconds, micros = client.time()
    now = seconds + micros / 1e6
    return ahead(asked, time.time(), now, now)


def _kept(client: Redis) -> Report:
    """Services that run Redis for others may forbid either question."""
    try:
        told: Mapping[str, Any] = client.info("persistence")
    except ResponseError:
        told = {}
    if "aof_enabled" not in told:
        return Report(("Whether a crash of this Redis loses jobs is not known: it does not tell.",))
    synced = _synced(client) if told["aof_enabled"] else "no"
    if synced == "no":
        return Report(warnings=(LOSES, *unwritten(told)))
    how = f"appendfsync {synced}" if synced else "how often is not known: it forbids CONFIG GET"
    return Report((f"Redis writes an append-only file ({how}).",), warnings=unwritten(told))


def _synced(client: Redis) -> str:
    """Empty: it does not tell."""
    try:
        return str(client.config_get("appendfsync").get("appendfsync", ""))
    except ResponseError:
        return ""


def unwritten(told: Mapping[str, Any]) -> tuple[str, ...]:
    """Of INFO persistence: what Redis last failed to write."""
    files = {"aof_last_write_status": "append-only file", "rdb_last_bgsave_status": "snapshot"}
    return tuple(
        f"{VARIABLE}: this Redis could not write its {file} last; look at its log and its disk."
        for status, file in files.items()
        if told.get(status, "ok") != "ok"
    )
