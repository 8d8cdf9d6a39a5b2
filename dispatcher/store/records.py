"""The ledger's records as an operator sees them: read here, written by the ledger alone.

What AWS hands out to begin or continue a job with is in a record, and is not shown."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from redis import Redis

from dispatcher.engine.model import JOB_ID, JobRef, action_type

PREFIX = "dispatcher:job:"


class State(StrEnum):
    """What an operator asks about; the ledger's four states, its dead letters, its damage."""

    WAITING = "waiting"  # for a worker to begin it
    RUNNING = "running"
    RETRY = "retry"  # waits to be run again
    FINISHED = "finished"  # its result is to be put
    REPORTED = "reported"
    DEAD = "dead"  # AWS refused its result for good
    DAMAGED = "damaged"  # nobody acts on it


@dataclass(frozen=True)
class Record:
    """`ref` is None for a damaged record. `outcome` and `message` are of the stored result.

    `lease`: an aware instant; who holds the job has it until then, or a Retry is due.
    """

    job_id: str
    state: State
    ref: JobRef | None = None
    attempt: int = 0
    worker: str = ""
    lease: datetime | None = None
    outcome: str = ""
    message: str = ""
    percent: int | None = None
    note: str = ""

    def shown(self) -> dict[str, Any]:
        """As JSON."""
        ref = self.ref
        return {
            "job": self.job_id,
            "state": self.state.value,
            "type": ref.type.task_name if ref else None,
            "client": ref.client_id if ref else None,
            "region": ref.region if ref else None,
            "attempt": self.attempt,
            "worker": self.worker,
            "lease": self.lease.isoformat(timespec="seconds") if self.lease else None,
            "outcome": self.outcome,
            "message": self.message,
            "percent": self.percent,
            "note": self.note,
        }


@dataclass(frozen=True)
class Step:
    """One line of a job's life, oldest first."""

    at: datetime
    event: str
    detail: str


class Records:
    """Raises redis-py's RedisError."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def all(self) -> Iterator[Record]:
        """Every record there is, in no order; those made or removed meanwhile may be missed."""
        for key in self._redis.scan_iter(f"{PREFIX}*", count=1000):
            job_id = str(key).removeprefix(PREFIX)
            if not job_id.endswith(":timeline") and (record := self.one(job_id)):
                yield record

    def one(self, job_id: str) -> Record | None:
        if not JOB_ID.fullmatch(job_id):
            return None
        key = PREFIX + job_id
        if self._redis.type(key) not in {"hash", "none"}:
            return Record(job_id, State.DAMAGED)
        try:
            fields = self._redis.hgetall(key)
        except UnicodeDecodeError:
            return Record(job_id, State.DAMAGED)
        told = {str(name): str(value) for name, value in fields.items()}
        return _record(job_id, told) if told else None

    def life(self, job_id: str) -> list[Step]:
        key = f"{PREFIX}{job_id}:timeline"
        if self._redis.type(key) != "list":
            return []
        lines = [json.loads(str(line)) for line in self._redis.lrange(key, 0, -1)]
        return [Step(_instant(at), event, detail) for at, event, detail in lines]


def _record(job_id: str, fields: Mapping[str, str]) -> Record:
    if fields.get("v") != "1":
        return Record(job_id, State.DAMAGED)  # or of a newer release
    try:
        ref = JobRef(
            job_id, fields.get("client"), action_type(fields["type"]), str(fields["region"])
        )
        verdict: dict[str, Any] = json.loads(fields.get("verdict") or "{}")
        return Record(
            job_id,
            _state(fields),
            ref,
            attempt=int(fields.get("attempt", 0)),
            worker=fields.get("owner", "").partition("/")[0],
            lease=_instant(int(fields["lease"])) if int(fields.get("lease", 0)) else None,
            outcome=verdict.get("kind", ""),
            message=verdict.get("message", ""),
            percent=int(fields["percent"]) if "percent" in fields else None,
            note=fields.get("note", ""),
        )
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        return Record(job_id, State.DAMAGED)


def _state(fields: Mapping[str, str]) -> State:
    if fields.get("dead"):
        return State.DEAD
    if fields["state"] == "queued":
        return State.WAITING if fields.get("ack", "no") == "no" else State.RETRY
    return State(fields["state"])


def _instant(milliseconds: float) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
