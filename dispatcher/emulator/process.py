"""The emulator as a process of its own, for tests: started, and gone with who started it."""

import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from dispatcher.emulator.client import Emulator, EmulatorError

READY = "emulator listening on "
COMMAND = [
    sys.executable,
    "-c",
    "from dispatcher.cli import main; main()",
    "emulator",
    "--port",
    "0",
    "--until-eof",
]


@contextmanager
def running(**options: float | str) -> Iterator[Emulator]:
    """`options` are those of `dispatcher emulator`, as ack_window=5. Raises EmulatorError with its
    last words."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    process = subprocess.Popen(
        [*COMMAND, *flags],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # a Ctrl-C is for the tests, which end it themselves
    )
    with process:
        url = announced(process)
        # What it goes on to say would fill the pipe.
        threading.Thread(target=deque, args=(process.stdout, 0), daemon=True).start()
        try:
            yield Emulator(url)
        finally:
            process.kill()


def announced(process: subprocess.Popen[str]) -> str:
    said = []
    for line in process.stdout or ():
        if line.startswith(READY):
            return line.removeprefix(READY).strip()
        said.append(line)
    raise EmulatorError(f"the emulator did not start: {''.join(said).strip()}")
