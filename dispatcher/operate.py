"""What an operator asks, and does about single jobs and providers, as lines to print.

Knows nothing of how it is asked; decides nothing that the ledger should."""

import getpass
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta

from redis.exceptions import RedisError

from dispatcher.engine.model import LedgerDown, Release
from dispatcher.settings import Settings
from dispatcher.store.audit import Audit
from dispatcher.store.connection import connect
from dispatcher.store.fleet import RedisFleet
from dispatcher.store.ledger import RedisLedger
from dispatcher.store.records import Record, Records, State

CREWS = ("PROVIDER", "STATE", "SLOTS", "RUNNING", "WORKERS")
HEAD = ("JOB", "STATE", "PROVIDER", "CLIENT", "BEGUN", "WORKER", "RESULT")


class OperatorError(Exception):
    """It cannot be done; the text says why, and what to do."""


class Operator:
    def __init__(self, given: Settings) -> None:
        redis = connect(given.redis_url.get_secret_value())
        self._records = Records(redis)
        self._ledger = RedisLedger(redis, given.times)
        self._fleet = RedisFleet(redis, given.times)
        self._audit = Audit(redis)

    def jobs(self, state: str | None = None, provider: str | None = None) -> list[Record]:
        """By state, then by job. A damaged record is of any provider."""
        with _answered():
            found = [
                record
                for record in self._records.all()
                if state in {None, record.state.value}
                and (provider is None or record.ref is None or record.ref.type.provider == provider)
            ]
        order = list(State)
        return sorted(found, key=lambda record: (order.index(record.state), record.job_id))

    def show(self, job_id: str) -> list[str]:
        """A job's record, and its life so far."""
        with _answered():
            record, life = self._one(job_id), self._records.life(job_id)
        facts = [f"{name:9}{value}" for name, value in record.shown().items() if value]
        steps = [
            f"{_time(step.at)}  {step.event}" + (f": {step.detail}" if step.detail else "")
            for step in life
        ]
        return facts + steps

    def resend(self, job_id: str) -> str:
        """Has a stored result put once more: by the next sweep of any worker."""
        with _answered():
            record = self._one(job_id)
        if record.ref is None or not record.outcome:
            raise OperatorError(
                f"{job_id} is {record.state} and has no result that could be sent; "
                "`dispatcher jobs --state dead` lists those that have."
            )
        arm = Release(timedelta(), f"sent again by {_who()}")
        with _answered():
            done = self._ledger.overrule(record.ref, arm)
            if done:
                self._audit.add(_who(), "resend", job_id)
        if not done:
            raise OperatorError(f"{job_id} is in a worker's hands; its result is on its way.")
        return f"{job_id}: its {record.outcome} is put again by the next sweep."

    def pause(self, provider: str, known: Collection[str]) -> str:
        """`known`: the providers that are loaded here; those that announce themselves count too."""
        with _answered():
            there = {*known, *self._fleet.workers()}
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
            workers, paused = self._fleet.workers(), self._fleet.paused()
            crews = {name: self._fleet.crew(name) for name in sorted({*known, *workers, *paused})}
        return [
            {
                "provider": name,
                "state": "paused" if crew.paused else "working" if crew.slots else "no worker",
                "slots": crew.slots,
                "running": crew.busy,
                "workers": sorted(workers.get(name, {})),
            }
            for name, crew in crews.items()
        ]

    def audit(self) -> list[str]:
        """What operators did, newest first."""
        with _answered():
            acts = self._audit.acts()
        return [f"{_time(one.at)}  {one.who}  {one.act} {one.subject}" for one in acts]

    def _one(self, job_id: str) -> Record:
        record = self._records.one(job_id)
        if record is None:
            raise OperatorError(
                f"{job_id}: no such job. Records of reported jobs are kept for an hour, dead "
                "letters for 7 days."
            )
        return record


def table(records: Iterable[Record]) -> list[str]:
    return _columns([HEAD, *map(_row, records)])


def crew_table(crews: Iterable[dict[str, object]]) -> list[str]:
    rows = [
        tuple(" ".join(v) if isinstance(v, list) else str(v) for v in c.values()) for c in crews
    ]
    return _columns([CREWS, *rows])


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _row(record: Record) -> Sequence[str]:
    ref = record.ref
    result = f"{record.outcome}: {record.message}" if record.message else record.outcome
    return (
        record.job_id,
        record.state,
        ref.type.provider if ref else "",
        (ref.client_id or "") if ref else "",
        str(record.attempt),
        record.worker,
        " ".join(result.split())[:60],
    )


def _time(at: datetime) -> str:
    return f"{at.isoformat(sep=' ', timespec='milliseconds')[:23]}Z"


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"user {os.getuid()}"


@contextmanager
def _answered() -> Iterator[None]:
    try:
        yield
    except (LedgerDown, RedisError) as error:
        raise OperatorError(
            f"DISPATCHER_REDIS_URL: no Redis answers there ({type(error).__name__}); "
            "start one, or correct the address."
        ) from None
