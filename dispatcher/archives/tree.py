"""The only place that writes: new files and folders inside one folder, and nothing over another.

Every step down is taken from the folder above it and follows no link, so that neither an archive
nor what stands in the folder already can lead out of it. OSErrors of the disk are let through.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from dispatcher.archives.meter import Meter
from dispatcher.archives.model import ArchiveError, Entry, quoted

_DOWN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_OWNER_OF_FILE: Final = stat.S_IRUSR | stat.S_IWUSR
_OWNER_OF_FOLDER: Final = stat.S_IRWXU
_IN_THE_WAY: Final = {errno.ELOOP, errno.ENOTDIR, errno.EEXIST}


class Tree:
    """Makes the folder if need be."""

    def __init__(self, folder: Path, meter: Meter) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._meter = meter
        self._root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        self._here: tuple[str, ...] = ()
        self._fd = os.dup(self._root)
        self._made: set[tuple[int, int]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._fd)
        os.close(self._root)

    def add(self, entry: Entry) -> None:
        if entry.folder:
            self._add_folder(entry)
        else:
            self._add_file(entry)

    def _add_folder(self, entry: Entry) -> None:
        """A folder that was there before is the author's, and keeps its mode."""
        with _unobstructed(entry):
            self._enter(entry.parts)
        if _identity(self._fd) in self._made:
            os.fchmod(self._fd, entry.mode & 0o777 | _OWNER_OF_FOLDER)

    def _add_file(self, entry: Entry) -> None:
        with _unobstructed(entry):
            self._enter(entry.parts[:-1])
            new = os.open(entry.parts[-1].encode(), _NEW, 0o600, dir_fd=self._fd)
        with os.fdopen(new, "wb") as file:
            for piece in entry.contents:
                self._meter.writes(len(piece))
                file.write(piece)
            os.fchmod(new, entry.mode & 0o777 | _OWNER_OF_FILE)

    def _enter(self, parts: tuple[str, ...]) -> None:
        """Entries of one folder mostly come together, so the last one is kept open."""
        if parts == self._here:
            return
        self._move_to((), os.dup(self._root))
        for part in parts:
            self._move_to((*self._here, part), self._step(part.encode()))

    def _move_to(self, parts: tuple[str, ...], fd: int) -> None:
        os.close(self._fd)
        self._here, self._fd = parts, fd

    def _step(self, part: bytes) -> int:
        try:
            return os.open(part, _DOWN, dir_fd=self._fd)
        except FileNotFoundError:
            os.mkdir(part, dir_fd=self._fd)
        fd = os.open(part, _DOWN, dir_fd=self._fd)
        self._made.add(_identity(fd))
        return fd


@contextlib.contextmanager
def _unobstructed(entry: Entry) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _IN_THE_WAY:
            raise
        shown = quoted("/".join(entry.parts))
        raise ArchiveError(f"{shown} is not unpacked: something stands in its place.") from error


def _identity(folder: int) -> tuple[int, int]:
    found = os.fstat(folder)
    return found.st_dev, found.st_ino
