"""Where a command runs and what it sees: its folders, its environment, its program.

Knows no process. Nothing of the worker's own environment gets in unless the operator names it.
"""

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dispatcher.sdk import ConfigurationError, Job, SystemUnavailable

from .allowed import Allowed

VARIABLES: Final = "variables"  # the file's name


@dataclass(frozen=True)
class Place:
    """The folders of one run, by their real paths; `root` holds the first input artifact."""

    work: Path
    root: Path
    start: Path
    inputs: Mapping[str, Path]


def prepared(job: Job[Any], directory: str) -> Place:
    work = Path(os.path.realpath(job.workdir))
    inputs = {name: work / "artifacts" / name for name in job.inputs}
    for name, folder in inputs.items():
        job.inputs[name].extract(folder)
    root = next(iter(inputs.values()), work / "artifacts" / "sources")
    root.mkdir(parents=True, exist_ok=True)
    for own in ("home", "tmp"):
        (work / own).mkdir()
    start = within(root, root / directory)
    if start is None or not start.is_dir():
        raise ConfigurationError(
            f"The sources hold no folder {directory}, in which the command is to start."
        )
    return Place(work, root, start, inputs)


def within(root: Path, path: Path) -> Path | None:
    """Its real path, if no link leads out of the root. Path.resolve would raise for a loop."""
    real = Path(os.path.realpath(path))
    return real if real.is_relative_to(root) else None


def environment_of(job: Job[Any], allowed: Allowed, place: Place) -> dict[str, str]:
    pipeline = job.pipeline
    known = {
        "JOB_ID": job.id,
        "ATTEMPT": str(job.attempt),
        "CLIENT_ID": job.client_id,
        "PIPELINE_NAME": pipeline.name,
        "PIPELINE_ARN": pipeline.arn,
        "STAGE": pipeline.stage,
        "ACTION": pipeline.action,
        "EXECUTION_ID": pipeline.execution_id,
        "ACTION_EXECUTION_ID": pipeline.action_execution_id,
        "VARIABLES_FILE": str(place.work / VARIABLES),
    }
    for name, folder in place.inputs.items():
        known["INPUT_" + re.sub(r"\W", "_", name, flags=re.ASCII)] = str(folder)
    return {
        "PATH": os.defpath,
        **{name: os.environ[name] for name in allowed.passed if name in os.environ},
        "HOME": str(place.work / "home"),
        "TMPDIR": str(place.work / "tmp"),
        **allowed.environment,
        **{f"CODEPIPELINE_{key}": value for key, value in known.items() if value is not None},
    }


def program(name: str, start: Path, path: str) -> str:
    """Looked up before the start, so that no exit status has to say that it is absent."""
    found = shutil.which(str(start / name) if "/" in name else name, path=path)
    if found:
        return str(Path(found).absolute())
    if "/" in name and not name.startswith("/"):
        raise ConfigurationError(f"The sources hold no {name} that may be executed.")
    raise SystemUnavailable(
        f"This worker has no program {name}; its operator must install it, or correct run."
    )
