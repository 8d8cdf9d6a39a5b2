"""One provider's handler against the emulator, in the test's own process: real calls, real S3.

The engine's own way from details to result, without what a fleet adds: no Redis, no queue, no
other process, so that a test may use a debugger and replace what the handler calls.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

from dispatcher.archives import Limits
from dispatcher.aws.artifacts import S3Artifacts
from dispatcher.aws.codepipeline import CodePipeline
from dispatcher.configuration import config_parser
from dispatcher.emulator.client import Emulator, Result
from dispatcher.engine.jobs import Jobs
from dispatcher.engine.leases import Held, Leases
from dispatcher.engine.model import (
    Action,
    Arm,
    Beat,
    Claim,
    JobDetails,
    JobRef,
    Offer,
    PortError,
    Store,
    Verdict,
)
from dispatcher.engine.run import Runner
from dispatcher.engine.times import Times
from dispatcher.folders import job_folder
from dispatcher.sdk import Job, Outcome, Owner, Secret, spec_of
from dispatcher.telemetry import LogObserver
from dispatcher.testing import Content, zipped
from dispatcher.wiring import SystemClock

REGION: Final = "us-east-1"
CLIENT: Final = "client"
TOKEN: Final = "token"  # noqa: S105 - of a client that does not exist
MOST: Final = 10**9  # bytes of an artifact
STEPS_MOST: Final = 100  # jobs of one action
OFFERED_WITHIN: Final = 10.0  # seconds


class RehearsalError(Exception):
    """The rehearsal cannot go on; the text says why."""


@dataclass(frozen=True)
class Rehearsed:
    """What came of an action: every result that was put, in order, and its output artifacts."""

    job_id: str
    results: Sequence[Result]
    outputs: Mapping[str, bytes]

    @property
    def succeeded(self) -> bool:
        return self.results[-1].succeeded

    @property
    def request(self) -> Mapping[str, Any]:
        """Of the last put, as AWS got it."""
        return self.results[-1].request

    @property
    def failure(self) -> tuple[str, str] | None:
        """AWS's failure type, and the message."""
        told = self.request.get("failureDetails")
        return (told["type"], told["message"]) if told else None

    @property
    def summary(self) -> str | None:
        told: Mapping[str, str] = self.request.get("executionDetails", {})
        return told.get("summary")

    @property
    def variables(self) -> Mapping[str, str]:
        told: Mapping[str, str] = self.request.get("outputVariables", {})
        return told


class Rehearsal:
    """`rehearse(handler, {"App": "shop"}, inputs={"Source": ...}, outputs=["App"])`."""

    def __init__(self, emulator: Emulator) -> None:
        """The AWS SDK's environment must point at the emulator."""
        self._emulator = emulator
        self._api = CodePipeline(connections=2)
        self._jobs = Jobs(self._api, _OneClient())
        self._runner = Runner(
            self._jobs,
            S3Artifacts(MOST),
            Limits(),
            _leases(),
            LogObserver(),
            SystemClock(),
            job_folder,
        )

    def __call__(
        self,
        handler: Callable[[Job[Any]], Outcome],
        configuration: Mapping[str, str] | None = None,
        *,
        inputs: Mapping[str, Content] | None = None,
        outputs: Sequence[str] = (),
        **more: Any,
    ) -> Rehearsed:
        """Submit a job, run the handler for it and for all that continue it, and tell what came.

        `more` is what else `Emulator.submit` takes, as pipelineName="shop". Raises RehearsalError
        where the handler is none, or the action does not end.
        """
        action = _action(handler)
        job_id = self._submit(action, configuration or {}, inputs or {}, outputs, more)
        try:
            self._until_it_ends(action, job_id)
        except PortError as error:
            raise RehearsalError(
                f"{error}; it may be a fault that the emulator was given"
            ) from None
        found = {name: self._emulator.artifact(job_id, name) for name in outputs}
        written = {name: content for name, content in found.items() if content is not None}
        return Rehearsed(job_id, self._emulator.results(job_id), written)

    def close(self) -> None:
        self._api.close()

    def _submit(
        self,
        action: Action,
        configuration: Mapping[str, str],
        inputs: Mapping[str, Content],
        outputs: Sequence[str],
        more: Mapping[str, Any],
    ) -> str:
        given = {n: c if isinstance(c, bytes) else zipped(c) for n, c in inputs.items()}
        return self._emulator.submit(
            action.spec.type.provider,
            configuration,
            owner=action.spec.type.owner.value,
            category=action.spec.type.category,
            version=action.spec.type.version,
            client_id=CLIENT,
            client_token=TOKEN,
            inputs=given,
            outputs=list(outputs),
            **more,
        )

    def _until_it_ends(self, action: Action, newest: str) -> None:
        for _ in range(STEPS_MOST):
            until = time.monotonic() + OFFERED_WITHIN
            while not self._step(action):
                if time.monotonic() > until:
                    raise RehearsalError(f"no job was offered within {OFFERED_WITHIN:g} s")
                time.sleep(0.02)
            job = self._emulator.job(newest)
            newest = job.next or newest
            if job.ended and job.next is None:
                return
        raise RehearsalError(f"the action went on after {STEPS_MOST} jobs")

    def _step(self, action: Action) -> bool:
        """Whether there was a job to do."""
        offers = self._api.poll(action.spec.type, REGION, 1)
        for offer in offers:
            client = CLIENT if action.spec.type.owner is Owner.THIRD_PARTY else None
            ref = JobRef(offer.job_id, client, action.spec.type, REGION)
            details = self._jobs.details(ref)
            self._jobs.acknowledge(ref, _nonce(offer, details))
            self._run(action, ref, details)
        return bool(offers)

    def _run(self, action: Action, ref: JobRef, details: JobDetails) -> None:
        held = _leases().hold(Claim(ref, owner=f"rehearsal/{ref.job_id}"), action.spec)
        try:
            self._jobs.put(ref, _verdict(self._runner, held, details, action))
        finally:
            _leases().drop(held)


class _OneClient:
    """The token store of the one client that all rehearsed jobs are of."""

    def get(self, client_id: str, *, fresh: bool = False) -> Secret | None:  # noqa: ARG002
        return Secret(TOKEN) if client_id == CLIENT else None


class _Alone:
    """The ledger of a process that has no others beside it."""

    def heartbeat(self, beats: Sequence[Beat]) -> frozenset[str]:  # noqa: ARG002
        return frozenset()

    def finish(self, claim: Claim, arm: Arm) -> bool:  # noqa: ARG002
        return True


@cache
def _leases() -> Leases:
    """One for all, since its thread stays as long as the process."""
    return Leases(_Alone(), LogObserver(), SystemClock(), Times(), lambda: False, lambda: None)


def _verdict(runner: Runner, held: Held, details: JobDetails, action: Action) -> Verdict:
    """Retries follow at once; they are counted all the same."""
    while True:
        arm = runner.run(held, details, action)
        if isinstance(arm, Store):
            return arm.verdict
        held.claim = replace(held.claim, retries=held.claim.retries + 1)


def _action(handler: Callable[[Job[Any]], Outcome]) -> Action:
    spec = spec_of(handler)
    if spec is None:
        raise RehearsalError("the handler is no function marked with dispatcher.sdk.action")
    return Action(spec, handler, config_parser(spec.config), handler.__module__)


def _nonce(offer: Offer, details: JobDetails) -> str:
    nonce = details.nonce or offer.nonce
    if nonce is None:
        raise RehearsalError("neither the offer nor the details had a nonce")
    return nonce
