"""A body on its way to S3: into memory if it is short, else into a file, AWS's chunks taken off.

It must not know what it is for, nor check a chunk's signature or a checksum.
"""

from dataclasses import dataclass, field

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from dispatcher.emulator.content import INLINE, Content, Spool

LONGEST_LINE = 8192


class UploadError(Exception):
    """The body is not what its headers say."""


@dataclass(frozen=True)
class Upload:
    """`trailers`: the headers that came after a chunked body, with names in small letters."""

    content: bytes | Content
    trailers: dict[str, str] = field(default_factory=dict)


class Unchunked:
    """What is within `SIZE[;chunk-signature=...] CRLF BYTES CRLF` up to a size of 0, and trailers.

    The form that AWS calls aws-chunked; sizes are hexadecimal.
    """

    def __init__(self) -> None:
        self.trailers: dict[str, str] = {}
        self.ended = False
        self._rest = bytearray()
        self._left = 0

    def feed(self, piece: bytes) -> bytes:
        """Those bytes of the content that are known now. Raises UploadError."""
        self._rest += piece
        found = bytearray()
        while self._take(found) or self._read_line():
            pass
        return bytes(found)

    def _take(self, found: bytearray) -> bool:
        taken = min(self._left, len(self._rest))
        found += self._rest[:taken]
        del self._rest[:taken]
        self._left -= taken
        return taken > 0

    def _read_line(self) -> bool:
        if self._left:
            return False
        end = self._rest.find(b"\r\n")
        if end < 0:
            if len(self._rest) > LONGEST_LINE:
                raise UploadError("a chunk's header has no end")
            return False
        line = self._rest[:end].decode("latin-1").strip()
        del self._rest[: end + 2]
        if line:
            self._understand(line)
        return True

    def _understand(self, line: str) -> None:
        if self.ended:
            name, _, value = line.partition(":")
            self.trailers[name.lower()] = value.strip()
            return
        try:
            self._left = int(line.partition(";")[0], 16)
        except ValueError:
            raise UploadError("a chunk has no size") from None
        self.ended = not self._left


async def receive_all(receive: Receive, *, chunked: bool) -> Upload:
    """Raises UploadError, and ClientDisconnect if the caller leaves before the end."""
    inner = Unchunked()
    pending = bytearray()
    spool: Spool | None = None
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body = message.get("body", b"")
        pending += inner.feed(body) if chunked else body
        more = message.get("more_body", False)
        if len(pending) > INLINE or (spool is not None and not more):
            spool = spool or Spool()
            await run_in_threadpool(spool.write, pending)
            pending = bytearray()
    if chunked and not inner.ended:
        raise UploadError("the last chunk is missing")
    return Upload(bytes(pending) if spool is None else spool.content, inner.trailers)
