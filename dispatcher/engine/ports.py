"""What the engine asks of the outside. Adapters raise only the errors of `model`."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from enum import Enum
from typing import Protocol

from dispatcher.engine.model import (
    Arm,
    Beat,
    Begun,
    Belongings,
    Claim,
    Crew,
    Dropped,
    How,
    JobDetails,
    JobRef,
    Offer,
    Overdue,
    Release,
    SessionKeys,
    Verdict,
)
from dispatcher.sdk import ActionType, Pipeline, Secret
from dispatcher.sdk.artifacts import Storage


class Clock(Protocol):
    """Time as this process sees it. Seconds; `now` is aware."""

    def monotonic(self) -> float: ...
    def now(self) -> datetime: ...
    def sleep(self, seconds: float) -> None: ...


class JobApi(Protocol):
    """CodePipeline's job calls, third-party and custom alike. `token` is None for custom jobs.

    `acknowledge` and the puts are one HTTP attempt each: a retry below would hide whether an
    unanswered one was applied.
    """

    def poll(self, action_type: ActionType, region: str, limit: int) -> Sequence[Offer]: ...
    def details(self, ref: JobRef, token: Secret | None) -> JobDetails: ...
    def acknowledge(self, ref: JobRef, nonce: str, token: Secret | None) -> str: ...
    def put(self, ref: JobRef, verdict: Verdict, token: Secret | None) -> None: ...


class Tokens(Protocol):
    """Client tokens. None: nobody knows this client. `fresh` asks behind any cache."""

    def get(self, client_id: str, *, fresh: bool = False) -> Secret | None: ...


class Transfers(Protocol):
    """Looks on while artifacts move, from any thread. False: the job's time is over, so end it."""

    def going_on(self) -> bool: ...
    def moved(self, direction: str, name: str, done: int, of: int) -> bool: ...
    def ended(self, direction: str, name: str, size: int | None) -> None:
        """`size`: None if it failed."""


class ArtifactStore(Protocol):
    """Where jobs' artifacts are kept. A storage is one job's, under that job's own keys alone.

    `renew` asks CodePipeline for new keys, and raises what JobApi does. The storage raises the
    SDK's failures.
    """

    def open(
        self,
        region: str,
        belongings: Belongings,
        renew: Callable[[], SessionKeys | None],
        transfers: Transfers,
    ) -> AbstractContextManager[Storage]: ...


class Lease(Protocol):
    """What the owner of a job tells the ledger of it; see `Ledger`."""

    def heartbeat(self, beats: Sequence[Beat]) -> frozenset[str]: ...
    def finish(self, claim: Claim, arm: Arm) -> bool: ...


class Ledger(Lease, Protocol):
    """The record of every job, in five atomic steps (and two reads).

    An offer dates from when AWS was asked, by the ledger's own clock (`now`): however late it
    arrives, it does not pass for a younger one.
    `begin` notes the job's pipeline, for people. `heartbeat` answers the owners that lost their
    job. `release` is a finish for any delivery whose owner begins with the text; it answers what is
    to follow.
    """

    def now(self) -> datetime: ...
    def offer(
        self, poll_id: str, asked: datetime, offers: Mapping[JobRef, str | None]
    ) -> Sequence[JobRef]: ...
    def begin(
        self,
        ref: JobRef,
        owner: str,
        nonce: str | None,
        only: frozenset[How] | None,
        pipeline: Pipeline | None = None,
    ) -> Begun | Dropped: ...
    def release(self, job_id: str, owner: str, arm: Release) -> Overdue | None: ...
    def due(self, types: Sequence[ActionType], limit: int) -> Sequence[Overdue]: ...
    def nonce(self, job_id: str) -> str | None: ...


class Broker(Protocol):
    """The queues. A message is only a hint: none of these need be durable."""

    def publish(self, refs: Sequence[JobRef]) -> None: ...
    def settle(self, ref: JobRef) -> None: ...
    def ask_to_poll(self, action_type: ActionType, region: str) -> None: ...
    def waiting(self, provider: str) -> int: ...


