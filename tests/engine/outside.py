"""The engine's ports on a line: the real ledger, AWS's state machine, doubles of the rest."""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

from dispatcher.emulator import jobs as aws
from dispatcher.emulator.machine import Machine
from dispatcher.engine.model import (
    ActionTypeNotFound,
    Arm,
    Beat,
    Begun,
    Belongings,
    Claim,
    Dropped,
    How,
    InvalidClientToken,
    InvalidJobState,
    InvalidNonce,
    JobDetails,
    JobNotFound,
    JobRef,
    Kind,
    Offer,
    Overdue,
    PortError,
    Refused,
    Release,
    SessionKeys,
    Verdict,
)
from dispatcher.engine.ports import About, Event, Transfers
from dispatcher.sdk import (
    ActionType,
    Pipeline,
    Secret,
)
from dispatcher.store.ledger import RedisLedger
from dispatcher.testing import MemoryStorage
from tests.engine.clock import Clock
from tests.engine.line import Line

T = TypeVar("T")
CLIENT = "client"
TOKEN = "token-of-client"


@dataclass
class Seen:
    event: Event
    ref: JobRef | None
    fields: dict[str, Any]


@dataclass
class Observer:
    seen: list[Seen] = field(default_factory=list)

    def saw(self, event: Event, about: About = None, **fields: object) -> None:
        ref = about.ref if isinstance(about, Claim) else about
        self.seen.append(Seen(event, ref, dict(fields)))

    def all(self, event: Event) -> list[Seen]:
        return [one for one in self.seen if one.event is event]


@dataclass
class Asked:
    """What AWS was asked by this fleet, and took."""

    limits: list[int] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    puts: list[str] = field(default_factory=list)
    accepted: Counter[str] = field(default_factory=Counter)
    belongings: Belongings = field(default_factory=Belongings)  # of every job


class Memory:
    """Where artifacts are kept; what one job writes, the next can read."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.renewed: list[SessionKeys | None] = []
        self.before_renewal: Callable[[], object] | None = None

    @contextmanager
    def open(
        self,
        region: str,
        belongings: Belongings,
        renew: Callable[[], SessionKeys | None],
        transfers: Transfers,
    ) -> Iterator[MemoryStorage]:
        given = {p.name: self.objects[p.key] for p in belongings.inputs if p.key in self.objects}
        storage, self._transfers = MemoryStorage(given), transfers
        if self.before_renewal is not None:
            self.before_renewal()
            self.renewed.append(renew())
        yield storage
        keys = {place.name: place.key for place in belongings.outputs}
        self.objects |= {keys[name]: content for name, content in storage.written.items()}

    def transfer(self, step: Callable[[Transfers], object]) -> None:
        """What the storage of the newest job does."""
        step(self._transfers)


class Aws:
    """JobApi on the emulator's machine; both owners."""

    def __init__(self, machine: Machine, asked: Asked, line: Line) -> None:
        self._machine = machine
        self._asked = asked
        self._line = line

    def poll(self, action_type: ActionType, region: str, limit: int) -> Sequence[Offer]:
        return self._line("poll", lambda: self._poll(action_type, limit))

    def details(self, ref: JobRef, token: Secret | None) -> JobDetails:
        return self._line("details", lambda: self._details(ref, token))

    def acknowledge(self, ref: JobRef, nonce: str, token: Secret | None) -> str:
        return self._line("acknowledge", lambda: self._acknowledge(ref, nonce, token))

    def put(self, ref: JobRef, verdict: Verdict, token: Secret | None) -> None:
        self._line("put", lambda: self._put(ref, verdict, token))

    def _poll(self, action_type: ActionType, limit: int) -> list[Offer]:
        self._asked.limits.append(limit)
        owner = aws.Owner(action_type.owner)
        jobs = _answer(lambda: self._machine.poll(owner, their(action_type), limit, {}))
        custom = owner is aws.Owner.CUSTOM
        return [Offer(job.id, job.work.client_id, job.nonce if custom else None) for job in jobs]

    def _details(self, ref: JobRef, token: Secret | None) -> JobDetails:
        job = _answer(lambda: self._machine.details(caller_of(ref, token)))
        work = job.work
        return JobDetails(
            Pipeline(work.pipeline, work.stage, work.action),
            work.configuration,
            job.continuation_token,
            job.nonce if ref.client_id else None,
            self._asked.belongings,
        )

    def _acknowledge(self, ref: JobRef, nonce: str, token: Secret | None) -> str:
        status, began = _answer(lambda: self._machine.acknowledge(caller_of(ref, token), nonce))
        if began:
            self._asked.acknowledged.append(ref.job_id)
        return str(status)

    def _put(self, ref: JobRef, verdict: Verdict, token: Secret | None) -> None:
        self._asked.puts.append(ref.job_id)
        caller = caller_of(ref, token)
        request = {"verdict": verdict}
        if verdict.kind is Kind.FAILURE:
            _answer(lambda: self._machine.fail(caller, "failure", request))
        else:
            _answer(lambda: self._machine.succeed(caller, "success", request, verdict.token))
        self._asked.accepted[ref.job_id] += 1


