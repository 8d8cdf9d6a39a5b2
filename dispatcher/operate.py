"""What an operator asks, and does about single jobs and providers, as lines to print.

Knows nothing of how it is asked; decides nothing that the ledger should."""

import os
import pwd
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from redis.exceptions import RedisError

from dispatcher.engine import lifecycle
from dispatcher.engine.model import LedgerDown, Release, Store
from dispatcher.settings import Settings
from dispatcher.store.audit import Audit
from dispatcher.store.connection import connect, unanswered
from dispatcher.store.fleet import RedisFleet
from dispatcher.store.ledger import RedisLedger
from dispatcher.store.records import (
    FAILED,
    HISTORY_MOST,
    Record,
    Records,
    State,
    Wanted,
    span,
)

CREWS = ("PROVIDER", "STATE", "SLOTS", "RUNNING", "WORKERS", "DRAINING")
# On what an operator may act; the ledger has the last word.
FITS = {
    "resend": {State.FINISHED, State.DEAD},
    "release": {State.RUNNING, State.FINISHED, State.RETRY},
    "fail": {State.RUNNING, State.RETRY, State.DEAD},
}
STANDS = {
    State.WAITING: "nobody has acknowledged it, and AWS offers it by itself",
    State.RUNNING: "it has no result yet; `jobs fail` ends it",
    State.RETRY: "it has no result yet; `jobs release` ends its wait, `jobs fail` the job",
    State.FINISHED: "its result stands, and is on its way to AWS",
    State.REPORTED: "AWS has its result",
    State.DEAD: "AWS refused its result; `jobs resend` puts it again, `jobs fail` a failure",
    State.DAMAGED: "nobody acts on a record that cannot be read",
}
IN_HANDS = {
    "resend": "its result is on its way",
    "release": "stop that worker, or wait for its lease to end; `jobs fail` ends the job itself",
    "fail": "its acknowledgement is under way; ask again in a moment",
}
HEAD = ("JOB", "STATE", "PROVIDER", "CLIENT", "AGE", "ATTEMPT", "WORKER", "RESULT")
ENDED = {FAILED, State.REPORTED.value}
WIDEST = 60  # letters of a result in a table
TELLING = 4  # letters of an id that may stand for it


class OperatorError(Exception):
    """It cannot be done; the text says why, and what to do."""


