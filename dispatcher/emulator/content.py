"""Bytes that lie in a file, so that none of them needs to be in memory but those on their way.

It must not know what they are, nor whose.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

CHUNK = 2**18
INLINE = 2**20  # what is no longer than that stays in memory


class File:
    """Without a name: it is gone with the last who holds it."""

    def __init__(self) -> None:
        with tempfile.TemporaryFile(buffering=0) as file:
            self.descriptor = os.dup(file.fileno())

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


@dataclass(frozen=True)
class Content:
    """As much of `bytes` as passing it on takes: a length, parts, and chunks. It never changes."""

    file: File
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, part: slice) -> "Content":
        first, last, _ = part.indices(len(self))
        return Content(self.file, self.start + first, self.start + max(first, last))

    def __iter__(self) -> Iterator[bytes]:
        for at in range(self.start, self.stop, CHUNK):
            yield os.pread(self.file.descriptor, min(CHUNK, self.stop - at), at)

    def __bytes__(self) -> bytes:
        return b"".join(self)

    def __deepcopy__(self, _memo: object) -> "Content":
        return self


class Spool:
    """A file that is being written."""

    def __init__(self) -> None:
        self._file = File()
        self._size = 0

    def write(self, chunk: bytes | bytearray) -> None:
        with memoryview(chunk) as view:
            written = 0
            while written < len(view):
                written += os.write(self._file.descriptor, view[written:])
        self._size += len(chunk)

    @property
    def content(self) -> Content:
        return Content(self._file, 0, self._size)


def joined(parts: Sequence[bytes | Content]) -> bytes | Content:
    if sum(map(len, parts)) <= INLINE:
        return b"".join(map(bytes, parts))
    spool = Spool()
    for part in parts:
        for chunk in chunks(part):
            spool.write(chunk)
    return spool.content


def chunks(content: bytes | Content) -> Iterator[bytes]:
    return iter([content] if isinstance(content, bytes) else content)
