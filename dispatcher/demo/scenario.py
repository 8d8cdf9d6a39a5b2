"""What the demo submits, how each job should end, and how far the emulator says that it is.

Pure: jobs come as `GET /_admin/jobs` shows them. It must not know processes or the screen."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Shown = Mapping[str, Any]  # one job of GET /_admin/jobs

TENANTS = ("acme", "globex", "initech")
STRANGER = "umbrella"  # a client that the token store does not know
OVER = {"Succeeded", "Failed", "TimedOut"}
BEGUN = {"InProgress", *OVER}


class End(StrEnum):
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    WAITING = "waiting"


@dataclass(frozen=True)
class ActionType:
    """As the admin calls take it."""

    category: str
    owner: str
    provider: str
    version: str = "1"


ECHO = ActionType("Test", "ThirdParty", "Echo")
COUNTDOWN = ActionType("Deploy", "Custom", "Countdown")


@dataclass(frozen=True)
class Planned:
    """A job to submit. `failure`: the type that AWS is to be told, when it should fail."""

    title: str
    action_type: ActionType
    configuration: Mapping[str, str]
    client: str | None = None
    should: End = End.SUCCEEDED
    failure: str | None = None
    carries: Mapping[str, str] | None = None  # files of its input artifact, and so of its output


def scenario(jobs: int) -> list[Planned]:
    """The first shows most; from the sixth on there are only jobs that succeed."""
    return [_planned(number) for number in range(jobs)]


def _planned(number: int) -> Planned:
    tenant = TENANTS[number % len(TENANTS)]
    match number:
        case 0:
            return _carrying(tenant)
        case 1:
            return _countdown(3)
        case 2:
            return _failing(tenant)
        case 3:
            return _misconfigured(tenant)
        case 4:
            return _of_a_stranger()
    return _countdown(2) if number % 4 == 1 else _echo(tenant, number)


def _echo(tenant: str, number: int) -> Planned:
    return Planned("echo", ECHO, {"Message": f"Hello {tenant}, this is job {number + 1}."}, tenant)


def _carrying(tenant: str) -> Planned:
    files = {"index.html": f"<h1>{tenant}</h1>\n", "assets/site.css": "h1 { color: navy }\n"}
    wanted = {"Message": "The artifact came in, and went out again."}
    return Planned("echo an artifact", ECHO, wanted, tenant, carries=files)


def _countdown(steps: int) -> Planned:
    return Planned(f"{steps} steps", COUNTDOWN, {"Steps": str(steps)})


def _failing(tenant: str) -> Planned:
    wanted = {"Message": "unused", "FailWith": "It was told to fail."}
    return Planned("fails on purpose", ECHO, wanted, tenant, End.FAILED, "JobFailed")


def _misconfigured(tenant: str) -> Planned:
    return Planned("misconfigured", ECHO, {}, tenant, End.FAILED, "ConfigurationError")


def _of_a_stranger() -> Planned:
    return Planned("unknown client", ECHO, {"Message": "unheard"}, STRANGER, End.WAITING)


@dataclass(frozen=True)
class Progress:
    """One planned job with all that continued it. Instants are the emulator's, in seconds."""

    planned: Planned
    status: str  # of the newest job of the chain
    step: int
    submitted: float
    moved: float
    offered: bool
    begun: bool
    failure: tuple[str, str] | None = None
    carried: bool = True  # its output artifact has the bytes of its input

    @property
    def end(self) -> End:
        """A job that is not over waits, whatever for."""
        if self.status not in OVER:
            return End.WAITING
        return End.SUCCEEDED if self.status == "Succeeded" else End.FAILED

    @property
    def well(self) -> bool:
        """It ended as it should; one that should wait was offered, and nobody began it."""
        if self.planned.should is End.WAITING:
            return self.offered and not self.begun
        failure = self.failure and self.failure[0]
        told = self.end is self.planned.should and failure == self.planned.failure
        return told and self.carried

    @property
    def settled(self) -> bool:
        return self.well or self.status in OVER

    @property
    def seconds(self) -> float:
        return self.moved - self.submitted


def progress(
    planned: Planned, first: str, jobs: Mapping[str, Shown], *, carried: bool = True
) -> Progress:
    chain = _chain(first, jobs)
    newest = chain[-1]
    past = {entry["status"] for job in chain for entry in job["history"]}
    return Progress(
        planned=planned,
        status=newest["status"],
        step=len(chain),
        submitted=chain[0]["history"][0]["at"],
        moved=newest["history"][-1]["at"],
        offered="Dispatched" in past,
        begun=bool(past & BEGUN),
        failure=_failure(newest),
        carried=carried,
    )


def _chain(first: str, jobs: Mapping[str, Shown]) -> list[Shown]:
    chain = [jobs[first]]
    while (following := chain[-1]["next"]) is not None:
        chain.append(jobs[following])
    return chain


def _failure(job: Shown) -> tuple[str, str] | None:
    details = ((job["result"] or {}).get("request") or {}).get("failureDetails")
    return (details["type"], details["message"]) if details else None


def count(seen: Sequence[Progress]) -> dict[str, int]:
    ends = Counter(one.end for one in seen)
    return {"jobs": len(seen), **{str(end): ends[end] for end in End}}
