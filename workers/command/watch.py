"""Follows a running command: its output, its limits, the worker's stop; and says how it ended.

Knows no artifacts.
"""

import os
import select
import signal
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf
from time import monotonic
from typing import Any, Final

from dispatcher.sdk import (
    ConfigurationError,
    Failure,
    FailureType,
    Job,
    JobFailed,
    PermissionDenied,
    RevisionOutOfSync,
    RevisionUnavailable,
    SystemUnavailable,
)

from .allowed import Allowed
from .log import Log, readable
from .process import opened

CHUNK: Final = 64 * 1024
DRAIN: Final = 32  # chunks that a pipe may still hold when nobody writes to it any more
GLANCE: Final = 0.05  # seconds: how late the end of a command, or a reason to end it, is seen
PROGRESS: Final = 2.0  # seconds between two notes
PATIENCE: Final = 3.0  # seconds between TERM and KILL
RESERVE: Final = 15.0  # seconds of the job's time kept to end a command and to hand on its log
SHOWN: Final = 4_000  # characters of the log in a failure, of AWS's 5,000
FAILURES: Final = {
    kind.type: kind
    for kind in (
        JobFailed,
        ConfigurationError,
        PermissionDenied,
        RevisionOutOfSync,
        RevisionUnavailable,
        SystemUnavailable,
    )
}


@dataclass
class Watch:
    """One command of one job, from its start on."""

    name: str
    job: Job[Any]
    allowed: Allowed
    log: Log
    process: subprocess.Popen[bytes]
    began: float = field(default_factory=monotonic)
    ended: float = inf
    stopping: float = inf  # since when its worker is
    fault: Failure | None = None  # why it was ended
    _noted: float = -inf

    def __post_init__(self) -> None:
        left = (self.job.deadline - datetime.now(UTC)).total_seconds()
        self._limit = max(min(self.allowed.timeout, left - min(RESERVE, left / 4)), 0)
        self._output = opened(self.process.stdout)
        self._poll = select.poll()
        self._poll.register(self._output, select.POLLIN)

    def follow(self) -> None:
        """Return when the command has ended, or has had its time to end."""
        patience = inf
        while not self._gone() and monotonic() < patience:
            self._read(GLANCE)
            self._note()
            if self.fault is None and (fault := self._over()) is not None:
                self.fault = fault
                patience = monotonic() + PATIENCE
                os.killpg(self.process.pid, signal.SIGTERM)
        self.ended = monotonic()

    def drain(self) -> None:
        """Take what is left in the pipe; a daemon that got away does not keep us here."""
        for _ in range(DRAIN):
            self._read(0)

    @property
    def seconds(self) -> float:
        return min(self.ended, monotonic()) - self.began

    def _gone(self) -> bool:
        # Without reaping it: its number, which is its group's, must not become another's before the
        # group has been killed.
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.process.pid, flags) is not None

    def _read(self, seconds: float) -> None:
        if self._poll.poll(seconds * 1000):
            chunk = os.read(self._output.fileno(), CHUNK)
            if chunk:
                self.log.write(chunk)
            else:
                self._poll.unregister(self._output)

    def _note(self) -> None:
        if monotonic() - self._noted >= PROGRESS:
            self._noted = monotonic()
            line = readable(self.log.last)[-1:]
            running = f"{self.name} has run for {self.seconds:.0f} s"
            self.job.progress(None, ": ".join([running, *line]))

    def _over(self) -> Failure | None:
        if self.seconds >= self._limit:
            return JobFailed(self._late())
        if not self.job.stopping:
            return None
        self.stopping = min(self.stopping, monotonic())
        # A deploy of the workers lets a short command finish. A long one is ended in time to say
        # why: after its own grace the worker is killed, and the log with it. It is not run again:
        # only its owner knows whether half of it may be done twice.
        return self._stopped() if monotonic() - self.stopping >= self.allowed.grace else None

    def _late(self) -> str:
        whose = "its timeout" if self._limit == self.allowed.timeout else "what its job had left"
        return f"The command {self.name} did not end within {self._limit:g} seconds, {whose}."

    def _stopped(self) -> Failure:
        return SystemUnavailable(
            f"The worker was stopped while the command {self.name} ran, which was ended after "
            f"{self.seconds:.0f} s; run the action again."
        )

    # How it ended, once its process is reaped

    @property
    def status(self) -> int:
        return self.process.returncode

    def failure(self) -> Failure | None:
        if self.fault is None and self.status == 0:
            return None
        failure = self.fault or self._by_status(self.status)
        lines = "\n".join(readable(self.log.last)[-self.allowed.show :])[-SHOWN:]
        if not self.allowed.show or not lines:
            return failure
        return type(failure)(f"{failure.message}\nThe log ends:\n{lines}")

    def _by_status(self, code: int) -> Failure:
        if self.stopping < inf and code in (-signal.SIGTERM, 128 + signal.SIGTERM):
            # systemd, for one, tells the worker and the command at once.
            return self._stopped()
        kind = FAILURES[self.allowed.failures.get(code, FailureType.JOB_FAILED)]
        return kind(f"The command {self.name} {self._how(code)} after {self.seconds:.0f} s.")

    def _how(self, code: int) -> str:
        if code < 0:
            return f"was killed by {_signal(-code)}{self._why(-code)}"
        told = f"ended with exit status {code}"
        if code > 128 and (killed := _signal(code - 128)):
            told += f", as of one killed by {killed}{self._why(code - 128)}"
        return told

    def _why(self, number: int) -> str:
        if number == signal.SIGXFSZ:
            size = self.allowed.file_size.human_readable()
            return f" (it may write no file larger than its file_size, {size})"
        if number in (signal.SIGABRT, signal.SIGBUS, signal.SIGKILL, signal.SIGSEGV):
            memory = self.allowed.memory
            most = f"its memory, {memory.human_readable()}" if memory else "the machine has"
            return f" (perhaps it needed more than {most})"
        return ""


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}" if number <= signal.NSIG else ""