def their(action_type: ActionType) -> aws.ActionType:
    return aws.ActionType(
        action_type.category, action_type.owner.value, action_type.provider, action_type.version
    )


def caller_of(ref: JobRef, token: Secret | None) -> aws.Caller:
    clear = token.get_secret_value() if token else None
    return aws.Caller(aws.Owner(ref.type.owner), ref.job_id, clear)


ERRORS: Mapping[str, type[PortError]] = {
    aws.Code.ACTION_TYPE_NOT_FOUND: ActionTypeNotFound,
    aws.Code.INVALID_CLIENT_TOKEN: InvalidClientToken,
    aws.Code.INVALID_JOB_STATE: InvalidJobState,
    aws.Code.INVALID_NONCE: InvalidNonce,
    aws.Code.JOB_NOT_FOUND: JobNotFound,
}


def _answer(call: Callable[[], T]) -> T:
    try:
        return call()
    except aws.CallError as error:
        code = error.code
    raise ERRORS.get(code, Refused)(code)


class LinedLedger:
    """The real ledger behind a line: Redis can be away for one process."""

    def __init__(self, ledger: RedisLedger, line: Line, clock: Clock) -> None:
        self._ledger = ledger
        self._line = line
        self._clock = clock

    def now(self) -> datetime:
        """Redis's clock stands still in a test; its times move."""
        return self._line("now", self._ledger.now) + self._moved()

    def offer(
        self, poll_id: str, asked: datetime, offers: Mapping[JobRef, str | None]
    ) -> Sequence[JobRef]:
        return self._line(
            "offer", lambda: self._ledger.offer(poll_id, asked - self._moved(), offers)
        )

    def _moved(self) -> timedelta:
        return timedelta(seconds=self._clock.monotonic())

    def begin(
        self,
        ref: JobRef,
        owner: str,
        nonce: str | None,
        only: frozenset[How] | None,
        pipeline: Pipeline | None = None,
    ) -> Begun | Dropped:
        return self._line("begin", lambda: self._ledger.begin(ref, owner, nonce, only, pipeline))

    def heartbeat(self, beats: Sequence[Beat]) -> frozenset[str]:
        return self._line("heartbeat", lambda: self._ledger.heartbeat(beats))

    def finish(self, claim: Claim, arm: Arm) -> bool:
        return self._line("finish", lambda: self._ledger.finish(claim, arm))

    def release(self, job_id: str, owner: str, arm: Release) -> Overdue | None:
        return self._line("release", lambda: self._ledger.release(job_id, owner, arm))

    def due(self, types: Sequence[ActionType], limit: int) -> Sequence[Overdue]:
        return self._line("due", lambda: self._ledger.due(types, limit))

    def nonce(self, job_id: str) -> str | None:
        return self._line("nonce", lambda: self._ledger.nonce(job_id))


@dataclass
class Vault:
    """The store of client tokens, and what a process still remembers of it."""

    known: dict[str, str] = field(default_factory=lambda: {CLIENT: TOKEN})
    remembered: dict[str, str] = field(default_factory=dict)


class Tokens:
    def __init__(self, vault: Vault, line: Line) -> None:
        self._vault = vault
        self._line = line

    def get(self, client_id: str, *, fresh: bool = False) -> Secret | None:
        return self._line("fresh token" if fresh else "token", lambda: self._get(client_id, fresh))

    def _get(self, client_id: str, fresh: bool) -> Secret | None:
        known = self._vault.known.get(client_id)
        found = known if fresh else self._vault.remembered.get(client_id, known)
        return Secret(found) if found else None


@dataclass
class Queues:
    jobs: deque[JobRef] = field(default_factory=deque)
    settle: deque[JobRef] = field(default_factory=deque)
    polls: list[tuple[ActionType, str]] = field(default_factory=list)
    waiting: int = 0


class Broker:
    def __init__(self, queues: Queues, line: Line) -> None:
        self._queues = queues
        self._line = line

    def publish(self, refs: Sequence[JobRef]) -> None:
        self._line("publish", lambda: self._queues.jobs.extend(refs))

    def settle(self, ref: JobRef) -> None:
        self._line("settle", lambda: self._queues.settle.append(ref))

    def ask_to_poll(self, action_type: ActionType, region: str) -> None:
        self._line("ask", lambda: self._queues.polls.append((action_type, region)))

    def waiting(self, provider: str) -> int:
        return self._line("waiting", lambda: self._queues.waiting)
