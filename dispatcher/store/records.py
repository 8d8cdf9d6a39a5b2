"""The ledger's records as people see them: read here, written by the ledger alone.

What AWS hands out to begin or continue a job with is in a record, and is not shown."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import islice
from typing import Any, Final

from redis import Redis

from dispatcher.engine.model import JOB_ID, JobRef, action_type
from dispatcher.sdk import Pipeline

PREFIX: Final = "dispatcher:job:"
HISTORY: Final = "dispatcher:history"
HISTORY_MOST: Final = 10_000  # its length
LIVE: Final = ("index", "resting", "waiting", "dead")
AT_ONCE: Final = 500  # records a round trip
MOST: Final = 1_000  # of a provider and kind: more than anybody reads


class State(StrEnum):
    """What an operator asks about; the ledger's four states, its dead letters, its damage."""

    WAITING = "waiting"  # for a worker to begin it
    RUNNING = "running"
    RETRY = "retry"  # waits to be run again
    FINISHED = "finished"  # its result is to be put
    REPORTED = "reported"
    DEAD = "dead"  # AWS refused its result for good
    DAMAGED = "damaged"  # nobody acts on it


FAILED = "failed"  # to ask for, beside the states: what failed, in whatever state


@dataclass(frozen=True)
class Record:
    """`ref` is None for a damaged record. `outcome`, `failure` (AWS's type of it) and `message` are
    of the stored result.

    `lease`: an aware instant; who holds the job has it until then, or a Retry is due. `since`: when
    it was first offered; `ended`: when AWS had its result, known of the history alone.
    """

    job_id: str
    state: State
    ref: JobRef | None = None
    attempt: int = 0
    worker: str = ""
    lease: datetime | None = None
    outcome: str = ""
    failure: str = ""
    message: str = ""
    percent: int | None = None
    note: str = ""
    since: datetime | None = None
    ended: datetime | None = None
    pipeline: Pipeline | None = None

    @property
    def failed(self) -> bool:
        """AWS was told a failure, or is to be."""
        return self.outcome == "failure"

    def shown(self) -> dict[str, Any]:
        """As JSON."""
        ref, pipeline = self.ref, self.pipeline
        return {
            "job": self.job_id,
            "state": self.state.value,
            "type": ref.type.task_name if ref else None,
            "client": ref.client_id if ref else None,
            "region": ref.region if ref else None,
            "pipeline": pipeline.name if pipeline else None,
            "stage": pipeline.stage if pipeline else None,
            "action": pipeline.action if pipeline else None,
            "since": _iso(self.since),
            "attempt": self.attempt,
            "worker": self.worker,
            "lease": _iso(self.lease),
            "outcome": self.outcome,
            "failure": self.failure,
            "message": self.message,
            "percent": self.percent,
            "note": self.note,
        }


@dataclass(frozen=True)
class Wanted:
    """Which records are asked for; an empty text asks for any. A damaged one is of any provider.

    `state`: a State's value, or FAILED.
    `job` is how the id begins; `text` stands somewhere in what is known, in any case of letters.
    """

    job: str = ""
    provider: str = ""
    client: str = ""
    state: str = ""
    text: str = ""

    def takes(self, record: Record) -> bool:
        ref = record.ref
        return (
            record.job_id.startswith(self.job)
            and (self.state in {"", record.state.value} or (self.state == FAILED and record.failed))
            and (ref is None or self.provider in {"", ref.type.provider})
            and self.client in {"", (ref and ref.client_id) or ""}
            and self.text.casefold() in _words(record)
        )


@dataclass(frozen=True)
class Step:
    """One line of a job's life, oldest first."""

    at: datetime
    event: str
    detail: str


def span(duration: timedelta) -> str:
    """For people, in two units: 8s, 3m 12s, 2h 05m, 4d 3h."""
    seconds = max(int(duration.total_seconds()), 0)
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days:
        return f"{days}d {hours % 24}h"
    if hours:
        return f"{hours}h {minutes % 60:02d}m"
    return f"{minutes}m {seconds % 60:02d}s" if minutes else f"{seconds}s"


