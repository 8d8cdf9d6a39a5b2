"""Archives byte by byte, so that each field may lie. Knows nothing of the package under test."""

import gzip
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

BLOCK = 512
END = bytes(2 * BLOCK)
STORED, DEFLATED = 0, 8
REGULAR, FOLDER, LINK, FIFO = 0o100000, 0o040000, 0o120000, 0o010000


def tar_header(
    name: bytes,
    size: int | bytes = 0,
    *,
    kind: bytes = b"0",
    mode: int | bytes = 0o644,
    link: bytes = b"",
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
    rest: bytes = b"",
) -> bytes:
    """A number is written in octal; bytes stand as they are."""
    octal = size if isinstance(size, bytes) else b"%011o\0" % size
    modes = mode if isinstance(mode, bytes) else b"%07o\0" % mode
    parts = [name.ljust(100, b"\0"), modes, b"%07o\0" % 0 * 2, octal, b"%011o\0" % 0, b" " * 8]
    parts += [kind, link.ljust(100, b"\0"), magic, bytes(80), prefix.ljust(155, b"\0"), rest]
    block = b"".join(parts).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % BLOCK)


def tar_entry(name: bytes, content: bytes = b"", **header: bytes | int) -> bytes:
    return tar_header(name, len(content), **header) + padded(content)  # type: ignore[arg-type]


def pax_record(key: bytes, value: bytes) -> bytes:
    rest = b" %b=%b\n" % (key, value)
    length = len(rest)
    while length != len(b"%d" % length) + len(rest):
        length = len(b"%d" % length) + len(rest)
    return b"%d%b" % (length, rest)


def pax(records: Mapping[bytes, bytes] | bytes, kind: bytes = b"x") -> bytes:
    if not isinstance(records, bytes):
        records = b"".join(pax_record(key, value) for key, value in records.items())
    return tar_entry(b"././@PaxHeader", records, kind=kind)


def long_name(name: bytes, kind: bytes = b"L") -> bytes:
    return tar_entry(b"././@LongLink", name + b"\0", kind=kind)


def tar(*entries: bytes) -> bytes:
    return b"".join(entries) + END


def gz(content: bytes) -> bytes:
    return gzip.compress(content, 6, mtime=0)


def deflated(content: bytes) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    return packer.compress(content) + packer.flush()


def wide(*values: int) -> bytes:
    """The extra field of zip64."""
    return struct.pack("<HH", 1, 8 * len(values)) + struct.pack(f"<{len(values)}Q", *values)


@dataclass(frozen=True)
class ZipEntry:
    """None: what is true. `local` holds the fields in which its local record differs."""

    name: bytes
    content: bytes = b""
    mode: int = REGULAR | 0o644
    method: int = DEFLATED
    flags: int = 0
    packed: bytes | None = None
    crc: int | None = None
    packed_size: int | None = None
    size: int | None = None
    extra: bytes = b""
    disk: int = 0
    offset: int | None = None
    local: Mapping[str, bytes | int] = field(default_factory=dict)
    behind: bytes = b""  # its content: a data descriptor, or a gap

    def fields(self) -> dict[str, bytes | int]:
        stored = self.content if self.method == STORED else deflated(self.content)
        packed = stored if self.packed is None else self.packed
        return {
            "name": self.name,
            "flags": self.flags,
            "method": self.method,
            "crc": zlib.crc32(self.content) if self.crc is None else self.crc,
            "packed_size": len(packed) if self.packed_size is None else self.packed_size,
            "size": len(self.content) if self.size is None else self.size,
            "extra": self.extra,
            "packed": packed,
        }

    def local_record(self) -> bytes:
        f = self.fields() | dict(self.local)
        head = struct.pack("<4s5H", b"PK\x03\x04", 20, f["flags"], f["method"], 0, 0x21)
        sizes = struct.pack("<3L", f["crc"], f["packed_size"], f["size"])
        name, extra = _bytes(f["name"]), _bytes(f["extra"])
        lengths = struct.pack("<2H", len(name), len(extra))
        return head + sizes + lengths + name + extra + _bytes(f["packed"]) + self.behind

    def central_record(self, offset: int) -> bytes:
        f = self.fields()
        name, extra = _bytes(f["name"]), _bytes(f["extra"])
        head = struct.pack("<4s6H", b"PK\x01\x02", 0x314, 20, f["flags"], f["method"], 0, 0x21)
        sizes = struct.pack("<3L", f["crc"], f["packed_size"], f["size"])
        lengths = struct.pack("<5H", len(name), len(extra), 0, self.disk, 0)
        place = offset if self.offset is None else self.offset
        return head + sizes + lengths + struct.pack("<2L", self.mode << 16, place) + name + extra


def _bytes(value: bytes | int) -> bytes:
    assert isinstance(value, bytes)
    return value


def end_record(
    count: int,
    size: int,
    offset: int,
    *,
    comment: bytes = b"",
    said: int | None = None,
    disk: int = 0,
) -> bytes:
    length = len(comment) if said is None else said
    fixed = struct.pack("<4s4H2LH", b"PK\x05\x06", disk, disk, count, count, size, offset, length)
    return fixed + comment


def end64_records(count: int, size: int, offset: int, *, at: int, length: int = 44) -> bytes:
    """The zip64 end record and its locator."""
    numbers = struct.pack("<Q2H2L4Q", length, 45, 45, 0, 0, count, count, size, offset)
    return b"PK\x06\x06" + numbers + struct.pack("<4sLQL", b"PK\x06\x07", 0, at, 1)


def zip_parts(*entries: ZipEntry) -> tuple[bytes, bytes]:
    """What comes before the end record: the local records, and the central directory."""
    local, central = b"", b""
    for entry in entries:
        central += entry.central_record(len(local))
        local += entry.local_record()
    return local, central


def zipped(*entries: ZipEntry, comment: bytes = b"") -> bytes:
    local, central = zip_parts(*entries)
    return local + central + end_record(len(entries), len(central), len(local), comment=comment)
