"""Compressed bytes into pieces of bounded size. Knows no archive; zlib's errors end here."""

import zlib
from collections.abc import Iterable, Iterator
from typing import Final

from dispatcher.archives.model import CHUNK, ArchiveError, damaged

RAW: Final = -zlib.MAX_WBITS
GZIP: Final = zlib.MAX_WBITS + 16
GZIP_MEMBERS: Final = 200_000  # bgzip's, of 64 KiB each, for 12 GiB; each costs time, even if empty


class Inflated:
    """One deflate stream. After `feed` has been taken whole: has it `ended`, and what is `left`."""

    def __init__(self, window: int) -> None:
        self._decoder = zlib.decompressobj(window)

    @property
    def ended(self) -> bool:
        return self._decoder.eof

    @property
    def left(self) -> bytes:
        return self._decoder.unused_data

    def feed(self, packed: bytes) -> Iterator[bytes]:
        more = True
        while more and not self.ended:
            try:
                piece = self._decoder.decompress(packed, CHUNK)
            except zlib.error as error:
                raise damaged("it cannot be inflated") from error
            packed = self._decoder.unconsumed_tail
            # A full piece may leave output inside the decoder though its input is used up.
            more = bool(packed) or len(piece) == CHUNK
            if piece:
                yield piece


def gunzipped(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The content of all gzip members, one after the other; zeros may follow each."""
    member, count = Inflated(GZIP), 1
    for chunk in chunks:
        packed = chunk
        while packed := packed.lstrip(b"\0") if member.ended else packed:
            if member.ended:
                member, count = Inflated(GZIP), count + 1
            if count > GZIP_MEMBERS:
                raise ArchiveError(f"The archive has more than {GZIP_MEMBERS} gzip members.")
            yield from member.feed(packed)
            packed = member.left
    if not member.ended:
        raise ArchiveError("The archive ends too early, within its compressed content.")
