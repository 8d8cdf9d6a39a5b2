"""What the tests of a provider import: jobs without a broker, an engine or AWS.

A handler is a plain function: `deploy(make_job(Config(...)))` is the whole test harness.
"""

import io
import logging
import shutil
import tempfile
import weakref
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypedDict, TypeVar, Unpack, overload
from uuid import uuid4

from dispatcher.sdk import (
    ActionType,
    Artifacts,
    InputArtifact,
    Job,
    JobFailed,
    OutputArtifact,
    Owner,
    Pipeline,
)
from dispatcher.sdk.artifacts import Bench

__all__ = ["MadeJob", "MemoryStorage", "Options", "Progress", "Recorder", "make_job", "zipped"]

ConfigT = TypeVar("ConfigT")
Content = bytes | Mapping[str, bytes | str]  # a mapping of file names is zipped
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


@dataclass
class MemoryStorage:
    """A job's artifacts in memory: `given` are its inputs, `written` its outputs."""

    given: Mapping[str, bytes] = field(default_factory=dict)
    written: dict[str, bytes] = field(default_factory=dict)

    def fetch(self, name: str, path: Path, most: int | None = None) -> None:
        """As S3 would."""
        content = self.given[name]
        if most is not None and len(content) > most:
            raise JobFailed(f"Input artifact {name} has {len(content)} bytes; at most {most}.")
        path.write_bytes(content)

    def store(self, name: str, path: Path, content_type: str) -> None:  # noqa: ARG002
        """As S3 would."""
        self.written[name] = path.read_bytes()


@dataclass(frozen=True, kw_only=True, eq=False)
class MadeJob(Job[ConfigT]):
    """A Job that can be looked at: `job.control.waits`, `job.control.progress_calls`,
    `job.written["App"]`, the bytes of an output artifact."""

    control: Recorder = field(repr=False)
    storage: MemoryStorage = field(repr=False)

    @property
    def written(self) -> Mapping[str, bytes]:
        """The output artifacts that the handler wrote."""
        return self.storage.written


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
    inputs: Mapping[str, Content] | None
    outputs: Sequence[str]


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
    inputs: Mapping[str, Content] | None = None,
    outputs: Sequence[str] = (),
) -> MadeJob[Any]:
    """A job as the engine would hand it over; `job.wait` returns at once.

    `inputs` are the contents of its input artifacts, in memory; a mapping of file names to contents
    is zipped. `outputs` names its output artifacts, to be read from `job.written` afterwards.

    The id is a new UUID, the deadline one hour from now, and the workdir a new temporary folder
    that is removed with the job, unless they are given.
    """
    given = inputs or {}
    storage = MemoryStorage({name: _packed(content) for name, content in given.items()})
    folder = Path(tempfile.mkdtemp(prefix="job-"))
    transfers, own = folder / "transfers", folder / "work"
    transfers.mkdir()
    own.mkdir()
    bench = Bench(storage, transfers)
    job: MadeJob[Any] = MadeJob(
        id=id or str(uuid4()),
        config=config,
        client_id=client_id,
        action=action,
        pipeline=pipeline,
        continuation=continuation,
        attempt=attempt,
        deadline=deadline or datetime.now(UTC) + timedelta(hours=1),
        inputs=Artifacts("input", [InputArtifact(name, bench=bench) for name in given]),
        outputs=Artifacts("output", [OutputArtifact(name, bench=bench) for name in outputs]),
        storage=storage,
        workdir=workdir or own,
        log=logging.getLogger("dispatcher.testing"),
        control=Recorder(stop=stopping),
    )
    # Of the storage, which the job and its artifacts share. Not TemporaryDirectory: it warns when
    # collected, and authors turn warnings into errors.
    weakref.finalize(storage, shutil.rmtree, folder, ignore_errors=True)
    return job


def _packed(content: Content) -> bytes:
    return content if isinstance(content, bytes) else zipped(content)


def zipped(files: Mapping[str, bytes | str]) -> bytes:
    """A zip of these files, as a source action would hand it over."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return held.getvalue()