class Operator:
    def __init__(self, given: Settings) -> None:
        redis = connect(given.redis_url.get_secret_value())
        self._records = Records(redis)
        self._ledger = RedisLedger(redis, given.times)
        self._fleet = RedisFleet(redis, given.times)
        self._audit = Audit(redis)

    def jobs(self, wanted: Wanted) -> list[Record]:
        """By state, then by job. With the history, where what has ended is asked for."""
        with _answered():
            past = self._records.ended(HISTORY_MOST) if wanted.state in ENDED else []
            known = {record.job_id: record for record in (*reversed(past), *self._records.all())}
        found = [record for record in known.values() if wanted.takes(record)]
        order = list(State)
        return sorted(found, key=lambda record: (order.index(record.state), record.job_id))

    def show(self, job_id: str) -> list[str]:
        """A job's record, and its life so far."""
        with _answered():
            record = self._one(job_id)
            life = self._records.life(record.job_id)
        told = record.shown()
        facts = [f"{name:9} {value}" for name, value in told.items() if value]
        steps = [
            f"{_time(step.at)}  {step.event}" + (f": {step.detail}" if step.detail else "")
            for step in life
        ]
        return [_printable(line) for line in facts + steps]

    def resend(self, job_id: str) -> str:
        """Has a stored result put once more: by the next sweep of any worker."""
        record = self._act("resend", job_id, Release(timedelta(), f"sent again by {_who()}"))
        return f"{record.job_id}: its {record.outcome} is put again by the next sweep."

    def release(self, job_id: str) -> str:
        """Ends a wait that nobody needs: of a Retry, or for a lease's next look."""
        record = self._act("release", job_id, Release(timedelta(), f"released by {_who()}"))
        return f"{record.job_id}: the next sweep hands it on."

    def fail(self, job_id: str, reason: str) -> str:
        """Has AWS told that an acknowledged job failed. A handler that runs it is told to stop."""
        record = self._act("fail", job_id, Store(lifecycle.ended_by_operator(reason)))
        return f"{record.job_id}: AWS is told by the next sweep that it failed."

    def _act(self, act: str, job_id: str, arm: Release | Store) -> Record:
        """What it was before. Raises OperatorError where the act makes no sense, or came late."""
        with _answered():
            record = self._one(job_id)
            ref = record.ref if record.state in FITS[act] else None
            done = ref is not None and self._ledger.overrule(ref, arm)
            if done:
                self._audit.add(_who(), act, record.job_id)
        if ref is None:
            raise OperatorError(f"{record.job_id} is {record.state}: {STANDS[record.state]}.")
        if not done:
            raise OperatorError(f"{record.job_id} is in a worker's hands: {IN_HANDS[act]}.")
        return record

    def pause(self, provider: str, known: Collection[str]) -> str:
        """`known`: the providers that are loaded here; those that announce themselves count too."""
        with _answered():
            there = {*known, *self._fleet.providers()}
            if provider not in there:
                raise OperatorError(
                    f"There is no provider {provider}; there are {', '.join(sorted(there))}."
                )
            new = self._fleet.pause(provider)
            self._audit.add(_who(), "pause", provider)
        return (
            f"{provider} is paused: AWS keeps its jobs until `dispatcher resume {provider}`; those "
            "that run go on."
            if new
            else f"{provider} was paused already."
        )

    def resume(self, provider: str) -> str:
        with _answered():
            if not self._fleet.resume(provider):
                paused = ", ".join(sorted(self._fleet.paused())) or "none"
                raise OperatorError(f"{provider} is not paused; paused: {paused}.")
            self._audit.add(_who(), "resume", provider)
        return f"{provider} is polled again."

    def crews(self, known: Collection[str]) -> list[dict[str, object]]:
        """Of each provider: its workers, their slots, what runs, and whether it is paused."""
        with _answered():
            staff = self._fleet.staff({*known, *self._fleet.providers()})
        return [
            {
                "provider": one.provider,
                "state": "paused" if one.paused else "working" if one.slots else "no worker",
                "slots": one.slots,
                "running": one.running,
                "workers": sorted(one.workers),
                "draining": one.draining,
            }
            for one in staff
        ]

    def audit(self) -> list[str]:
        """What operators did, newest first."""
        with _answered():
            acts = self._audit.acts()
        return [_printable(f"{_time(one.at)}  {one.who}  {one.act} {one.subject}") for one in acts]

    def _one(self, job_id: str) -> Record:
        """By its id, or by how that begins where no other job's does."""
        record = self._records.one(job_id)
        if record is not None:
            return record
        near = self._beginning(job_id) if len(job_id) >= TELLING else {}
        if len(near) == 1:
            return near.popitem()[1]
        if near:
            some = ", ".join(sorted(near))[:200]
            raise OperatorError(f"{job_id}: {len(near)} jobs begin so, as {some}.")
        raise OperatorError(
            f"{job_id}: no such job. `dispatcher jobs` lists them; of those that AWS has a result "
            "of, the last 10,000 are known for 7 days."
        )

    def _beginning(self, start: str) -> dict[str, Record]:
        past = self._records.ended(HISTORY_MOST)
        known = (*reversed(past), *self._records.all())
        return {one.job_id: one for one in known if one.job_id.startswith(start)}


def table(records: Iterable[Record]) -> list[str]:
    return _columns([HEAD, *map(_row, records)])


def crew_table(crews: Iterable[dict[str, object]]) -> list[str]:
    rows = [
        tuple(" ".join(v) if isinstance(v, list) else str(v) for v in c.values()) for c in crews
    ]
    return _columns([CREWS, *rows])


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [_printable("  ".join(map(str.ljust, row, widths)).rstrip()) for row in rows]


def _printable(line: str) -> str:
    """A pipeline's texts must not steer the terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in line)


def _row(record: Record) -> Sequence[str]:
    ref = record.ref
    result = f"{record.outcome}: {record.message}" if record.message else record.outcome
    return (
        record.job_id,
        record.state,
        ref.type.provider if ref else "",
        (ref.client_id or "") if ref else "",
        span(datetime.now(UTC) - record.since) if record.since else "",
        str(record.attempt),
        record.worker,
        _cut(" ".join(result.split())),
    )


def _cut(text: str) -> str:
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"


def _time(at: datetime) -> str:
    return f"{at.isoformat(sep=' ', timespec='milliseconds')[:23]}Z"


def _who() -> str:
    """By the machine, not by a variable that anybody sets."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user may have no name
        return f"user {os.getuid()}"


@contextmanager
def _answered() -> Iterator[None]:
    try:
        yield
    except LedgerDown as error:
        raise OperatorError(unanswered(str(error))) from None
    except RedisError as error:
        raise OperatorError(unanswered(type(error).__name__)) from None
