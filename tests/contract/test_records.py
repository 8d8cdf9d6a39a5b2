"""Two releases share a ledger while a deploy rolls: stored samples of what each release writes.

`records/<release>.json` is what that release left in Redis, times told from then. A release that
writes something new adds its own file, and leaves the others."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from dispatcher.broker import message
from dispatcher.engine.model import (
    Ack,
    Beat,
    Begun,
    Claim,
    Done,
    Dropped,
    How,
    JobRef,
    Kind,
    Store,
    Verdict,
    action_type,
)
from dispatcher.engine.times import Times
from dispatcher.store.ledger import RedisLedger
from dispatcher.store.records import Records, State

SAMPLES = sorted(Path(__file__).with_name("records").glob("*.json"))
HOUR = timedelta(hours=1)
WELL = Verdict(Kind.SUCCESS, "well")
GONE_BY = -10_000  # ms: whoever held it is silent


class Alarms(list[str]):
    def __call__(self, key: str, _why: str) -> None:
        self.append(key)


@pytest.fixture
def alarms() -> Alarms:
    return Alarms()


@pytest.fixture
def ledger(redis: Redis, alarms: Alarms) -> RedisLedger:
    return RedisLedger(redis, Times(), alarms)


@pytest.fixture(params=SAMPLES, ids=lambda path: path.stem)
def sample(request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(request.param.read_text())
    return found


def put(redis: Redis, name: str, fields: dict[str, Any], *, lease: int | None = None) -> JobRef:
    """As it stood then; `lease`: its end from now, in ms, where it is another."""
    seconds, micros = redis.time()
    now = seconds * 1000 + micros // 1000
    told: dict[Any, Any] = {
        field: str(now + value["from now"]) if isinstance(value, dict) else value
        for field, value in fields.items()
    }
    if lease is not None:
        told["lease"] = str(now + lease)
    redis.hset(f"dispatcher:job:{name}", mapping=told)
    return JobRef(name, told.get("client"), action_type(told["type"]), told["region"])


def of_tomorrow(fields: dict[str, Any]) -> dict[str, Any]:
    """What a later release may have written: fields that this one does not know."""
    more = dict(fields) | {"colour": "blue", "later": "[1]"}
    for name in ("verdict", "begun"):
        if name in more:
            more[name] = json.dumps(json.loads(more[name]) | {"colour": "blue"})
    return more


@pytest.mark.parametrize("form", [dict, of_tomorrow], ids=["as it is", "with more"])
@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("queued", How.FRESH),
        ("begun", How.INHERITED),
        ("begun-custom", How.INHERITED),
        ("running", How.ACKED),
        ("retry", How.AGAIN),
        ("finished", How.SEND),
    ],
)
def test_an_heir_takes_over(
    sample: Any, redis: Redis, ledger: RedisLedger, alarms: Alarms, name: str, how: How, form: Any
) -> None:
    ref = put(redis, name, form(sample[name]), lease=None if name == "queued" else GONE_BY)

    begun = ledger.begin(ref, "celery@heir/task/ffff0000", "nonce-2", None)

    assert isinstance(begun, Begun)
    assert begun.how is how
    assert begun.ack is (Ack.NO if how in {How.FRESH, How.INHERITED} else Ack.SURE)
    assert begun.tried == (frozenset({"nonce-1"}) if how is How.INHERITED else frozenset())
    if how is How.SEND:
        assert begun.verdict == Verdict(
            Kind.CONTINUE, "half", external_id="run-7", percent=50, token="token-1"
        )
    assert alarms == []


@pytest.mark.parametrize("form", [dict, of_tomorrow], ids=["as it is", "with more"])
def test_its_owner_goes_on(
    sample: Any, redis: Redis, ledger: RedisLedger, alarms: Alarms, form: Any
) -> None:
    """Another release's sweep or poll has touched the record meanwhile."""
    ref = put(redis, "running", form(sample["running"]))
    claim = Claim(ref, sample["running"]["owner"], 1, Ack.SURE, starts=1)

    assert not ledger.heartbeat([Beat(claim, HOUR, 60)])
    assert ledger.finish(claim, Store(WELL))
    assert ledger.finish(claim, Done(accepted=True, outcome="success"))
    assert alarms == []


@pytest.mark.parametrize("name", ["dead", "reported"])
def test_what_is_over_stays_so(sample: Any, redis: Redis, ledger: RedisLedger, name: str) -> None:
    ref = put(redis, name, sample[name])

    assert ledger.offer("poll-9", ledger.now(), {ref: None}) == []
    assert isinstance(ledger.begin(ref, "celery@heir/task/ffff0000", None, None), Dropped)


def test_an_operator_sees_each(sample: Any, redis: Redis) -> None:
    for name, fields in sample.items():
        put(redis, name, fields)

    seen = {record.job_id: record.state for record in Records(redis).all()}

    assert seen == {
        "queued": State.WAITING,
        "begun": State.RUNNING,
        "begun-custom": State.RUNNING,
        "running": State.RUNNING,
        "retry": State.RETRY,
        "finished": State.FINISHED,
        "dead": State.DEAD,
        "reported": State.REPORTED,
    }


def test_a_message_says_what_every_release_reads() -> None:
    ref = JobRef("job-1", "client-1", action_type("ThirdParty.Deploy.Acme.1"), "eu-west-1")

    assert message(ref) == {"job": "job-1", "client": "client-1", "region": "eu-west-1"}


def test_this_release_writes_what_its_sample_shows(redis: Redis, ledger: RedisLedger) -> None:
    """Else the newest sample is no longer true: a release that writes more adds a file."""
    newest = json.loads(SAMPLES[-1].read_text())
    ref = JobRef("running", "client-1", action_type("ThirdParty.Deploy.Acme.1"), "eu-west-1")
    ledger.offer("poll-1", ledger.now(), {ref: None})
    begun = ledger.begin(ref, "celery@host/task-running/0a1b2c3d", "nonce-1", None)
    assert isinstance(begun, Begun)
    claim = replace(begun.claim("celery@host/task-running/0a1b2c3d"), ack=Ack.SURE, starts=1)
    ledger.heartbeat([Beat(claim, HOUR, 40, "uploading")])

    written = redis.hgetall("dispatcher:job:running")

    assert written.keys() == newest["running"].keys()
    begun_with = json.loads(str(written["begun"])).keys()
    assert begun_with == json.loads(newest["running"]["begun"]).keys()
