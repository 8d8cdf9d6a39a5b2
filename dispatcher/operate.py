"""What an operator asks of the ledger and does about single jobs, as lines to print.

Knows nothing of how it is asked; decides nothing that the ledger should."""

import getpass
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from redis.exceptions import RedisError

from dispatcher.engine.model import LedgerDown, Release
from dispatcher.settings import Settings
from dispatcher.store.connection import connect
from dispatcher.store.ledger import RedisLedger
from dispatcher.store.records import Record, Records, State

HEAD = ("JOB", "STATE", "PROVIDER", "CLIENT", "BEGUN", "WORKER", "RESULT")


class OperatorError(Exception):
    """It cannot be done; the text says why, and what to do."""


class Operator:
    def __init__(self, given: Settings) -> None:
        redis = connect(given.redis_url.get_secret_value())
        self._records = Records(redis)
        self._ledger = RedisLedger(redis, given.times)

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
            f"{step.at.isoformat(sep=' ', timespec='milliseconds')[:23]}Z  {step.event}"
            + (f": {step.detail}" if step.detail else "")
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
        if not done:
            raise OperatorError(f"{job_id} is in a worker's hands; its result is on its way.")
        return f"{job_id}: its {record.outcome} is put again by the next sweep."

    def _one(self, job_id: str) -> Record:
        record = self._records.one(job_id)
        if record is None:
            raise OperatorError(
                f"{job_id}: no such job. Records of reported jobs are kept for an hour, dead "
                "letters for 7 days."
            )
        return record


def table(records: Iterable[Record]) -> list[str]:
    rows = [HEAD, *map(_row, records)]
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