Turn = tuple[ActionType, str]  # an action type in a region


class Fleet(Protocol):
    """Who is there to work, and whose turn it is to poll.

    `rested` answers which are to be asked to poll now, each once until its turn begins. `take_turn`
    answers how long the type rested last, or None if it is another's turn. `end_turn` keeps `rest`
    for the next turn, and lets none begin for `pause`.
    """

    def crew(self, provider: str) -> Crew: ...
    def rested(self, turns: Sequence[Turn]) -> Sequence[Turn]: ...
    def take_turn(self, action_type: ActionType, region: str, holder: str) -> timedelta | None: ...
    def end_turn(
        self,
        action_type: ActionType,
        region: str,
        holder: str,
        rest: timedelta,
        pause: timedelta,
    ) -> None: ...


class Event(Enum):
    """What happened, as the log and the metrics name it: (level, message)."""

    POLLED = ("debug", "polled")
    OFFERED = ("info", "offered")
    POLL_THROTTLED = ("warning", "poll throttled")
    POLL_FAILED = ("warning", "poll failed")
    NO_WORKERS = ("warning", "no worker serves this queue: its jobs stay at AWS")
    TYPE_UNKNOWN = ("error", "action type not found at AWS: create it there, or correct its name")
    DROPPED = ("info", "message dropped")
    DETAILS_FAILED = ("warning", "details failed")
    UNKNOWN_CLIENT = ("error", "no token for this client")
    TOKENS_DOWN = ("error", "the store of client tokens does not answer")
    ACKNOWLEDGED = ("info", "acknowledged")
    PARKED = ("info", "parked: only a fresh offer brings it back")
    ACK_PARKED = ("info", "acknowledgement refused, parked: only a fresh offer brings it back")
    ACK_FAILED = ("warning", "acknowledgement failed")
    ACK_REFUSED = ("warning", "acknowledgement refused, for another cause than its nonce")
    ACK_UNKNOWN = ("warning", "acknowledgement unanswered, left for recovery")
    STARTED = ("info", "started")
    TRANSFERRING = ("info", "artifact on its way")
    TRANSFERRED = ("info", "artifact transferred")
    LOST = ("warning", "lease lost")
    TIMED_OUT = ("warning", "ran into its time limit")
    HUNG = ("error", "too many handlers ignore their time limit: this worker ends itself")
    UNFINISHED = ("warning", "not finished when its worker had to end: a sweep hands it on")
    STALLED = ("error", "this worker has free slots and receives nothing: it ends itself")
    RETRY = ("warning", "to be run again")
    BUG = ("error", "handler raised what it may not raise")
    VARIABLES_LEFT_OUT = ("warning", "AWS takes no variables of a third-party action")
    FINISHED = ("info", "finished")
    REPORTED = ("info", "reported")
    CLOSED = ("info", "AWS had closed the job")
    PUT_FAILED = ("warning", "put failed")
    PUT_ANYHOW = ("warning", "put without the ledger")
    DEAD = ("error", "AWS refuses the result for good")
    DAMAGED = (
        "error",
        "a key in Redis holds what it must not: nobody acts on it until it is mended",
    )
    LEDGER_DOWN = ("error", "the ledger does not answer")
    PUT_LATER = ("warning", "to be put later")
    BROKER_DOWN = ("error", "the broker does not answer")
    NO_ACTION = ("error", "no provider is loaded for this action type")
    KEEPER_FAILED = ("error", "the keeper of the leases failed, and goes on")
    SWEPT = ("info", "published again")


About = JobRef | Claim | None  # the job, or the delivery that has it


class Observer(Protocol):
    """Told what happened; never raises, never blocks."""

    def saw(self, event: Event, about: About = None, **fields: object) -> None: ...
