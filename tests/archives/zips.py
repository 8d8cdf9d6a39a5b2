"""What may be wrong with a zip alone."""

import struct
from collections.abc import Iterator, Mapping

from tests.archives.raw import (
    FIFO,
    FOLDER,
    LINK,
    STORED,
    ZipEntry,
    deflated,
    end64_records,
    end_record,
    wide,
    zip_parts,
    zipped,
)

A = b"a.txt"


def wrong_ends() -> Iterator[tuple[str, bytes, str]]:
    local, central = zip_parts(ZipEntry(A, b"x"))
    size, at, behind = len(central), len(local), len(local) + len(central)
    body, end = local + central, end_record(1, len(central), len(local))

    def end64(*, length: int = 44, place: int = behind, brief: bytes = b"") -> bytes:
        records = end64_records(1, size, at, at=place, length=length)
        return body + records + (brief or end_record(0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF))

    yield "no end record", body, "no end record"
    yield "half an end record", body + end[:10], "no end record"
    yield "something behind", body + end + b"x", "does not end"
    yield "comment shorter than it says", body + end_record(1, size, at, said=9), "does not end"
    yield "directory cut", local + central[:-3] + end, "not where"
    yield "directory too soon", body + end_record(1, size, at - 1), "not where"
    yield "directory beyond the file", body + end_record(1, size, 0xFFFFFFF0), "not where"
    yield "directory of four gigabytes", body + end_record(1, 0xFFFFFFFF, at), "not where"
    yield "something before", b"PK\x03\x04" + body + end, "not where"
    yield "fewer entries than said", body + end_record(2, size, at), "number of entries"
    yield "more entries than said", body + end_record(0, size, at), "number of entries"
    yield "directory of something else", local + b"x" * size + end, "cannot be read"
    yield "directory of another sign", local + b"PK\1\3" + central[4:] + end, "cannot be read"
    yield "name cut", local + central[:48] + end_record(1, 48, at), "cannot be read"
    yield "record cut", local + central[:30] + end_record(1, 30, at), "cannot be read"
    yield "entries on another disk", body + end[:8] + b"\2\0" + end[10:], "several"
    yield "second disk", body + end_record(1, size, at, disk=1), "several"
    yield (
        "zip64 record of something else",
        end64().replace(b"PK\x06\x06", b"PK\x06\x08"),
        "zip64 end",
    )
    yield "zip64 record elsewhere", end64(place=3), "zip64 end record"
    yield "zip64 record beyond all", end64(place=2**63), "early"
    yield "zip64 record too long", end64(length=45), "zip64 end record"
    yield "zip64 record that differs", end64(brief=end_record(2, size, at)), "end records differ"
    yield "zip64 on two disks", _two_disks(end64()), "several"
    yield "empty", end_record(0, 0, 0), "is empty"


def _two_disks(archive: bytes) -> bytes:
    """With the locator's number of disks, the last one before the end record, raised."""
    return archive[:-26] + struct.pack("<L", 2) + archive[-22:]


