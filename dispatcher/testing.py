"""What the tests of a provider import: jobs without a broker, an engine or AWS.

A handler is a plain function: `deploy(make_job(Config(...)))` is the whole test harness.
"""

import logging
import shutil
import tempfile
import weakref
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypedDict, TypeVar, Unpack, overload
from uuid import uuid4

from dispatcher.sdk import ActionType, Job, Owner, Pipeline

__all__ = ["MadeJob", "Options", "Progress", "Recorder", "make_job"]

ConfigT = TypeVar("ConfigT")
_ACTION: Final = ActionType("Deploy", Owner.THIRD_PARTY, "Example", "1")
_PIPELINE: Final = Pipeline(name="pipeline", stage="Stage", action="Action")


@dataclass(frozen=True)
class Progress:
    """One call of `job.progress`."""

    percent: int | None
    note: str


@dataclass
class Recorder:
    """A job's control in tests: never sleeps, and remembers what it was asked."""

    stop: bool = False
    waits: list[float] = field(default_factory=list)
    progress_calls: list[Progress] = field(default_factory=list)

    def stopping(self) -> bool:
        """What `stop` says; a test may set it while the handler runs."""
        return self.stop

    def wait(self, seconds: float) -> bool:
        """Return at once; `waits` holds the seconds asked for."""
        self.waits.append(seconds)
        return self.stop

    def progress(self, percent: int | None, note: str) -> None:
        """Remember the call in `progress_calls`."""
        self.progress_calls.append(Progress(percent, note))


@dataclass(frozen=True, kw_only=True, eq=False)
class MadeJob(Job[ConfigT]):
    """A Job whose `control` can be read: `job.control.waits`, `job.control.progress_calls`."""

    control: Recorder = field(repr=False)


class Options(TypedDict, total=False):
    """What `make_job` takes beside the configuration; each has a default."""

    continuation: str | None
    attempt: int
    client_id: str | None
    id: str | None
    action: ActionType
    pipeline: Pipeline
    deadline: datetime | None
    stopping: bool
    workdir: Path | None


@overload
def make_job(config: None = None, **options: Unpack[Options]) -> MadeJob[None]: ...
@overload
def make_job(config: ConfigT, **options: Unpack[Options]) -> MadeJob[ConfigT]: ...
def make_job(
    config: Any = None,
    *,
    continuation: str | None = None,
    attempt: int = 1,
    client_id: str | None = "client",
    id: str | None = None,  # noqa: A002 - the job's own word
    action: ActionType = _ACTION,
    pipeline: Pipeline = _PIPELINE,
    deadline: datetime | None = None,
    stopping: bool = False,
    workdir: Path | None = None,
) -> MadeJob[Any]:
    """A job as the engine would hand it over; `job.wait` returns at once.

    The id is a new UUID, the deadline one hour from now, and the workdir a new temporary folder
    that is removed with the job, unless they are given.
    """
    job: MadeJob[Any] = MadeJob(
        id=id or str(uuid4()),
        config=config,
        client_id=client_id,
        action=action,
        pipeline=pipeline,
        continuation=continuation,
        attempt=attempt,
        deadline=deadline or datetime.now(UTC) + timedelta(hours=1),
        workdir=workdir or Path(tempfile.mkdtemp(prefix="job-")),
        log=logging.getLogger("dispatcher.testing"),
        control=Recorder(stop=stopping),
    )
    if workdir is None:
        # Not TemporaryDirectory: it warns when collected, and authors turn warnings into errors.
        weakref.finalize(job, shutil.rmtree, job.workdir, ignore_errors=True)
    return job
