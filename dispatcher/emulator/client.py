"""The emulator as a test drives it: jobs in, results out, faults on demand.

Plain HTTP and nothing of the dispatcher, so that it serves whoever tests a worker of his own.
"""

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from dispatcher.emulator.options import camel_case

LOOK_EVERY = 0.01  # seconds
STATES = ("Created", "Queued", "Dispatched", "InProgress", "TimedOut", "Succeeded", "Failed")
OPERATIONS = {
    name.format(kind)
    for kind in ("", "ThirdParty")
    for name in (
        "PollFor{}Jobs",
        "Get{}JobDetails",
        "Acknowledge{}Job",
        "Put{}JobSuccessResult",
        "Put{}JobFailureResult",
    )
}


class EmulatorError(Exception):
    """The emulator refuses a request, or did not start; the text says why."""


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
class FaultState:
    """A rule, and how many calls matched it, were befallen by it, and wait because of it now."""

    id: str
    kind: str
    matched: int
    taken: int
    held: int


class Emulator:
    """A running emulator. Errors are EmulatorError, which says what is wrong with a request."""

    def __init__(self, url: str) -> None:
        self.url = url

    @property
    def environment(self) -> dict[str, str]:
        """What makes any AWS SDK talk to it, and to it alone."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ENDPOINT_URL_CODEPIPELINE": self.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": str(urlsplit(self.url).hostname),
            "no_proxy": str(urlsplit(self.url).hostname),
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def reset(self, **options: float | str) -> None:
        """Forget all jobs, calls and faults, and what moto holds.

        `options` are those of `dispatcher emulator`, by names such as ack_window=5.
        """
        self.ask("/_admin/reset", {camel_case(name): value for name, value in options.items()})

    def submit(
        self,
        provider: str,
        configuration: Mapping[str, str] | None = None,
        *,
        owner: Literal["Custom", "ThirdParty"] = "Custom",
        category: str = "Test",
        version: str = "1",
        client_id: str = "client",
        client_token: str = "token",  # noqa: S107 - of a client that does not exist
        **more: Any,
    ) -> str:
        """Offer a job, and answer its id. The client is a third-party job's alone.

        `more`: other members of POST /_admin/jobs, as they are, such as inputArtifacts.
        """
        action_type = to_action_type(category, owner, provider, version)
        client = {"clientId": client_id, "clientToken": client_token}
        body = {"actionTypeId": action_type, "configuration": dict(configuration or {}), **more}
        made = self.ask("/_admin/jobs", body | (client if owner == "ThirdParty" else {}))
        return str(made["jobIds"][0])

    def define(
        self,
        provider: str,
        *,
        owner: Literal["Custom", "ThirdParty"] = "Custom",
        category: str = "Test",
        version: str = "1",
        queryable: str | None = None,
        job_timeout: float | None = None,
    ) -> None:
        """Declare an action type without a job; `submit` declares one by itself."""
        action_type = to_action_type(category, owner, provider, version)
        body = {"actionTypeId": action_type, "queryable": queryable, "jobTimeout": job_timeout}
        self.ask("/_admin/action-types", body)

    def job(self, job_id: str) -> EmulatedJob:
        found = self.ask(f"/_admin/jobs?id={job_id}")
        if not found:
            raise EmulatorError(f"there is no job {job_id}")
        return to_job(found[0])

    def jobs(self) -> list[EmulatedJob]:
        """All, in order of creation."""
        return [to_job(found) for found in self.ask("/_admin/jobs")]

    def chain(self, job_id: str) -> list[EmulatedJob]:
        """This job and those that its continuation tokens brought, in order."""
        jobs = [self.job(job_id)]
        while jobs[-1].next is not None:
            jobs.append(self.job(jobs[-1].next))
        return jobs

    def wait_for(
        self, job_id: str, status: str | None = None, *, timeout: float = 30
    ) -> EmulatedJob:
        """The job once it is, or was, in this state; without one, the last job of its action once
        that has ended. Raises TimeoutError with what became of it: after so many seconds, or at
        once when it can come no more."""
        if status not in {None, *STATES}:
            raise EmulatorError(f"there is no state {status}; there are {', '.join(STATES)}")
        until = time.monotonic() + timeout
        while True:
            job = self.job(job_id) if status is not None else self.chain(job_id)[-1]
            if job.ended if status is None else status in dict(job.history):
                return job
            if job.ended or time.monotonic() > until:
                states = ", ".join(state for state, _ in job.history)
                raise TimeoutError(f"not within {timeout:g} s; {job.id} was {states}")
            time.sleep(LOOK_EVERY)

    def results(self, job_id: str) -> list[Result]:
        """What was put for this job and those that its continuation tokens brought, in order."""
        return [job.result for job in self.chain(job_id) if job.result is not None]

    def calls(self, operation: str | None = None, job_id: str | None = None) -> list[Call]:
        """All job calls in order of their arrival, or those of one operation or job."""
        if operation is not None and operation not in OPERATIONS:
            raise EmulatorError(f"there is no job call {operation}")
        if job_id is not None:
            self.job(job_id)
        return [
            call
            for call in map(to_call, self.ask("/_admin/log"))
            if operation in {None, call.operation} and job_id in {None, call.job_id}
        ]

    def add_fault(self, kind: str, **rule: Any) -> str:
        """Have a fault befall calls, once unless the rule says how often; answers its id.

        `rule`: operation, job_id, count, probability, after, seed, error, status, seconds, bytes,
        when. `dispatcher/docs/emulator.md` has the kinds.
        """
        body = {camel_case(name): value for name, value in rule.items()}
        made = self.ask("/_admin/faults", {"kind": kind, **body})
        return str(made["faults"][0]["id"])

    def faults(self) -> list[FaultState]:
        return [
            FaultState(*(shown[name] for name in ("id", "kind", "matched", "taken", "held")))
            for shown in self.ask("/_admin/faults")["faults"]
        ]

    def remove_fault(self, fault_id: str | None = None) -> None:
        """One, or all; calls that it holds go on."""
        which = "" if fault_id is None else f"?id={fault_id}"
        self.ask(f"/_admin/faults{which}", method="DELETE")

    def release(self, fault_id: str | None = None) -> int:
        """Let calls go on that this fault holds, or any; answers how many."""
        body = {} if fault_id is None else {"id": fault_id}
        return int(self.ask("/_admin/release", body)["released"])

    def abandon(self, job_id: str) -> None:
        self.ask(f"/_admin/jobs/{job_id}/abandon", {})

    def time_out(self, job_id: str) -> None:
        self.ask(f"/_admin/jobs/{job_id}/time-out", {})

    def set_clock(self, offset: float) -> None:
        """Have AWS's clock run so many seconds ahead of this machine's."""
        self.ask("/_admin/clock", {"offset": offset})

    def ask(self, path: str, body: object = None, method: str | None = None) -> Any:
        """Any admin call, decoded."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, method=method)  # noqa: S310
        try:
            with DIRECT.open(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                raise EmulatorError(f"{path}: {json.load(error)['error']}") from None
        except OSError as error:
            raise EmulatorError(f"the emulator at {self.url} does not answer: {error}") from None


DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is on this machine


def to_action_type(category: str, owner: str, provider: str, version: str) -> dict[str, str]:
    return {"category": category, "owner": owner, "provider": provider, "version": version}


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
    named = {"job_id" if name == "jobId" else name: value for name, value in shown.items()}
    return Call(**named)
