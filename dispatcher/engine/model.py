"""What the engine speaks of: jobs, claims, verdicts, and the errors that a port may raise.

PortError
├── ApiError                  CodePipeline did not do what it was asked
│   ├── Unanswered            no answer or a 5xx: whether it was applied is unknown; try again
│   ├── Throttled             refused for its pace: surely not applied; try again
│   ├── Denied                our AWS credentials do not allow it; an operator can mend that
│   ├── Malformed             the answer is not what the service model promises
│   └── Refused               answered, and the same request will be refused again
│       ├── InvalidNonce      ├── InvalidClientToken    ├── JobNotFound
│       ├── InvalidJobState   └── ActionTypeNotFound
├── LedgerDown                Redis did not answer, or refused
├── TokensDown                the store of client tokens did not answer
├── UnknownClient             it answered, and has no token for this client
└── BrokerDown                whether a message was published is unknown
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

from dispatcher.sdk import ActionSpec, ActionType, Job, Outcome, Owner, Pipeline

JOB_ID = re.compile(r"[0-9A-Za-z._-]{1,512}")  # it goes into keys; CodePipeline's are UUIDs


class PortError(Exception):
    """Something outside did not do what it was asked."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail or (type(self).__doc__ or "").strip())


class ApiError(PortError):
    """CodePipeline did not do what it was asked."""


class Unanswered(ApiError):
    """CodePipeline gave no answer: whether the call was applied is unknown."""


class Throttled(ApiError):
    """CodePipeline refused the pace of our calls."""


class Denied(ApiError):
    """CodePipeline does not let these AWS credentials make this call."""


class Malformed(ApiError):
    """CodePipeline's answer lacks what its service model promises."""


class Refused(ApiError):
    """CodePipeline refused the request, and would refuse it again."""


class InvalidNonce(Refused):
    """The nonce is not the job's current one, or the job was acknowledged already."""


class InvalidClientToken(Refused):
    """The client token does not belong to the job's client."""


class InvalidJobState(Refused):
    """The job is not in progress."""


class JobNotFound(Refused):
    """CodePipeline does not know the job."""


class ActionTypeNotFound(Refused):
    """CodePipeline does not know the action type."""


class LedgerDown(PortError):
    """Redis did not answer, or refused."""


class TokensDown(PortError):
    """The store of client tokens did not answer."""


class UnknownClient(PortError):
    """No token is known for the job's client."""


class BrokerDown(PortError):
    """The broker did not confirm a message: whether it was published is unknown."""


@dataclass(frozen=True)
class JobRef:
    """Which job: all that a broker message says, and nothing secret. Custom jobs have no client."""

    job_id: str
    client_id: str | None
    type: ActionType
    region: str


def action_type(task_name: str) -> ActionType:
    """The action type that `ActionType.task_name` names. Raises ValueError."""
    owner, category, provider, version = task_name.split(".")
    return ActionType(category=category, owner=Owner(owner), provider=provider, version=version)


@dataclass(frozen=True)
class Offer:
    """One job of a poll's answer. Only a custom job's offer brings its nonce."""

    job_id: str
    client_id: str | None
    nonce: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Place:
    """Where in S3 an artifact is, or is to be."""

    name: str
    bucket: str = field(repr=False)
    key: str = field(repr=False)
    revision: str | None = None


@dataclass(frozen=True, repr=False)
class SessionKeys:
    """The job's own keys to its artifacts, good for a quarter of an hour."""

    access_key_id: str
    secret_access_key: str
    session_token: str


@dataclass(frozen=True)
class Belongings:
    """A job's artifacts: where they are, and the keys to them."""

    inputs: Sequence[Place] = ()
    outputs: Sequence[Place] = ()
    keys: SessionKeys | None = field(default=None, repr=False)
    encryption_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class JobDetails:
    """What a job asks for. Only a third-party job's details bring its nonce."""

    pipeline: Pipeline
    configuration: Mapping[str, str] = field(repr=False)
    continuation: str | None = field(default=None, repr=False)
    nonce: str | None = field(default=None, repr=False)
    belongings: Belongings = field(default_factory=Belongings)


