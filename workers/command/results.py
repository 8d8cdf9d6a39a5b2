"""What a command leaves behind: its output artifacts, its log, its output variables.

All of it was written by the command, so all of it is checked.
"""

import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from dispatcher.sdk import ConfigurationError, Failure, Job, JobFailed, OutputArtifact

from .log import FILE
from .place import VARIABLES, Place, within

KEY: Final = re.compile(r"[A-Za-z0-9@_-]+")  # AWS's OutputVariablesKey
CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
BYTES: Final = 122_880  # of all output variables of an action: CodePipeline's quota


def check_outputs(name: str, declared: Mapping[str, OutputArtifact], paths: Sequence[str]) -> None:
    if len(declared) - len(paths) not in (0, 1):
        raise ConfigurationError(
            f"The action declares {len(declared)} output artifacts, but the command {name} makes "
            f"{len(paths)}; declare {len(paths)}, or {len(paths) + 1} to have the log in the last."
        )


def hand_over(name: str, job: Job[Any], paths: Sequence[str], place: Place) -> None:
    for artifact, path in zip(job.outputs.values(), paths, strict=False):
        found = within(place.root, place.start / path)
        if found is None:
            raise JobFailed(
                f"The command {name} made {path}, of the output artifact {artifact.name}, a link "
                "out of its sources; let it leave the files themselves."
            )
        if found.is_dir():
            artifact.archive(found)
        elif found.is_file():
            artifact.upload(found)
        else:
            raise JobFailed(
                f"The command {name} ended well, but left no file or folder {path} for the output "
                f"artifact {artifact.name}."
            )
    if len(job.outputs) > len(paths):
        _log_artifact(job).upload(job.workdir / FILE)


def keep_log(job: Job[Any], paths: Sequence[str]) -> None:
    """Of a command that failed, which is what the pipeline is to show, whatever happens here."""
    log = job.workdir / FILE
    if len(job.outputs) == len(paths) or not log.is_file():
        return
    try:
        _log_artifact(job).upload(log)
    except (Failure, OSError):
        job.log.warning("the log of a failed command could not be kept", exc_info=True)


def _log_artifact(job: Job[Any]) -> OutputArtifact:
    return list(job.outputs.values())[-1]


def variables_of(workdir: Path) -> dict[str, str]:
    path = workdir / VARIABLES
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return {}
    if not stat.S_ISREG(mode):
        raise JobFailed("CODEPIPELINE_VARIABLES_FILE is no plain file any more; append to it.")
    with path.open("rb") as file:
        return parse_variables(file.read(2 * BYTES + 1))


def parse_variables(content: bytes) -> dict[str, str]:
    """From lines KEY=VALUE; of two with one key the last holds."""
    found: dict[str, str] = {}
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            key, value = _variable(number, line.removesuffix(b"\r"))
            found[key] = value
    size = sum(len(text.encode()) for pair in found.items() for text in pair)
    if size > BYTES or len(content) > 2 * BYTES:
        raise JobFailed(f"CODEPIPELINE_VARIABLES_FILE holds more than AWS's {BYTES} bytes.")
    return found


def _variable(number: int, line: bytes) -> tuple[str, str]:
    where = f"CODEPIPELINE_VARIABLES_FILE, line {number},"
    try:
        key, equals, value = line.decode().partition("=")
    except UnicodeDecodeError:
        raise JobFailed(f"{where} is not UTF-8.") from None
    if not equals or not KEY.fullmatch(key):
        raise JobFailed(
            f"{where} must be KEY=VALUE, with a key of letters, digits, '@', '-' and '_'."
        )
    if CONTROL.search(value):
        raise JobFailed(f"{where} holds a control character in the value of {key[:100]}.")
    return key, value