ZIPS: Mapping[str, tuple[ZipEntry, str]] = {
    "empty name": (ZipEntry(b""), "is empty"),
    "NUL in a name": (ZipEntry(b"a.txt\0.sh"), "control character"),
    "control in another code": (ZipEntry(b"\x82\x07"), "control character"),
    "symbolic link": (ZipEntry(A, b"b.txt", mode=LINK | 0o777), "symbolic link"),
    "symbolic link out": (ZipEntry(A, b"/etc/passwd", mode=LINK | 0o777), "symbolic link"),
    "symbolic link with a folder's name": (ZipEntry(b"d/", mode=LINK | 0o777), "symbolic link"),
    "fifo": (ZipEntry(A, mode=FIFO), "neither"),
    "character device": (ZipEntry(A, mode=0o020644), "neither"),
    "block device": (ZipEntry(A, mode=0o060644), "neither"),
    "socket": (ZipEntry(A, mode=0o140644), "neither"),
    "unknown kind": (ZipEntry(A, mode=0o170644), "neither"),
    "folder with a file's name": (ZipEntry(A, mode=FOLDER | 0o755), "neither"),
    "folder with content": (ZipEntry(b"d/", b"x"), "has content"),
    "encrypted": (ZipEntry(A, b"x", flags=1), "encrypted"),
    "strongly encrypted": (ZipEntry(A, b"x", flags=1 | 1 << 6), "encrypted"),
    "encrypted directory": (ZipEntry(A, b"x", flags=1 << 13), "encrypted"),
    "patch": (ZipEntry(A, b"x", flags=1 << 5), "method"),
    "shrunk": (ZipEntry(A, b"x", method=1), "method"),
    "deflate64": (ZipEntry(A, b"x", method=9), "method"),
    "bzip2": (ZipEntry(A, b"x", method=12), "method"),
    "LZMA of four gigabytes": (
        ZipEntry(A, b"x", method=14, packed=b"\x09\x04\x05\x00\x5d\xff\xff\xff\xff" + bytes(20)),
        "method",
    ),
    "zstandard": (ZipEntry(A, b"x", method=93), "method"),
    "AES": (ZipEntry(A, b"x", method=99), "method"),
    "another disk": (ZipEntry(A, b"x", disk=3), "several"),
    "offset beyond the file": (ZipEntry(A, b"x", offset=0xFFFFFF), "in front"),
    "offset into a name": (ZipEntry(A, b"x", offset=4), "is not where"),
    "offset of the directory": (ZipEntry(A, b"x", offset=38), "in front"),
    "zip64 field too short": (ZipEntry(A, b"x", size=0xFFFFFFFF, extra=b"\1\0\4\0abcd"), "zip64"),
    "zip64 offset of 63 bits": (ZipEntry(A, offset=0xFFFFFFFF, extra=wide(2**63 - 1)), "in front"),
    "zip64 size of 64 bits": (ZipEntry(A, size=0xFFFFFFFF, extra=wide(2**64 - 1)), "bytes"),
    "local name that differs": (ZipEntry(A, b"x", local={"name": b"/b.tx"}), "records"),
    "local method that differs": (ZipEntry(A, b"x", local={"method": STORED}), "records"),
    "local size that differs": (ZipEntry(A, b"x", local={"size": 9}), "records"),
    "local packed size that differs": (ZipEntry(A, b"x", local={"packed_size": 9}), "records"),
    "local size of nothing": (ZipEntry(A, b"x", local={"size": 0}), "records"),
    "local checksum that differs": (ZipEntry(A, b"x", local={"crc": 9}), "records"),
    "local record encrypted": (ZipEntry(A, b"x", local={"flags": 1}), "records"),
    "size to come that differs": (
        ZipEntry(A, b"x", local={"flags": 8, "crc": 0, "packed_size": 0, "size": 9}),
        "records",
    ),
    "packed size beyond the file": (ZipEntry(A, b"x", packed_size=9999), "larger than the archive"),
    "packed size into the directory": (ZipEntry(A, b"x", packed_size=4), "larger"),
}
LATE_ZIPS: Mapping[str, tuple[ZipEntry, str]] = {
    "wrong checksum": (ZipEntry(A, b"x", crc=1), "size or the checksum"),
    "wrong checksum of a stored file": (ZipEntry(A, b"x", crc=1, method=STORED), "checksum"),
    "size too small": (ZipEntry(A, b"x" * 100, size=99), "size or the checksum"),
    "size too large": (ZipEntry(A, b"x" * 100, size=101), "size or the checksum"),
    "size of nothing": (ZipEntry(A, b"x" * 100, size=0), "size or the checksum"),
    "nothing that has a size": (ZipEntry(A, b"x", packed=b""), "size or the checksum"),
    "stored size too small": (ZipEntry(A, b"xy", size=1, method=STORED), "size or the checksum"),
    "zip64 size too small": (
        ZipEntry(A, b"x" * 100, size=0xFFFFFFFF, extra=wide(99)),
        "size or the checksum",
    ),
    "content cut": (ZipEntry(A, b"xyz", packed=deflated(b"xyz")[:-2]), "end where its place"),
    "content with more behind": (
        ZipEntry(A, b"xyz", packed=deflated(b"xyz") + b"more"),
        "end where its place",
    ),
    "content with much behind": (
        ZipEntry(A, b"xyz", packed=deflated(b"xyz") + bytes(200_000)),
        "before its place",
    ),
    "content that is no deflate": (ZipEntry(A, b"xyz", packed=b"\xff" * 9), "inflated"),
}


def zips() -> Iterator[tuple[str, bytes, str]]:
    for name, (entry, says) in ZIPS.items():
        yield name, zipped(entry), says
    yield from wrong_ends()
    yield "folders alone", zipped(ZipEntry(b"d/"), ZipEntry(b"d/e/")), "is empty"
    inner = ZipEntry(b"b", b"x" * 100, method=STORED)
    outer = ZipEntry(A, inner.local_record(), method=STORED)
    yield "an entry inside another", _second_inside(outer, inner, 30 + len(A)), "overlap"
    yield "one content twice", _second_inside(ZipEntry(A, b"x"), ZipEntry(b"b", b"x"), 0), "records"


def _second_inside(outer: ZipEntry, inner: ZipEntry, at: int) -> bytes:
    local, central = zip_parts(outer)
    central += inner.central_record(at)
    return local + central + end_record(2, len(central), len(local))
