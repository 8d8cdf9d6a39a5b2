"""Redis's protocol as far as a relay reads it: where a message ends, and which strings it holds."""

import re
from collections.abc import Iterator

KINDS = b"+-:$*_#,(!=%~>|"  # of RESP2 and RESP3; a request is of "*" and "$" alone
STRINGS = b"$!="
ELEMENTS = {b"*": 1, b"~": 1, b">": 1, b"%": 2, b"|": 2}  # for each that the size counts


class Framer:
    """Cuts a stream into whole messages, however it was split in transit; loses no byte of it.

    Turns `plain` for good at the first byte that is not the protocol, or when it is told to: from
    then on everything comes out as it came in.
    """

    def __init__(self) -> None:
        self.plain = False
        self._buffer = bytearray()
        self._missing = 1  # elements that the message still lacks, nested ones among them
        self._at = 0  # where the next one begins: beyond the buffer while a string is under way
        self._spans: list[tuple[int, int]] = []

    def feed(self, piece: bytes) -> Iterator[bytes]:
        self._buffer += piece
        while not self.plain and self._whole():
            message = bytes(self._buffer[: self._at])
            del self._buffer[: self._at]
            self._missing, self._at = 1, 0
            yield message
            self._spans.clear()
        if self.plain and (rest := self.rest()):
            yield rest

    def strings(self, message: bytes) -> list[bytes]:
        """Of the message that `feed` has just given."""
        return [message[start:end] for start, end in self._spans]

    def rest(self) -> bytes:
        """What is there of a message that is not whole."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def _whole(self) -> bool:
        while self._missing and self._at < len(self._buffer):
            self.plain = self._buffer[self._at] not in KINDS
            end = self._buffer.find(b"\r\n", self._at)
            if self.plain or end < 0:
                return False
            self._element(end)
        return not (self._missing or self.plain) and self._at <= len(self._buffer)

    def _element(self, end: int) -> None:
        kind, size = bytes(self._buffer[self._at : self._at + 1]), self._buffer[self._at + 1 : end]
        self._at = end + 2
        self._missing -= 1
        if kind not in STRINGS and kind not in ELEMENTS:
            return
        if not re.fullmatch(rb"-1|\d{1,18}", size):
            self.plain = True
        elif kind in ELEMENTS:
            self._missing += max(int(size), 0) * ELEMENTS[kind] + (kind == b"|")
        elif size != b"-1":
            self._spans.append((self._at, self._at + int(size)))
            self._at += int(size) + 2
