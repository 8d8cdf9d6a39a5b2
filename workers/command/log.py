"""What a command wrote: bounded on disk and in memory, and its last lines fit for a message.

Knows no process and no job.
"""

import re
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Final, Self

FILE: Final = "log.txt"
LAST: Final = 16 * 1024  # bytes that the last lines are taken from
WIDEST: Final = 300  # characters of a line in a message


class Log:
    """The file FILE: all of the output, or its first and its last half with a note between.

    On disk it takes at most `size`, and half of that again for the moment of its end.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.last = b""
        self._size = size
        self._half = size // 2 - 100  # the rest is for the note
        self._total = 0
        self._head = (folder / FILE).open("wb")
        self._ring = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by __exit__

    def write(self, chunk: bytes) -> None:
        self.last = (self.last + chunk)[-LAST:]
        room = max(self._half - self._total, 0)
        self._head.write(chunk[:room])
        self._total += len(chunk)
        rest = chunk[room:]
        while rest:
            written = self._ring.write(rest[: self._half - self._ring.tell()])
            rest = rest[written:]
            if self._ring.tell() == self._half:
                self._ring.seek(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._head, self._ring:
            if (cut := self._total - 2 * self._half) > 0:
                note = f"\n[{cut} bytes are left out here: log_size is {self._size}]\n"
                self._head.write(note.encode())
            oldest = self._ring.tell()
            shutil.copyfileobj(self._ring, self._head)
            self._ring.truncate(oldest)
            self._ring.seek(0)
            shutil.copyfileobj(self._ring, self._head)


ESCAPES: Final = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~]?)"
)


def readable(raw: bytes) -> list[str]:
    """Lines fit for a message: what a terminal would be told is gone, and long ones are cut."""
    text = ESCAPES.sub("", raw.decode(errors="replace")).replace("\t", " ")
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
    shown = ["".join(filter(str.isprintable, line)).rstrip()[:WIDEST] for line in lines]
    return [line for line in shown if line]
