"""A command as a process that never outlives its job, not even if the worker is killed. Linux.

Knows no job, and not why a command is ended.
"""

import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from .allowed import Allowed

# The command waits behind this gate, in a session of its own, until its guard and its limits stand.
# If the worker dies before, the gate reads the end of its pipe, and nothing starts.
GATE: Final = 'read -r _ || exit 1; exec "$@" </dev/null'
# Ends the command's group when the worker closes the pipe, or the kernel does since the worker was
# killed; then daemons that left the group, found by the job's id in their environment. It looks
# until it has found none twice: what was killed takes a moment to go, and what is about to execute
# another program has no environment for another. It stands outside the group, so that neither the
# command nor a signal to the group ends it before.
GUARD: Final = """trap '' HUP INT TERM
read -r _
kill -s KILL -- "-$1"
rounds=0 calm=0
while [ $calm -lt 2 ] && [ $rounds -lt 100 ]; do
  rounds=$((rounds + 1)) calm=$((calm + 1))
  for found in $(grep -lzsFx -e "CODEPIPELINE_JOB_ID=$2" /proc/[0-9]*/environ); do
    calm=0 found=${found#/proc/}
    kill -s KILL "${found%/environ}"
  done
done"""


def gated(argv: list[str], start: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """The command before its start, to be used in `with`."""
    return subprocess.Popen(
        ["/bin/sh", "-c", GATE, "sh", *argv],
        cwd=start,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        bufsize=0,
        start_new_session=True,
    )


@contextmanager
def released(process: subprocess.Popen[bytes], job_id: str, allowed: Allowed) -> Iterator[None]:
    """It runs inside; afterwards nothing of it does, whatever happened. It is not reaped here."""
    with _guarded(process.pid, job_id):
        # From here, and not in a preexec_fn, which may hang where the worker has threads.
        _limit(process.pid, resource.RLIMIT_CORE, 0)
        _limit(process.pid, resource.RLIMIT_FSIZE, allowed.file_size)
        if allowed.memory is not None:
            _limit(process.pid, resource.RLIMIT_AS, allowed.memory)
        with opened(process.stdin) as gate:
            gate.write(b"\n")
        yield


@contextmanager
def _guarded(group: int, job_id: str) -> Iterator[None]:
    guard = subprocess.Popen(
        ["/bin/sh", "-c", GUARD, "sh", str(group), job_id],
        cwd="/",
        env={"PATH": os.environ.get("PATH", os.defpath)},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        with guard:
            yield
    finally:
        # If somebody killed the guard. The command is not reaped yet: its number is still its own.
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


def opened(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise RuntimeError("the process was started without this pipe")
    return stream


def _limit(pid: int, which: int, most: int) -> None:
    hard = resource.prlimit(pid, which)[1]
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.prlimit(pid, which, (most, most))
