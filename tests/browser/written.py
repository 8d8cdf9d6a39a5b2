"""Records written straight into a test's own Redis: also what AWS and the emulator would refuse."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis import Redis

LATER = 3_600_000  # milliseconds: nobody looks at these records before
ARN = "arn:aws:codepipeline:eu-west-1:111122223333:"


@dataclass(frozen=True)
class Written:
    """One record. `list` is the ledger's: index, resting, waiting or dead; "": history alone."""

    job_id: str
    state: str = "running"
    kind: str = "ThirdParty.Deploy.AcmeDeploy.1"
    list: str = "index"
    client: str | None = "tenant-a"
    age: float = 60.0
    fields: Mapping[str, object] = field(default_factory=dict)
    pipeline: Mapping[str, object] | None = None
    verdict: Mapping[str, object] | None = None
    told: Mapping[str, object] | None = None
    life: Sequence[tuple[str, str]] = ()


def write(redis: Redis, *records: Written) -> None:
    for record in records:
        _write(redis, record)


def _write(redis: Redis, one: Written) -> None:
    now = _now()
    record: Any = {
        "v": "1",
        "type": one.kind,
        "region": "eu-west-1",
        "state": one.state,
        "since": int(now - one.age * 1000),
        "lease": now + LATER,
        "attempt": 1,
        "ack": "sure",
        **one.fields,
    }
    if one.client is not None:
        record["client"] = one.client
    for name in ("pipeline", "verdict", "told"):
        if (value := getattr(one, name)) is not None:
            record[name] = json.dumps(value)
    redis.hset(f"dispatcher:job:{one.job_id}", mapping=record)
    for number, (event, detail) in enumerate(one.life):
        at = now - one.age * 1000 + number * 250
        redis.rpush(f"dispatcher:job:{one.job_id}:timeline", json.dumps([at, event, detail]))
    if one.list:
        provider = one.kind.split(".")[2]
        redis.zadd(f"dispatcher:{one.list}:{provider}", {one.job_id: now + LATER})


def write_ended(
    redis: Redis, job_id: str, outcome: str, message: str, ago: float = 60, **more: object
) -> None:
    """A line of the history, whose record is gone."""
    line = {
        "at": _now() - ago * 1000,
        "job": job_id,
        "type": "ThirdParty.Deploy.AcmeDeploy.1",
        "client": "tenant-a",
        "region": "eu-west-1",
        "outcome": outcome,
        "attempt": 1,
        "worker": "acme1@host-a",
        "since": _now() - ago * 1000 - 42_000,
        "message": message,
        **more,
    }
    if "pipeline" in line:
        line["pipeline"] = json.dumps(line["pipeline"])  # as the record has it
    redis.rpush("dispatcher:history", json.dumps(line))


def announce(redis: Redis, provider: str, workers: Mapping[str, int]) -> None:
    redis.sadd("dispatcher:providers", provider)
    slots: Any = {node: f"{slots} {_now() + LATER}" for node, slots in workers.items()}
    if slots:
        redis.hset(f"dispatcher:slots:{provider}", mapping=slots)


def place(pipeline: str, stage: str = "Prod", action: str = "Deploy", **more: object) -> Any:
    return {"name": pipeline, "stage": stage, "action": action, **more}


def _now() -> int:
    return int(time.time() * 1000)
