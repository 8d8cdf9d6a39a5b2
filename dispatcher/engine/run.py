"""The handler, under its lease: from an acknowledged job to a verdict, whatever the handler does.

The only place with a broad except: a handler may raise anything, SystemExit included, and on the
threads pool an exception that leaves the task would cost the slot for ever."""

import contextvars
import logging
import uuid
from collections.abc import MutableMapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dispatcher.engine import lifecycle
from dispatcher.engine.leases import Held, Leases
from dispatcher.engine.model import Action, Again, JobDetails, Store
from dispatcher.engine.ports import Clock, Event, Observer
from dispatcher.sdk import Continue, Failure, Job, Outcome, Succeeded


class JobLogger(logging.LoggerAdapter[logging.Logger]):
    """Adds the job's fields to the author's own (the standard one drops those before 3.13)."""

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        return msg, {**kwargs, "extra": {**(kwargs.get("extra") or {}), **(self.extra or {})}}


class Runner:
    def __init__(self, leases: Leases, observer: Observer, clock: Clock) -> None:
        self._leases = leases
        self._observer = observer
        self._clock = clock

    def run(self, held: Held, details: JobDetails, action: Action) -> Store | Again | None:
        """None: the first heartbeat did not go through, so the handler did not start."""
        held.claim = replace(held.claim, starts=held.claim.starts + 1)
        if not self._leases.start(held):
            self._observer.saw(Event.LOST, held.claim.ref, begin=held.claim.attempt)
            return None
        self._observer.saw(Event.STARTED, held.claim.ref, attempt=held.claim.starts)
        try:
            # A context of its own: no variable that it sets is seen by the thread's next job.
            outcome = contextvars.copy_context().run(self._call, held, details, action)
        except BaseException as error:  # noqa: BLE001
            return self._raised(held, action, details, error)
        finally:
            held.deadline = None
        if isinstance(outcome, Succeeded) and outcome.variables and held.claim.ref.client_id:
            self._observer.saw(Event.VARIABLES_LEFT_OUT, held.claim.ref)
        return Store(lifecycle.returned(outcome, held.claim.ref.type.owner))

    def _call(self, held: Held, details: JobDetails, action: Action) -> Outcome:
        config = action.parse(details.configuration)
        with TemporaryDirectory(prefix="job-", ignore_cleanup_errors=True) as workdir:
            outcome = action.handler(self._job(held, details, config, Path(workdir)))
        if not isinstance(outcome, Succeeded | Continue):
            raise TypeError(f"the handler returned a {type(outcome).__name__}")
        return outcome

    def _job(self, held: Held, details: JobDetails, config: object, workdir: Path) -> Job[Any]:
        claim = held.claim
        fields = {
            "job_id": claim.ref.job_id,
            "provider": claim.ref.type.provider,
            "client": claim.ref.client_id,
            "attempt": claim.starts,
        }
        logger = logging.getLogger(f"dispatcher.provider.{claim.ref.type.provider}")
        return Job(
            id=claim.ref.job_id,
            config=config,
            client_id=claim.ref.client_id,
            action=claim.ref.type,
            pipeline=details.pipeline,
            continuation=details.continuation,
            attempt=claim.starts,
            deadline=self._clock.now() + held.left(),
            workdir=workdir,
            log=JobLogger(logger, fields),
            control=held,
        )

    def _raised(
        self, held: Held, action: Action, details: JobDetails, error: BaseException
    ) -> Store | Again:
        if isinstance(error, Failure):
            return Store(lifecycle.failed(error))
        retry = lifecycle.raised_retry(error, action.spec, held.claim.retries)
        if retry is not None:
            return retry
        reference = uuid.uuid4().hex[:12]
        self._observer.saw(
            Event.BUG,
            held.claim.ref,
            reference=reference,
            error=error,
            secrets=(details.continuation, details.nonce, *details.configuration.values()),
        )
        return Store(lifecycle.bug(reference))
