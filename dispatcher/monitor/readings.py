"""What the pages and gauges show, read from the ledger and the fleet; nothing is written.

Any number of viewers and scrapes cost one reading a second."""

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from redis import Redis
from redis.exceptions import RedisError

from dispatcher.engine.model import LedgerDown
from dispatcher.engine.times import Times
from dispatcher.store.fleet import RedisFleet, Staff
from dispatcher.store.records import HISTORY_MOST, Record, Records, State, Step

T = TypeVar("T")

KEPT = 1.0  # seconds that a reading serves
ORDER = list(State)


@dataclass(frozen=True)
class ProviderRow:
    """`waiting` are on offer and nobody's; `oldest`: since the first of them was first offered.

    `queue`: messages in the broker, None if it does not tell.
    """

    name: str
    paused: bool
    slots: int
    running: int
    waiting: int
    oldest: timedelta | None
    retrying: int
    dead: int
    queue: int | None
    workers: tuple[str, ...]
    draining: tuple[str, ...]


@dataclass(frozen=True)
class Board:
    """`at` is of Redis's clock, as all times of records are.

    `jobs`: those that live, by state and age; then those that ended, newest first.
    """

    at: datetime
    providers: Sequence[ProviderRow]
    jobs: Sequence[Record]


@dataclass(frozen=True)
class Story:
    """One job. `verdict` is what AWS was told, or is to be told, without a continuation token."""

    record: Record
    steps: Sequence[Step]
    verdict: Mapping[str, Any] | None


@dataclass(frozen=True)
class _Now:
    at: datetime
    rows: Sequence[ProviderRow]
    live: Sequence[Record]


class Readings:
    """`known`: the providers that are loaded here. `queue` answers a provider's messages.

    Threads may share it. Raises LedgerDown.
    """

    def __init__(
        self,
        redis: Redis,
        times: Times,
        known: Collection[str],
        queue: Callable[[str], int | None],
    ) -> None:
        self._records = Records(redis)
        self._fleet = RedisFleet(redis, times)
        self._offered_for = 3 * times.ack_window
        self._known = known
        self._queue = queue
        self._now = _Kept(self._look)
        self._ended = _Kept(lambda: self._records.ended(HISTORY_MOST))

    def board(self) -> Board:
        now, ended = self._now(), self._ended()
        known = {record.job_id for record in now.live}
        newest: dict[str, Record] = {}
        for record in ended:  # a dead letter that was sent again ended twice
            if record.job_id not in known:
                newest.setdefault(record.job_id, record)
        return Board(now.at, now.rows, [*sorted(now.live, key=_order), *newest.values()])

    def providers(self) -> Sequence[ProviderRow]:
        return self._now().rows

    def counts(self) -> Mapping[str, str]:
        """What the fleet has counted, see `metrics.counted`."""
        return self._fleet.counts()

    def job(self, job_id: str) -> Story | None:
        """None: neither the ledger nor its history knows it."""
        try:
            record = self._records.one(job_id)
            if record is None:
                record = next((one for one in self._ended() if one.job_id == job_id), None)
            if record is None:
                return None
            return Story(record, self._records.life(job_id), self._records.verdict(job_id))
        except RedisError as error:
            raise LedgerDown(type(error).__name__) from None

    def _look(self) -> _Now:
        at, names = self._fleet.now(), {*self._known, *self._fleet.providers()}
        staff, live = self._fleet.staff(names), self._records.live(sorted(names))
        since = {record.job_id: record.since for record in live}
        rows, gone = [], set()
        for one in staff:
            queue = self._queue(one.provider)
            offered = self._offered(one, queue)
            gone |= one.waiting.keys() - offered
            ages = [at - first for job in offered if (first := since.get(job))]
            rows.append(_row(one, queue, len(offered), max(ages, default=None)))
        return _Now(at, rows, [record for record in live if record.job_id not in gone])

    def _offered(self, staff: Staff, queue: int | None) -> set[str]:
        """Not what AWS has ceased to offer: another worker took it, or the pipeline was stopped.

        While messages wait in the queue no poll is made, and AWS is not heard of.
        """
        return {job for job, age in staff.waiting.items() if queue or age <= self._offered_for}


class _Kept(Generic[T]):
    """An answer that serves for a while. Who asks while a new one is on its way waits for it."""

    def __init__(self, ask: Callable[[], T]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._answer: tuple[float, T] | None = None

    def __call__(self) -> T:
        with self._lock:
            if self._answer is None or time.monotonic() - self._answer[0] > KEPT:
                try:
                    self._answer = time.monotonic(), self._ask()
                except RedisError as error:
                    raise LedgerDown(type(error).__name__) from None
            return self._answer[1]


def _row(staff: Staff, queue: int | None, waiting: int, oldest: timedelta | None) -> ProviderRow:
    return ProviderRow(
        name=staff.provider,
        paused=staff.paused,
        slots=staff.slots,
        running=staff.running,
        waiting=waiting,
        oldest=oldest,
        retrying=staff.retrying,
        dead=staff.dead,
        queue=queue,
        workers=tuple(sorted(staff.workers)),
        draining=tuple(staff.draining),
    )


def _order(record: Record) -> tuple[int, float]:
    return ORDER.index(record.state), record.since.timestamp() if record.since else 0.0
