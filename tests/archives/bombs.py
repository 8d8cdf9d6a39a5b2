"""Archives that would fill a disk, a memory or a day. As a program it takes them one after another.

The program says of each what it was answered and how long that took, and the most memory it had:
a process of its own, as the tests' own memory is large already.
"""

import gzip
import io
import json
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from dispatcher.archives import ArchiveError, Limits, extract
from tests.archives.raw import (
    STORED,
    ZipEntry,
    end64_records,
    end_record,
    gz,
    pax,
    pax_record,
    tar,
    tar_entry,
    tar_header,
    zipped,
)

MIB = 2**20
A = b"a.txt"


def zeros(count: int) -> bytes:
    """As raw deflate, a thousandth of their number."""
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    packed = b"".join(packer.compress(bytes(MIB)) for _ in range(count // MIB))
    return packed + packer.flush()


def gzipped(*pieces: bytes, times: int = 1) -> bytes:
    """All pieces so often, without ever having them whole."""
    file = io.BytesIO()
    with gzip.GzipFile("", "wb", 1, file, mtime=0) as packed:
        for piece in pieces[:-1]:
            packed.write(piece)
        for _ in range(times):
            packed.write(pieces[-1])
    return file.getvalue()


def zip_of_zeros() -> bytes:
    size = 128 * MIB
    return zipped(ZipEntry(A, packed=zeros(size), size=size, crc=0))


def zip_of_more_than_it_says() -> bytes:
    return zipped(ZipEntry(A, packed=zeros(128 * MIB), size=10, crc=0))


def zip_of_a_million_entries(count: int, *, wide: bool) -> bytes:
    local = ZipEntry(A).local_record()
    """Their records alone: it is refused before any of them is looked for."""
    directory = ZipEntry(A).central_record(0) * 1_050_000
    at = len(local) + len(directory)
    end = end64_records(count, len(directory), len(local), at=at) if wide else b""
    return local + directory + end + end_record(min(count, 0xFFFF), len(directory), len(local))


def zip_with_a_large_directory() -> bytes:
    """Of few entries with much beside."""
    local = ZipEntry(A).local_record()
    directory = ZipEntry(A, extra=b"\x99\x99\xf0\xff" + bytes(0xFFF0)).central_record(0) * 1000
    return local + directory + end_record(1000, len(directory), len(local))


def zip_of_names(*names: bytes) -> bytes:
    """All are looked at, and kept in mind, before the last one is refused."""
    local, central, at = [], [], 0
    for name in (*names, b"../up"):
        entry = ZipEntry(name, method=STORED)
        local.append(entry.local_record())
        central.append(entry.central_record(at))
        at += len(local[-1])
    directory = b"".join(central)
    records = end64_records(len(central), len(directory), at, at=at + len(directory))
    end = end_record(0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
    return b"".join(local) + directory + records + end


def zip_of_growing_names() -> bytes:
    """Each letter, of two bytes, is three when it is compared."""
    return zip_of_names(*(b"%05d" % number + "ΐ".encode() * 125 for number in range(99_000)))


def zip_of_long_names() -> bytes:
    part = b"X" * 245
    return zip_of_names(*(b"/".join([b"%05d" % n + part] * 4) for n in range(24_000)))


def gzip_of_empty_members() -> bytes:
    return gz(tar_header(A, 100 * MIB) + bytes(20_000)) + gz(b"") * 1_000_000


def gzip_without_an_end_of_name() -> bytes:
    return b"\x1f\x8b\x08\x08" + bytes(6) + b"x" * (64 * MIB)


RECORDS = b"".join(pax_record(b"k%d" % number, b"v") for number in range(1000))
BOMBS: Mapping[str, tuple[Callable[[], bytes], str]] = {
    "zip of zeros": (zip_of_zeros, "200 times its size"),
    "zip of more than it says": (zip_of_more_than_it_says, "size or the checksum"),
    "zip of a million entries": (
        lambda: zip_of_a_million_entries(1_000_000, wide=True),
        "directory is too large",
    ),
    "zip of a million entries that says one": (
        lambda: zip_of_a_million_entries(1, wide=False),
        "directory is too large",
    ),
    "zip with a large directory": (zip_with_a_large_directory, "directory is too large"),
    "zip of growing names": (zip_of_growing_names, '".."'),
    "zip of long names": (zip_of_long_names, '".."'),
    "tar of many entries": (
        lambda: tar(tar_entry(b"./", kind=b"5") * 100_001),
        "more than 100000 entries",
    ),
    "tar.gz of many entries": (
        lambda: gzipped(tar_entry(b"./", kind=b"5") * 1000, times=101),
        "more than 100000 entries",
    ),
    "tar.gz of zeros": (
        lambda: gzipped(tar_header(A, 128 * MIB), bytes(MIB), times=128),
        "200 times its size",
    ),
    "tar.gz of zeros behind its end": (
        lambda: gzipped(tar(tar_entry(A)), bytes(MIB), times=128),
        "does not end",
    ),
    "tar.gz of a huge pax header": (
        lambda: gzipped(tar_header(A, 128 * MIB, kind=b"x"), bytes(MIB), times=128),
        "too large",
    ),
    "tar.gz of a huge long name": (
        lambda: gzipped(tar_header(A, 128 * MIB, kind=b"L"), b"x" * MIB, times=128),
        "too large",
    ),
    "tar of a million pax records": (
        lambda: tar((pax(RECORDS) + tar_entry(b"./", kind=b"5")) * 1000),
        "is empty",
    ),
    "tar of digits in a pax header": (
        lambda: tar(pax(b"1" * (MIB - 512)), tar_entry(A)),
        "pax header",
    ),
    "tar of thirty thousand pax headers": (
        lambda: tar(pax({b"path": b"b"}) * 30_000, tar_entry(A)),
        "two extra headers",
    ),
    "tar of a name a million folders deep": (
        lambda: tar(pax({b"path": b"d/" * 500_000 + A}), tar_entry(A)),
        "more than 1024 bytes",
    ),
    "tar.gz of a million gzip members": (gzip_of_empty_members, "gzip members"),
    "gzip without an end of its name": (gzip_without_an_end_of_name, "early"),
    "zip in a zip": (lambda: zipped(ZipEntry(b"inner.zip", zip_of_zeros())), ""),
    "tar.gz in a tar": (
        lambda: tar(tar_entry(b"inner.tgz", gzipped(tar_header(A, 64 * MIB), bytes(64 * MIB)))),
        "",
    ),
}


def peak() -> int:
    """Bytes. Not getrusage, whose mark is never below that of the process that starts this one."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def answers(archives: Path) -> Iterator[dict[str, str | float]]:
    for path in sorted(archives.iterdir()):
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder, path.open("rb") as file:
            said = answer(file, Path(folder))
        yield {"name": path.name, "said": said, "seconds": time.monotonic() - began}


def answer(file: BinaryIO, folder: Path) -> str:
    try:
        extract(file, folder, Limits())
    except ArchiveError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    for one in answers(Path(sys.argv[1])):
        sys.stdout.write(json.dumps(one) + "\n")
    sys.stdout.write(json.dumps({"peak": peak()}) + "\n")
