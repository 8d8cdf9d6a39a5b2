"""The demo's child processes: started, watched, ended together, and never left behind.

It must not know what they are for."""

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

LEAVE_WITHIN = 8.0  # seconds
LAST_LINES = 15
WIDEST = 300  # characters of a line that are shown: a log line may hold a traceback
# Lives in the children's process group and ends all of it, itself included, when the pipe that the
# demo holds open is closed: by the demo, or by the kernel when the demo was killed. The group is
# not the terminal's foreground one, so a Ctrl-C is for the demo alone.
GUARD = ["/bin/sh", "-c", "read -r _; kill -9 0"]


class DemoError(Exception):
    """The demo cannot go on; the text says why, and what to do."""


@dataclass(frozen=True)
class Child:
    name: str
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-LAST_LINES:]
        return "\n".join(f"    {line[:WIDEST]}" for line in lines) or "    (it wrote nothing)"


class Processes:
    """After `with` no process of the group is left, whatever happened."""

    def __init__(self, folder: Path) -> None:
        """`folder` is where the logs go."""
        self._folder = folder
        self._children: list[Child] = []
        self._guard = subprocess.Popen(
            GUARD,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )
        self.group = self._guard.pid

    def start(
        self, name: str, command: Sequence[str], env: Mapping[str, str], place: Path
    ) -> Child:
        log = self._folder / f"{name}.log"
        with log.open("ab") as out:
            started = subprocess.Popen(
                command,
                cwd=place,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                process_group=self.group,
            )
        child = Child(name, log, started)
        self._children.append(child)
        return child

    def check(self) -> None:
        """Raises DemoError when a child is gone before its time."""
        for child in self._children:
            status = child.process.poll()
            if status is not None:
                raise DemoError(
                    f"{child.name} ended early, with status {status}. Its log {child.log} ends:\n"
                    f"{child.last_words}"
                )

    def wait(self, ready: Callable[[], bool], *, within: float, what: str) -> None:
        """Raises DemoError when a child died, or it took too long."""
        until = time.monotonic() + within
        self.check()
        while not ready():
            if time.monotonic() > until:
                raise DemoError(f"{what} took longer than {within:.0f} s; see the logs.")
            time.sleep(0.05)
            self.check()

    def stop(self) -> None:
        """Ask all to leave, the first when the others, which may need it, are gone; then kill."""
        self._ask_to_leave(self._children[1:])
        self._ask_to_leave(self._children[:1])

    def _ask_to_leave(self, children: Sequence[Child]) -> None:
        for child in children:
            child.process.terminate()
        until = time.monotonic() + LEAVE_WITHIN
        for child in children:
            try:
                child.process.wait(max(until - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        self._guard.wait()
        for child in self._children:
            child.process.wait()
