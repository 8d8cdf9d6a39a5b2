"""Runs a command that this worker's operator allows, on the artifacts of the pipeline's action.

The pipeline gives a name and nothing else; see dispatcher/docs/command.md. Linux alone.
Action type: Custom, Build, Command, version 1.
"""

import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

from dispatcher.sdk import Failure, Job, Key, Outcome, Retry, Succeeded, SystemUnavailable, action

from .allowed import Allowed, allowed_command
from .log import Log
from .place import Place, environment_of, prepared, program
from .process import gated, released
from .results import check_outputs, hand_over, keep_log, variables_of
from .watch import Watch

__all__ = ["Config", "command"]


@dataclass(frozen=True)
class Config:
    """The key `Command`: all that the pipeline's author fills in."""

    command: Annotated[
        str, Key(description="The name of a command that the worker's operator allows.")
    ]


# The longest that AWS gives a custom action. Each command has a timeout of its own. Not "rerun":
# only its owner knows whether a command may run twice.
@action(
    "Build",
    "Command",
    version="1",
    owner="Custom",
    config=Config,
    on_crash="fail",
    time_limit=timedelta(hours=24),
)
def command(job: Job[Config]) -> Outcome:
    """Succeed with its outputs when it ends with 0, else fail; the log is an output of both."""
    name = job.config.command
    allowed = allowed_command(name)
    check_outputs(name, job.outputs, allowed.outputs)
    failure: Failure
    try:
        return _run(name, job, allowed)
    except OSError as error:
        job.log.warning("the worker failed at a command", exc_info=True)
        failure = SystemUnavailable(
            f"The worker itself failed at the command {name} ({error.strerror or 'no reason'}); "
            "its log has the details."
        )
    except Failure as error:
        failure = error
    failure.external_id = _external_id(job)
    keep_log(job, allowed.outputs)
    raise failure


def _run(name: str, job: Job[Config], allowed: Allowed) -> Succeeded:
    place = prepared(job, allowed.directory)
    if job.stopping:
        # While the artifacts came. Nothing has run yet, so another worker may do it.
        raise Retry
    watch = _watched(name, job, allowed, place)
    job.log.info(
        "command ended",
        extra={"command": name, "status": watch.status, "seconds": round(watch.seconds, 1)},
    )
    if failure := watch.failure():
        raise failure
    variables = variables_of(job.workdir)
    hand_over(name, job, allowed.outputs, place)
    return Succeeded(
        f"The command {name} succeeded after {watch.seconds:.0f} s. "
        f"Output artifacts: {len(job.outputs)}; variables: {len(variables)}.",
        external_id=_external_id(job),
        variables=variables or None,
    )


def _watched(name: str, job: Job[Config], allowed: Allowed, place: Place) -> Watch:
    """The command when it has ended, with all that it started."""
    environment = environment_of(job, allowed, place)
    argv = [program(allowed.run[0], place.start, environment["PATH"]), *allowed.run[1:]]
    with (
        Log(job.workdir, allowed.log_size) as log,
        gated(argv, place.start, environment) as process,
    ):
        watch = Watch(name, job, allowed, log, process)
        with released(process, job.id, allowed):
            watch.follow()
        watch.drain()
    return watch


def _external_id(job: Job[Config]) -> str:
    """Where an operator finds what the pipeline shows: the log of this host names the job."""
    return f"{socket.gethostname()}/{job.id}"