class Records:
    """Raises redis-py's RedisError."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def all(self) -> Iterator[Record]:
        """Every record there is, in no order; those made or removed meanwhile may be missed."""
        keys = map(str, self._redis.scan_iter(f"{PREFIX}*", count=1000))
        ids = (key.removeprefix(PREFIX) for key in keys if not key.endswith(":timeline"))
        while batch := list(islice(ids, AT_ONCE)):
            yield from self._read(batch)

    def live(self, providers: Iterable[str]) -> list[Record]:
        """What AWS has no result of yet, dead letters with it: the lists know, without a scan."""
        pipe = self._redis.pipeline(transaction=False)
        for provider in providers:
            for kind in LIVE:
                pipe.zrange(f"dispatcher:{kind}:{provider}", 0, MOST - 1)
        found = pipe.execute(raise_on_error=False)
        ids = [str(job) for jobs in found if isinstance(jobs, list) for job in jobs]
        at_once = range(0, len(ids), AT_ONCE)
        return [one for at in at_once for one in self._read(ids[at : at + AT_ONCE])]

    def ended(self, most: int) -> list[Record]:
        """The newest of those that AWS has a result of, or will not take, newest first."""
        if self._redis.type(HISTORY) != "list":
            return []
        lines = self._redis.lrange(HISTORY, 0, most - 1)
        return [one for line in lines if (one := _ended(str(line)))]

    def one(self, job_id: str) -> Record | None:
        if not JOB_ID.fullmatch(job_id):
            return None
        return next(iter(self._read([job_id])), None)

    def verdict(self, job_id: str) -> Mapping[str, Any] | None:
        """What AWS was told, or is to be told, without a continuation token; None: nothing yet."""
        key = PREFIX + job_id
        if self._redis.type(key) != "hash":
            return None
        try:
            # A dead letter that is put again may have another verdict than AWS refused.
            verdict, told = self._redis.hmget(key, ["verdict", "told"])
            stored = json.loads(str(verdict or told))
        except ValueError:  # neither, or nothing that can be read
            return None
        if not isinstance(stored, dict):
            return None
        return {name: value for name, value in stored.items() if name not in {"token", "ours"}}

    def life(self, job_id: str) -> list[Step]:
        key = f"{PREFIX}{job_id}:timeline"
        if self._redis.type(key) != "list":
            return []
        try:
            lines = [json.loads(str(line)) for line in self._redis.lrange(key, 0, -1)]
            return [Step(_instant(at), event, detail) for at, event, detail in lines]
        except (TypeError, ValueError):  # nobody's but an accident's
            return []

    def _read(self, ids: Sequence[str]) -> list[Record]:
        """Those that are there, damaged ones as such."""
        pipe = self._redis.pipeline(transaction=False)
        for job_id in ids:
            pipe.hgetall(PREFIX + job_id)
        try:
            found = pipe.execute(raise_on_error=False)
        except UnicodeDecodeError:  # of one of them; the connection is of no use any more
            if len(ids) == 1:
                return [Record(ids[0], State.DAMAGED)]
            half = len(ids) // 2
            return self._read(ids[:half]) + self._read(ids[half:])
        each = zip(ids, found, strict=True)
        return [_record(job_id, fields) for job_id, fields in each if fields]


def _record(job_id: str, fields: object) -> Record:
    if not isinstance(fields, Mapping) or fields.get("v") != "1":
        return Record(job_id, State.DAMAGED)  # no hash, or of a newer release
    try:
        return _readable(job_id, {str(name): str(value) for name, value in fields.items()})
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        return Record(job_id, State.DAMAGED)


def _readable(job_id: str, fields: Mapping[str, str]) -> Record:
    kind = action_type(fields["type"])
    verdict: dict[str, Any] = json.loads(fields.get("verdict") or fields.get("told") or "{}")
    return Record(
        job_id,
        _state(fields),
        JobRef(job_id, fields.get("client"), kind, str(fields["region"])),
        attempt=int(fields.get("attempt", 0)),
        worker=fields.get("owner", "").partition("/")[0],
        lease=_instant(int(fields["lease"])) if int(fields.get("lease", 0)) else None,
        outcome=verdict.get("kind", "") if "verdict" in fields else fields.get("outcome", ""),
        failure=verdict.get("failure_type") or "",
        message=verdict.get("message", ""),
        percent=int(fields["percent"]) if "percent" in fields else None,
        note=fields.get("note", ""),
        since=_instant(int(fields["since"])) if "since" in fields else None,
        pipeline=_pipeline(fields.get("pipeline")),
    )


def _ended(line: str) -> Record | None:
    """None: a line that this release cannot read."""
    try:
        told = json.loads(line)
        kind, since = action_type(told["type"]), told.get("since")
        return Record(
            told["job"],
            State.DEAD if told["outcome"] == "dead" else State.REPORTED,
            JobRef(told["job"], told.get("client"), kind, told["region"]),
            attempt=told.get("attempt", 0),
            worker=told.get("worker", ""),
            outcome=told["outcome"],
            message=told.get("message", ""),
            since=_instant(int(since)) if since else None,
            ended=_instant(told["at"]),
            pipeline=_pipeline(told.get("pipeline")),
        )
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        return None


def _state(fields: Mapping[str, str]) -> State:
    if fields.get("dead"):
        return State.DEAD
    if fields["state"] == "queued":
        return State.WAITING if fields.get("ack", "no") == "no" else State.RETRY
    return State(fields["state"])


def _pipeline(stored: str | None) -> Pipeline | None:
    if stored is None:
        return None
    told = json.loads(stored)
    return Pipeline(**{field.name: told.get(field.name) for field in fields(Pipeline)})


def _words(record: Record) -> str:
    return "\n".join(str(value) for value in record.shown().values() if value).casefold()


def _iso(at: datetime | None) -> str | None:
    return at.isoformat(timespec="seconds") if at else None


def _instant(milliseconds: float) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
