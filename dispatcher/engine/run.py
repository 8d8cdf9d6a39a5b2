"""The handler, under its lease: from an acknowledged job to a verdict, whatever the handler does.

The only place with a broad except: a handler may raise anything, SystemExit included, and on the
threads pool an exception that leaves the task would cost the slot for ever."""

import contextvars
import logging
import uuid
from collections.abc import Callable, MutableMapping
from contextlib import AbstractContextManager
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

from dispatcher.archives import Limits
from dispatcher.engine import lifecycle
from dispatcher.engine.artifacts import Watch
from dispatcher.engine.jobs import Jobs
from dispatcher.engine.leases import Held, Leases
from dispatcher.engine.model import Action, Again, JobDetails, SessionKeys, Store
from dispatcher.engine.ports import ArtifactStore, Clock, Event, Observer
from dispatcher.sdk import (
    Artifacts,
    Continue,
    Failure,
    InputArtifact,
    Job,
    Outcome,
    OutputArtifact,
    Succeeded,
)
from dispatcher.sdk.artifacts import Bench


class JobLogger(logging.LoggerAdapter[logging.Logger]):
    """Adds the job's fields to the author's own (the standard one drops those before 3.13)."""

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        return msg, {**kwargs, "extra": {**(kwargs.get("extra") or {}), **(self.extra or {})}}


class Runner:
    def __init__(
        self,
        jobs: Jobs,
        artifacts: ArtifactStore,
        limits: Limits,
        leases: Leases,
        observer: Observer,
        clock: Clock,
        folder: Callable[[], AbstractContextManager[str]],
    ) -> None:
        """`folder`: a new one for each job, removed when it is left."""
        self._jobs = jobs
        self._artifacts = artifacts
        self._limits = limits
        self._leases = leases
        self._observer = observer
        self._clock = clock
        self._folder = folder

    def run(self, held: Held, details: JobDetails, action: Action) -> Store | Again | None:
        """None: the first heartbeat did not go through, so the handler did not start."""
        held.claim = replace(held.claim, starts=held.claim.starts + 1)
        if not self._leases.start(held):
            self._observer.saw(Event.LOST, held.claim)
            return None
        self._observer.saw(Event.STARTED, held.claim, run=held.claim.starts)
        try:
            # A context of its own: no variable that it sets is seen by the thread's next job.
            outcome = contextvars.copy_context().run(self._call, held, details, action)
        except BaseException as error:  # noqa: BLE001
            return self._raised(held, action, details, error)
        finally:
            held.deadline = None
        if isinstance(outcome, Succeeded) and outcome.variables and held.claim.ref.client_id:
            self._observer.saw(Event.VARIABLES_LEFT_OUT, held.claim)
        return Store(lifecycle.returned(outcome, held.claim.ref.type.owner))

    def _call(self, held: Held, details: JobDetails, action: Action) -> Outcome:
        config = action.parse(details.configuration)
        watch = Watch(held, self._observer, self._clock)

        def renew() -> SessionKeys | None:
            return self._jobs.details(held.claim.ref).belongings.keys

        with (
            self._folder() as folder,
            self._artifacts.open(
                held.claim.ref.region, details.belongings, renew, watch
            ) as storage,
        ):
            bench = Bench(storage, _new(folder, "transfers"), self._limits, held.over)
            workdir = _new(folder, "work")
            outcome = action.handler(self._job(held, details, config, workdir, bench))
        if not isinstance(outcome, Succeeded | Continue):
            raise TypeError(f"the handler returned a {type(outcome).__name__}")
        lifecycle.check_outputs(outcome, details, bench.written, held.claim.starts)
        return outcome

    def _job(
        self, held: Held, details: JobDetails, config: object, workdir: Path, bench: Bench
    ) -> Job[Any]:
        claim, files = held.claim, details.belongings
        fields = {
            "job_id": claim.ref.job_id,
            "provider": claim.ref.type.provider,
            "client": claim.ref.client_id,
            "attempt": claim.attempt,
            "run": claim.starts,
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
            inputs=Artifacts(
                "input",
                [InputArtifact(one.name, one.revision, bench=bench) for one in files.inputs],
            ),
            outputs=Artifacts(
                "output", [OutputArtifact(one.name, bench=bench) for one in files.outputs]
            ),
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
            held.claim,
            reference=reference,
            error=error,
            secrets=_secrets(details),
        )
        return Store(lifecycle.bug(reference))


def _new(folder: str, name: str) -> Path:
    made = Path(folder, name)
    made.mkdir()
    return made


def _secrets(details: JobDetails) -> tuple[str | None, ...]:
    """What no traceback may show. The keys may have been renewed since: those end in minutes."""
    files = details.belongings
    keys = astuple(files.keys) if files.keys else ()
    places = [text for at in (*files.inputs, *files.outputs) for text in (at.bucket, at.key)]
    own = (details.continuation, details.nonce, files.encryption_key)
    return (*own, *keys, *places, *details.configuration.values())
