"""Reads a tar once from its first block to its last, with nothing of it kept.

Not tarfile: that takes a damaged header for the end, calls itself for each extra header, and reads
them by an expression of quadratic time, in some releases of 3.11 or in all of them.
"""

from collections.abc import Iterator
from typing import Final

from dispatcher.archives.meter import ASIDE, Meter
from dispatcher.archives.model import CHUNK, ArchiveError, Entry
from dispatcher.archives.names import Paths, parts_of
from dispatcher.archives.tar_headers import (
    BLOCK,
    EXTRAS,
    FOLDER,
    PAX_GLOBAL,
    ZEROS,
    Header,
    amended,
    check_global,
    check_kind,
    header_of,
)

AFTER_END: Final = 2**20  # zeros that fill the last record, whose size tar's -b sets


class Stream:
    """The tar's bytes in the amounts asked for; in all not many more than its files may have."""

    def __init__(self, pieces: Iterator[bytes], meter: Meter) -> None:
        self._pieces = pieces
        self._piece = b""
        self._at = 0
        self._left = meter.limits.max_bytes + meter.limits.max_entries * ASIDE + AFTER_END

    def some(self, most: int) -> bytes:
        """None only at the end."""
        if self._at == len(self._piece):
            self._piece, self._at = next(self._pieces, b""), 0
        part = self._piece[self._at : self._at + most]
        self._at += len(part)
        self._left -= len(part)
        if self._left < 0:
            raise ArchiveError("The archive holds too much that belongs to no file.")
        return part

    def amount(self, count: int) -> Iterator[bytes]:
        while count:
            part = self.some(min(count, CHUNK))
            if not part:
                raise ArchiveError("The archive ends too early.")
            count -= len(part)
            yield part

    def block(self) -> bytes:
        return b"".join(self.amount(BLOCK))

    def padded(self, count: int) -> Iterator[bytes]:
        """As much, and then on to the end of its last block."""
        yield from self.amount(count)
        for _ in self.amount(-count % BLOCK):
            pass


def tar_entries(stream: Stream, meter: Meter) -> Iterator[Entry]:
    paths = Paths(meter.limits.max_entries)
    for header in _headers(stream, meter):
        check_kind(header)
        meter.announced(header.size)
        parts, folder = parts_of(_decoded(header.name)), header.kind == FOLDER
        paths.add(parts, folder=folder)
        yield Entry(parts, folder, header.mode, stream.padded(header.size))
    if not paths.files:
        raise ArchiveError("The archive is empty: there is no file in it.")


def _headers(stream: Stream, meter: Meter) -> Iterator[Header]:
    extras: dict[bytes, bytes] = {}
    while (block := stream.block()) != ZEROS:
        header = header_of(block)
        if header.kind not in EXTRAS:
            meter.entry()
            yield amended(header, extras)
            extras = {}
            continue
        body = _extra(stream, header, extras)
        if header.kind == PAX_GLOBAL:
            meter.entry()
            check_global(body)
        else:
            extras[header.kind] = body
    if extras:
        raise ArchiveError("The archive ends too early, after a header for another entry.")
    _check_end(stream)


def _extra(stream: Stream, header: Header, extras: dict[bytes, bytes]) -> bytes:
    if header.size > EXTRAS[header.kind]:
        raise ArchiveError("The archive has an extra header that is too large.")
    if header.kind in extras:
        raise ArchiveError("The archive has two extra headers of one kind for one entry.")
    return b"".join(stream.padded(header.size))


def _check_end(stream: Stream) -> None:
    """Another archive after this one's end would be left out without a word."""
    after = 0
    while part := stream.some(CHUNK):
        after += len(part)
        if after > AFTER_END or part.count(0) != len(part):
            raise ArchiveError("The archive does not end where its tar does.")


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
