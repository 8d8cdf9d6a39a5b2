"""The ledger port over `ledger.lua`: values to one JSON argument a script, and answers back.

What the facts mean is not decided here, nor in Lua: engine.lifecycle does that."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from dispatcher.engine.model import (
    Ack,
    Again,
    Arm,
    Beat,
    Begun,
    Claim,
    Dead,
    Done,
    Dropped,
    How,
    JobRef,
    Kind,
    LedgerDown,
    Overdue,
    Park,
    Release,
    Store,
    Verdict,
    action_type,
)
from dispatcher.engine.times import Times
from dispatcher.metrics import Tally
from dispatcher.sdk import ActionType, Pipeline

HEADLINE = 300  # characters of a message that the history keeps
Facts = dict[str, Any]


def milliseconds(duration: timedelta) -> int:
    return int(duration / timedelta(milliseconds=1))


def duration(ms: float) -> timedelta:
    return timedelta(milliseconds=ms)


class RedisLedger:
    """`Ledger` on one Redis. Every script runs alone there, so each step is atomic.

    `damaged` is told the key of what cannot be read, and why: only an operator acts on that.
    `counts` are taken along by each step.
    """

    def __init__(
        self,
        redis: "Redis",
        times: Times,
        damaged: Callable[[str, str], None] = lambda _key, _why: None,
        counts: Tally | None = None,
    ) -> None:
        self._redis = redis
        self._damaged = damaged
        self._counts = counts or Tally()
        prelude, scripts = _sources()
        self._scripts = {name: redis.register_script(prelude + body) for name, body in scripts}
        self._fresh = milliseconds(times.fresh)
        self._window = milliseconds(times.ack_window)
        self._lease = milliseconds(times.lease)
        self._sweep = milliseconds(times.sweep_interval)

    def now(self) -> datetime:
        seconds, micros = self._reached(self._redis.time)
        return datetime.fromtimestamp(seconds + micros / 1_000_000, UTC)

    def offer(
        self, poll_id: str, asked: datetime, offers: Mapping[JobRef, str | None]
    ) -> Sequence[JobRef]:
        rows = [_reference(ref) | _given(nonce=nonce) for ref, nonce in offers.items()]
        answer = self._run(
            "offer",
            poll=poll_id,
            asked=int(asked.timestamp() * 1000),
            fresh=self._fresh,
            offers=rows,
        )
        wanted = set(answer["jobs"])
        return [ref for ref in offers if ref.job_id in wanted]

    def begin(
        self,
        ref: JobRef,
        owner: str,
        nonce: str | None,
        only: frozenset[How] | None,
        pipeline: Pipeline | None = None,
    ) -> Begun | Dropped:
        kinds = None if only is None else {how.value: True for how in only}
        known = None if pipeline is None else _text(asdict(pipeline))
        given = _given(nonce=nonce, only=kinds, pipeline=known)
        answer = self._run(
            "begin",
            **_reference(ref),
            owner=owner,
            window=self._window,
            fresh=self._fresh,
            **given,
        )
        if "drop" in answer:
            return Dropped(answer["drop"])
        try:
            return _begun(ref, answer)
        except (KeyError, TypeError, ValueError):
            # Its lease ends, and a worker of that release begins it.
            why = "written by another release, which this one cannot read"
            self._damaged(f"dispatcher:job:{ref.job_id}", why)
            return Dropped(why)

    def heartbeat(self, beats: Sequence[Beat]) -> frozenset[str]:
        rows = [_beat(beat) for beat in beats]
        return frozenset(self._run("heartbeat", lease=self._lease, beats=rows)["lost"])

    def finish(self, claim: Claim, arm: Arm) -> bool:
        answer = self._run("finish", **_claim(claim), lease=self._lease, **_arm(arm))
        return bool(answer["ok"])

    def release(self, job_id: str, owner: str, arm: Release) -> Overdue | None:
        """As `finish`, for any delivery whose owner begins with `owner`; says what is to follow."""
        given = _arm(arm)
        facts = self._run("finish", job=job_id, owner=owner, lease=self._lease, **given)
        return _overdue(facts["facts"]) if facts["ok"] else None

    def overrule(self, ref: JobRef, arm: Release | Dead | Store) -> bool:
        """An operator's finish of a job whose lease is over; False where there is none such."""
        given = _claim(Claim(ref, owner="operator")) | _arm(arm)
        return bool(self._run("finish", **given, operator=True, lease=self._lease)["ok"])

    def due(self, types: Sequence[ActionType], limit: int) -> Sequence[Overdue]:
        known: dict[str, dict[str, bool]] = {}
        for one in types:
            known.setdefault(one.provider, {})[one.task_name] = True
        answer = self._run(
            "due",
            types=known,
            limit=limit,
            fresh=self._fresh,
            lease=self._lease,
            sweep=self._sweep,
        )
        return [_overdue(facts) for facts in answer["jobs"]]

    def nonce(self, job_id: str) -> str | None:
        found = self._reached(lambda: self._redis.hget(f"dispatcher:job:{job_id}", "nonce"))
        return found if isinstance(found, str) else None

    def _run(self, name: str, **arguments: Any) -> Facts:
        counted = self._counts.take()
        given = [_text(arguments | _given(counts=counted or None))]
        try:
            answer: Facts = json.loads(self._reached(lambda: self._scripts[name](args=given)))
        except LedgerDown:
            self._counts.put_back(counted)
            raise
        for key, why in answer.pop("damaged", ()):
            self._damaged(key, why)
        return answer

    def _reached(self, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except (RedisError, ValueError) as error:  # of an answer that is no text, too
            # Only the type: a script error's text can quote what it was given.
            raise LedgerDown(type(error).__name__) from None


def _sources() -> tuple[str, list[tuple[str, str]]]:
    text = files("dispatcher.store").joinpath("ledger.lua").read_text("utf-8")
    prelude, *parts = re.split(r"^--- (\w+):.*\n", text, flags=re.MULTILINE)
    return prelude, list(zip(parts[::2], parts[1::2], strict=True))


def _given(**values: Any) -> Facts:
    """Lua's JSON reader turns null into a value that is true: what is not there is left out."""
    return {name: value for name, value in values.items() if value is not None}


def _reference(ref: JobRef) -> Facts:
    known = {"job": ref.job_id, "type": ref.type.task_name, "region": ref.region}
    return known | _given(client=ref.client_id)


def _claim(claim: Claim) -> Facts:
    return _reference(claim.ref) | {
        "owner": claim.owner,
        "attempt": claim.attempt,
        "ack": claim.ack.value,
        "starts": claim.starts,
        "retries": claim.retries,
    }


def _beat(beat: Beat) -> Facts:
    left = None if beat.left is None else milliseconds(beat.left)
    note = _readable(beat.note) or None
    return _claim(beat.claim) | _given(left=left, percent=beat.percent, note=note)


def _readable(text: str) -> str:
    """Lua's JSON reader takes no lone surrogate (os.fsdecode makes them): it refuses the call."""
    return text.encode("utf-8", "replace").decode()


def _text(value: Facts) -> str:
    return json.dumps(value, separators=(",", ":"))


def _arm(arm: Arm) -> Facts:
    match arm:
        case Store(verdict):
            text = _text(asdict(verdict))
            return {"arm": "verdict", "verdict": text, "outcome": verdict.kind.value}
        case Again(after, why):
            return {"arm": "again", "after": milliseconds(after), "why": why}
        case Park(why, forget):
            return {"arm": "park", "why": why, "forget": forget}
        case Release(after, why):
            return {"arm": "release", "why": why, "after": milliseconds(after)}
        case Dead(told, why):
            return {"arm": "dead", "why": why} | _told(told)
        case Done(accepted, outcome, told):
            return {"arm": "done", "accepted": accepted, "outcome": outcome} | _told(told)


def _told(verdict: Verdict | None) -> Facts:
    """For people: whole in the record, and shortened in the history; no continuation token."""
    if verdict is None:
        return {}
    text = _text(asdict(replace(verdict, token=None)))
    return {"told": text, "message": _readable(verdict.message[:HEADLINE])}


def _verdict(text: str) -> Verdict:
    """Fields that a newer release added are passed over."""
    stored = json.loads(text)
    known = {field.name: stored[field.name] for field in fields(Verdict) if field.name in stored}
    return Verdict(**known | {"kind": Kind(stored["kind"])})


def _begun(ref: JobRef, facts: Facts) -> Begun:
    return Begun(
        how=How(facts["how"]),
        ref=ref,
        attempt=facts["attempt"],
        starts=facts["starts"],
        retries=facts["retries"],
        deaths=facts["deaths"],
        ack=Ack(facts["ack"]),
        offer_age=duration(facts["age"]),
        nonce=facts.get("nonce"),
        tried=frozenset(json.loads(facts.get("tried", "[]"))),
        verdict=_verdict(facts["verdict"]) if "verdict" in facts else None,
        verdict_age=duration(facts["verdict_age"]),
    )


def _overdue(facts: Facts) -> Overdue:
    ref = JobRef(
        job_id=facts["job"],
        client_id=facts.get("client"),
        type=action_type(facts["type"]),
        region=facts["region"],
    )
    return Overdue(ref, Ack(facts["ack"]), waits=facts["waits"], verdict=facts["verdict"])