@dataclass(frozen=True)
class Action:
    """A provider's handler with what was declared about it, as the registry found it."""

    spec: ActionSpec
    handler: Callable[[Job[Any]], Outcome]
    parse: Callable[[Mapping[str, str]], Any]
    module: str


class Ack(StrEnum):
    """What this fleet knows of its acknowledgement of a job."""

    NO = "no"
    PRESUMED = "presumed"
    SURE = "sure"


class How(StrEnum):
    """How the ledger let a delivery begin."""

    FRESH = "fresh"  # nobody has begun it since its last offer
    INHERITED = "inherited"  # a predecessor began, did not acknowledge as far as we know, is gone
    ACKED = "acked"  # a predecessor acknowledged, and its lease is over
    AGAIN = "again"  # a Retry is due
    SEND = "send"  # a verdict is stored


@dataclass(frozen=True)
class Begun:
    """The ledger's facts about the job that a delivery now owns."""

    how: How
    ref: JobRef
    attempt: int
    starts: int
    retries: int
    deaths: int
    ack: Ack
    offer_age: timedelta
    nonce: str | None = field(repr=False)
    tried: frozenset[str] = field(repr=False)
    verdict: "Verdict | None"
    verdict_age: timedelta

    def claim(self, owner: str) -> "Claim":
        return Claim(self.ref, owner, self.attempt, self.ack, self.starts, self.retries)


@dataclass(frozen=True)
class Dropped:
    """The ledger did not let a delivery begin; why, for the log."""

    why: str


@dataclass(frozen=True)
class Claim:
    """A delivery's right to a job: what it tells the ledger with each heartbeat and finish."""

    ref: JobRef
    owner: str
    attempt: int = 0
    ack: Ack = Ack.NO
    starts: int = 0
    retries: int = 0


@dataclass(frozen=True)
class Beat:
    """One job's part of a heartbeat; while its handler runs, what is left of its time limit."""

    claim: Claim
    left: timedelta | None
    percent: int | None = None
    note: str = ""


class Kind(StrEnum):
    """What AWS is told: the put, and whether the job is to come back."""

    SUCCESS = "success"
    CONTINUE = "continue"
    FAILURE = "failure"


@dataclass(frozen=True)
class Verdict:
    """What AWS is to be told of a job. `ours`: the dispatcher judged, not a handler."""

    kind: Kind
    message: str = ""
    failure_type: str | None = None
    external_id: str | None = None
    percent: int | None = None
    token: str | None = field(default=None, repr=False)
    revision: Mapping[str, Any] | None = None
    variables: Mapping[str, str] | None = None
    ours: bool = False


@dataclass(frozen=True)
class Store:
    """Finish: the verdict, before it is sent."""

    verdict: Verdict


@dataclass(frozen=True)
class Again:
    """Finish: the same job once more, after a while; `why`, for people."""

    after: timedelta
    why: str = field(default="", compare=False)


@dataclass(frozen=True)
class Park:
    """Finish: nobody's; only a fresh offer brings the job back. `forget` drops a stored verdict."""

    why: str
    forget: bool = False


@dataclass(frozen=True)
class Release:
    """Finish: the lease ends after a while, and whoever begins then goes on."""

    after: timedelta
    why: str


@dataclass(frozen=True)
class Dead:
    """Finish: AWS will not take the verdict; kept for an operator. `why`: as AWS said."""

    told: "Verdict | None" = None
    why: str = ""


@dataclass(frozen=True)
class Done:
    """Finish: AWS has a result. `accepted`: it took ours, which holds whoever owns the record.

    `told`: what it was told, for people.
    """

    accepted: bool
    outcome: str
    told: "Verdict | None" = None


Arm = Store | Again | Park | Release | Dead | Done


@dataclass(frozen=True)
class Overdue:
    """A job that somebody must look at: what the sweep needs to choose a message."""

    ref: JobRef
    ack: Ack
    waits: bool  # for a Retry's time
    verdict: bool


@dataclass(frozen=True)
class Crew:
    """Of one provider: slots of its live workers, and jobs that somebody works on."""

    slots: int
    busy: int
    paused: bool = False
