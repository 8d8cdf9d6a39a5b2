"""What CodePipeline's jobs are: owners, states, errors, what a job is about and what came of it.

It must not know how a job moves from state to state."""

import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any


class Owner(StrEnum):
    """Whose action type it is, which is also which five of the ten calls serve it."""

    THIRD_PARTY = "ThirdParty"
    CUSTOM = "Custom"


class Status(StrEnum):
    """AWS's seven job states."""

    CREATED = "Created"
    QUEUED = "Queued"
    DISPATCHED = "Dispatched"
    IN_PROGRESS = "InProgress"
    TIMED_OUT = "TimedOut"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


ENDED = {Status.TIMED_OUT, Status.SUCCEEDED, Status.FAILED}


class Code(StrEnum):
    """The names of the errors that AWS's model lists for the job calls."""

    ACTION_TYPE_NOT_FOUND = "ActionTypeNotFoundException"
    INVALID_CLIENT_TOKEN = "InvalidClientTokenException"  # noqa: S105 - an error's name
    INVALID_JOB = "InvalidJobException"
    INVALID_JOB_STATE = "InvalidJobStateException"
    INVALID_NONCE = "InvalidNonceException"
    JOB_NOT_FOUND = "JobNotFoundException"
    OUTPUT_VARIABLES_SIZE_EXCEEDED = "OutputVariablesSizeExceededException"
    VALIDATION = "ValidationException"


class CallError(Exception):
    """AWS would refuse the call with this code: of `Code`, or one that all its services have."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True)
class ActionType:
    category: str
    owner: str
    provider: str
    version: str


@dataclass(frozen=True)
class Rules:
    """What an action type's declaration says about its jobs."""

    queryable: str | None = None
    job_timeout: timedelta | None = None


@dataclass(frozen=True)
class Work:
    """What a job is about; every job of a continuation chain has the same."""

    action_type: ActionType
    configuration: Mapping[str, str] = field(repr=False)
    pipeline: str
    stage: str
    action: str
    client_id: str | None = None
    client_token: str | None = field(default=None, repr=False)
    artifacts: Mapping[str, Any] = field(default_factory=dict)
    action_execution_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    pipeline_execution_id: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass(frozen=True)
class Caller:
    """Which of the two families of calls asks, for which job, with which client token."""

    owner: Owner
    job_id: str
    client_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Result:
    """A put that was accepted."""

    operation: str
    request: Mapping[str, Any] = field(repr=False)
    at: float


@dataclass(eq=False)
class Job:
    work: Work
    deadline: float
    continuation_token: str | None = field(default=None, repr=False)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    status: Status = Status.CREATED
    nonce: str | None = field(default=None, repr=False)
    history: list[tuple[Status, float]] = field(default_factory=list)
    result: Result | None = None
    next: str | None = None
    previous_nonce: str | None = field(default=None, repr=False)

    def renew_nonce(self) -> None:
        self.previous_nonce, self.nonce = self.nonce, secrets.token_hex(16)
