"""Builds the engine with its adapters, once a process: forked children must not share sockets.

Keyed by pid, since only one of Celery's pools tells its processes that they were forked."""

import mmap
import os
import random
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

from dispatcher.aws.artifacts import S3Artifacts
from dispatcher.aws.codepipeline import CodePipeline
from dispatcher.aws.tokens import TokenStore, tokens
from dispatcher.configuration import queryable_key
from dispatcher.engine.acknowledge import Acknowledger
from dispatcher.engine.claim import Claims
from dispatcher.engine.delivery import Delivery
from dispatcher.engine.jobs import Jobs
from dispatcher.engine.leases import Leases
from dispatcher.engine.model import Action
from dispatcher.engine.poller import Poller
from dispatcher.engine.ports import Broker, Event, Observer
from dispatcher.engine.report import Reporter
from dispatcher.engine.run import Runner
from dispatcher.engine.sweep import Sweeper
from dispatcher.folders import job_folder
from dispatcher.metrics import Counting, Tally
from dispatcher.sdk import ActionType
from dispatcher.settings import Settings, settings
from dispatcher.store.connection import connect
from dispatcher.store.fleet import RedisFleet
from dispatcher.store.ledger import RedisLedger
from dispatcher.telemetry import LogObserver, Observers


class SystemClock:
    def monotonic(self) -> float:
        return time.monotonic()

    def now(self) -> datetime:
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class StopFlag:
    """Set once, by a signal's handler of the parent; seen by threads and forked children alike."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 1)

    def set(self) -> None:
        self._shared[0] = 1

    def __call__(self) -> bool:
        return self._shared[0] == 1


stopping = StopFlag()
SPARE = 4  # connections beside the pool's: heartbeats and polls wait for no handler's


@dataclass(frozen=True)
class Process:
    """What the Celery side tells once, before any fork."""

    actions: Mapping[ActionType, Action]
    broker: Broker
    parent: int | None = None  # pid of the worker's parent
    concurrency: int = 1
    node: str = ""  # the worker's Celery name
    observers: Sequence[Observer] = ()  # beside the log and the counts

    def fence(self) -> None:
        """Ends a pool child. A thread cannot be ended: its handler is told to stop, and not put."""
        if self.parent is not None and os.getpid() != self.parent:
            os._exit(os.EX_TEMPFAIL)


class Wiring:
    """One process's adapters and engine. Nothing here connects before it is used."""

    def __init__(self, given: Settings, process: Process) -> None:
        times, clock, counts = given.times, SystemClock(), Tally()
        counting = Counting(counts)
        observer = Observers(LogObserver(), counting, *process.observers)
        redis = connect(given.redis_url.get_secret_value())
        api = CodePipeline(
            process.concurrency + SPARE,
            queries=_queries(given, process.actions.values()),
            called=counting.called,
        )
        ledger = RedisLedger(
            redis, times, lambda key, why: observer.saw(Event.DAMAGED, key=key, why=why), counts
        )
        jobs = Jobs(api, client_tokens(given))
        acknowledger = Acknowledger(jobs, ledger, observer, clock, times)
        self.leases = leases = Leases(ledger, observer, clock, times, stopping, process.fence)
        self.times = times
        self.actions = process.actions
        self.observer = observer
        self.ledger = ledger
        self.fleet = RedisFleet(redis, times, counts)
        self.delivery = Delivery(
            process.actions,
            Claims(jobs, ledger, acknowledger, observer),
            leases,
            Runner(
                jobs,
                S3Artifacts(given.artifact_max_bytes),
                given.limits,
                leases,
                observer,
                clock,
                job_folder,
            ),
            Reporter(jobs, ledger, observer, clock),
            stopping,
        )
        self.poller = Poller(
            api, ledger, process.broker, self.fleet, observer, clock, times, _jitter
        )
        self.sweeper = Sweeper(process.actions, ledger, process.broker, observer)

    def turns(self) -> list[tuple[ActionType, str]]:
        """Every action type in every region."""
        return [(action_type, region) for action_type in self.actions for region in regions()]


def client_tokens(given: Settings) -> TokenStore:
    uri = given.client_tokens
    return tokens(uri.get_secret_value() if uri else None, os.environ, given.aws_region)


def _queries(
    given: Settings, actions: Iterable[Action]
) -> Mapping[ActionType, Sequence[tuple[str, str]]]:
    return {
        action.spec.type: given.queries.get(action.spec.type.provider, ())
        for action in actions
        if queryable_key(action.spec) is not None
    }


@cache
def regions() -> tuple[str, ...]:
    return settings().all_regions()


def _jitter() -> float:
    return random.uniform(0.8, 1.2)  # noqa: S311 - spreads polls, guards nothing


_lock = threading.Lock()
_process: Process | None = None
_built: dict[int, Wiring] = {}


def configure(process: Process) -> None:
    global _process  # noqa: PLW0603 - one process, one wiring
    _process = process
    _built.clear()


def wiring() -> Wiring:
    """This process's own."""
    pid = os.getpid()
    found = _built.get(pid)
    if found is not None:
        return found
    with _lock:
        if _process is None:
            raise RuntimeError("the Celery app was not configured yet")
        if pid not in _built:
            _built.clear()
            _built[pid] = Wiring(settings(), _process)
        return _built[pid]


def process() -> Process:
    if _process is None:
        raise RuntimeError("the Celery app was not configured yet")
    return _process
