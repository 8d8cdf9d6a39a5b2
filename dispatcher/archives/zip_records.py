"""The records of a zip that are no content, each with its zip64 part, as little-endian bytes.

Reads what it is handed; knows neither the file nor what entries are for.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from dispatcher.archives.model import ArchiveError, damaged

LOCAL_SIGN, CENTRAL_SIGN, END_SIGN = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
LOCATOR_SIGN, END64_SIGN = b"PK\x06\x07", b"PK\x06\x06"
LOCAL: Final = struct.Struct("<4s5H3L2H")
CENTRAL: Final = struct.Struct("<4s6H3L5H2L")
END: Final = struct.Struct("<4s4H2LH")
LOCATOR: Final = struct.Struct("<4sLQL")
END64: Final = struct.Struct("<4sQ2H2L4Q")
STORED, DEFLATED = 0, 8
IN_ZIP64: Final = 0xFFFFFFFF
_IN_ZIP64_SHORT: Final = 0xFFFF
_ZIP64: Final = 1
_UTF_8: Final = 1 << 11
_ENCRYPTED: Final = 1 << 0 | 1 << 6 | 1 << 13
_PATCH: Final = 1 << 5
_SIZED_LATER: Final = 1 << 3


@dataclass(frozen=True)
class End:
    """Where the central directory is. `exact`: whether `count` is, or only its last 16 bits are."""

    count: int
    size: int
    offset: int
    exact: bool

    def counts(self, entries: int) -> bool:
        """Without zip64 some writers let it run over."""
        return self.count == (entries if self.exact else entries & _IN_ZIP64_SHORT)


@dataclass(frozen=True)
class Member:
    """One record, central or local; a local one has neither mode nor offset."""

    raw_name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    attributes: int = 0
    offset: int = 0

    @property
    def name(self) -> str:
        """Info-ZIP on Linux writes UTF-8 and does not say so, so that is tried of every name."""
        try:
            return self.raw_name.decode("utf-8")
        except UnicodeDecodeError:
            if self.flags & _UTF_8:
                return self.raw_name.decode("utf-8", "surrogateescape")
            return self.raw_name.decode("cp437")

    @property
    def mode(self) -> int:
        """With the kind of file; 0 from systems that have none."""
        return self.attributes >> 16

    @property
    def encrypted(self) -> bool:
        return bool(self.flags & _ENCRYPTED)

    @property
    def known(self) -> bool:
        return self.method in (STORED, DEFLATED) and not self.flags & _PATCH

    def agrees(self, local: "Member") -> bool:
        """A local record that was written before the content may leave out what is known later."""
        ours = (self.raw_name, self.method, self.encrypted)
        if ours != (local.raw_name, local.method, local.encrypted):
            return False
        unknown = (0,) if local.flags & _SIZED_LATER else ()
        pairs = ((self.crc, local.crc), (self.packed, local.packed), (self.size, local.size))
        return all(their in (our, *unknown) for our, their in pairs)


def end_of(record: bytes, record64: bytes | None) -> End:
    """From the end record, and the zip64 one if there is one; where they differ it is refused."""
    _, *short, size, offset, _ = END.unpack(record)
    fields = (*short, size, offset)
    if record64 is not None:
        brief, fields = fields, END64.unpack(record64)[4:]
        most = (*(_IN_ZIP64_SHORT,) * 4, IN_ZIP64, IN_ZIP64)
        if any(b not in (f, m) for b, f, m in zip(brief, fields, most, strict=True)):
            raise damaged("its two end records differ")
    if fields[:2] != (0, 0) or fields[2] != fields[3]:
        raise ArchiveError("The archive is one part of several; give it as one file.")
    return End(fields[3], fields[4], fields[5], exact=record64 is not None)


def central_records(directory: bytes) -> Iterator[Member]:
    at = 0
    while at < len(directory):
        if directory[at : at + 4] != CENTRAL_SIGN or len(directory) < at + CENTRAL.size:
            raise damaged("its central directory cannot be read")
        fixed = CENTRAL.unpack_from(directory, at)
        _, _, _, flags, method, _, _, crc, packed, size, *lengths, disk, _, outer, offset = fixed
        name_at = at + CENTRAL.size
        extra_at = name_at + lengths[0]
        at = extra_at + lengths[1] + lengths[2]
        if at > len(directory):
            raise damaged("its central directory cannot be read")
        name, extra = directory[name_at:extra_at], directory[extra_at : extra_at + lengths[1]]
        size, packed, offset = _widened(extra, size, packed, offset)
        if disk not in (0, _IN_ZIP64_SHORT):
            raise ArchiveError("The archive is one part of several; give it as one file.")
        yield Member(name, flags, method, crc, packed, size, outer, offset)


def local_record(fixed: bytes, rest: bytes) -> Member:
    """`rest`: its name and its extra fields."""
    _, _, flags, method, _, _, crc, packed, size, name, _ = LOCAL.unpack(fixed)
    size, packed = _widened(rest[name:], size, packed)
    return Member(rest[:name], flags, method, crc, packed, size)


def _widened(extra: bytes, *values: int) -> tuple[int, ...]:
    """Those that do not fit into 32 bits stand in the zip64 field, in this order."""
    field = _zip64_field(extra) if IN_ZIP64 in values else b""
    if not field:
        return values
    at = 0
    wide: list[int] = []
    for value in values:
        wide.append(value)
        if value == IN_ZIP64:
            wide[-1], at = int.from_bytes(field[at : at + 8], "little"), at + 8
    if at > len(field):
        raise damaged("an entry's zip64 field is too short")
    return tuple(wide)


def _zip64_field(extra: bytes) -> bytes:
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == _ZIP64:
            return extra[at + 4 : at + 4 + length]
        at += 4 + length
    return b""
