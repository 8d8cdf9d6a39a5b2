"""What a test sees of the emulator: jobs, results, calls, faults.

It must not know how it is asked for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Result:
    """A put that was accepted: which call, and its request with the client token masked."""

    operation: str
    request: Mapping[str, Any]
    at: float

    @property
    def succeeded(self) -> bool:
        return self.operation.endswith("SuccessResult")


@dataclass(frozen=True)
class EmulatedJob:
    """`status` and those in `history` are AWS's; times are epoch seconds.

    `next`: the id of the job that goes on after this one's continuation token.
    """

    id: str
    status: str
    history: Sequence[tuple[str, float]]
    result: Result | None
    next: str | None
    action_execution_id: str

    @property
    def ended(self) -> bool:
        return self.status in {"Succeeded", "Failed", "TimedOut"}


@dataclass(frozen=True)
class Call:
    """One of the ten calls, as it arrived, with secrets masked.

    `applied`: it changed a job. `fault`: the kind of the fault that befell it.
    """

    at: float
    operation: str
    job_id: str | None
    request: Any
    status: int | None
    error: str | None
    applied: bool
    fault: str | None


@dataclass(frozen=True)
class S3Call:
    """A request to S3, as it ended. `job_id`: whose session keys it was signed with.

    `bytes`: of the body that came, or else of the one that was sent.
    """

    at: float
    operation: str
    bucket: str | None
    key: str | None
    job_id: str | None
    status: int | None
    error: str | None
    fault: str | None
    bytes: int


@dataclass(frozen=True)
class FaultState:
    """A rule, and how many calls matched it, were befallen by it, and wait because of it now."""

    id: str
    kind: str
    matched: int
    taken: int
    held: int


def to_job(shown: Mapping[str, Any]) -> EmulatedJob:
    result = shown["result"]
    return EmulatedJob(
        id=shown["id"],
        status=shown["status"],
        history=[(step["status"], step["at"]) for step in shown["history"]],
        result=None if result is None else Result(**result),
        next=shown["next"],
        action_execution_id=shown["actionExecutionId"],
    )


def to_call(shown: Mapping[str, Any]) -> Call:
    return Call(**named(shown))


def to_s3_call(shown: Mapping[str, Any]) -> S3Call:
    return S3Call(**named(shown))


def named(shown: Mapping[str, Any]) -> dict[str, Any]:
    return {"job_id" if name == "jobId" else name: value for name, value in shown.items()}
