"""Reads a zip by its central directory, all of which is held against the file before any content.

Not zipfile: that reads a directory of any size into memory, and takes entries that overlap, lie
about their size, or are packed by methods that need what memory they say.
"""

import os
import stat
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Final

from dispatcher.archives.inflate import RAW, Inflated
from dispatcher.archives.meter import Meter
from dispatcher.archives.model import CHUNK, ArchiveError, Entry, damaged, quoted
from dispatcher.archives.names import Paths, parts_of
from dispatcher.archives.zip_records import (
    END,
    END64,
    END64_SIGN,
    END_SIGN,
    LOCAL,
    LOCAL_SIGN,
    LOCATOR,
    LOCATOR_SIGN,
    STORED,
    End,
    Member,
    central_records,
    end_of,
    local_record,
)

RECORD: Final = 512  # bytes of the central directory for an entry, on an average
COMMENT: Final = 0xFFFF
FILE_MODE, FOLDER_MODE = 0o644, 0o755  # of entries that come from systems without modes


def zip_entries(file: BinaryIO, meter: Meter) -> Iterator[Entry]:
    """Refuses, before the first entry, every archive of which one may not be written."""
    end, directory = _directory(file, meter)
    paths = Paths(meter.limits.max_entries)
    extents: list[tuple[int, int, int]] = []
    announced = 0
    for member in central_records(directory):
        meter.entry()
        _check(member)
        announced += member.size
        meter.announced(announced)
        paths.add(parts_of(member.name), folder=_is_folder(member))
        extents.append(_extent(file, member, end.offset))
    _check_whole(end, extents)
    if not paths.files:
        raise ArchiveError("The archive is empty: there is no file in it.")
    # Read again and not kept: a hundred thousand long names would fill the memory.
    starts = (content for _, content, _ in extents)
    return (
        _entry(file, member, start, meter)
        for member, start in zip(central_records(directory), starts, strict=True)
    )


def _directory(file: BinaryIO, meter: Meter) -> tuple[End, bytes]:
    size = file.seek(0, os.SEEK_END)
    tail = _at(file, max(0, size - END.size - COMMENT), min(size, END.size + COMMENT))
    found = tail.rfind(END_SIGN)
    if found < 0 or len(tail) < found + END.size:
        raise ArchiveError("The archive ends too early: it has no end record.")
    record = tail[found : found + END.size]
    if found + END.size + int.from_bytes(record[-2:], "little") != len(tail):
        raise damaged("it does not end where its end record says")
    record64, behind = _record64(file, size - len(tail) + found)
    end = end_of(record, record64)
    if end.offset + end.size != behind:
        raise damaged("its central directory is not where its end record says")
    if end.size > meter.limits.max_entries * RECORD:
        raise ArchiveError("The archive's central directory is too large.")
    return end, _at(file, end.offset, end.size)


def _record64(file: BinaryIO, end: int) -> tuple[bytes | None, int]:
    """The zip64 end record before the end record, if there is one; and what then ends where."""
    if end < LOCATOR.size:
        return None, end
    sign, disk, offset, disks = LOCATOR.unpack(_at(file, end - LOCATOR.size, LOCATOR.size))
    if sign != LOCATOR_SIGN:
        return None, end
    record = _at(file, min(offset, end), END64.size)
    if record[:4] != END64_SIGN or offset + 12 + END64.unpack(record)[1] != end - LOCATOR.size:
        raise damaged("its zip64 end record is not where it should be")
    if disk or disks > 1:
        raise ArchiveError("The archive is one part of several; give it as one file.")
    return record, offset


def _check(member: Member) -> None:
    shown = quoted(member.name)
    kind = stat.S_IFMT(member.mode)
    folder = _is_folder(member)
    if member.encrypted:
        raise ArchiveError(f"The archive's {shown} is encrypted; give it without a password.")
    if not member.known:
        raise ArchiveError(f"The archive's {shown} is packed by a method other than deflate.")
    if stat.S_ISLNK(kind):
        raise ArchiveError(
            f"The archive's {shown} is a symbolic link; only files and folders are taken."
        )
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or (stat.S_ISDIR(kind) and not folder):
        raise ArchiveError(f"The archive's {shown} is neither a file nor a folder.")
    if folder and member.size:
        raise ArchiveError(f"The archive's folder {shown} has content.")


def _is_folder(member: Member) -> bool:
    return member.raw_name.endswith(b"/")


def _extent(file: BinaryIO, member: Member, limit: int) -> tuple[int, int, int]:
    """Where its local record, its content and what follows begin."""
    if member.offset >= limit:  # a seek as far as zip64 can say fails by itself
        raise damaged(f"{quoted(member.name)} is not in front of its central directory")
    local, content = _local(file, member.offset)
    if not member.agrees(local):
        raise damaged(f"its two records of {quoted(member.name)} differ")
    after = content + member.packed
    if after > limit:
        raise damaged(f"{quoted(member.name)} is larger than the archive")
    return member.offset, content, after


def _local(file: BinaryIO, offset: int) -> tuple[Member, int]:
    fixed = _at(file, offset, LOCAL.size)
    if fixed[:4] != LOCAL_SIGN:
        raise damaged("an entry is not where its central directory says")
    name, extra = LOCAL.unpack(fixed)[-2:]
    rest = _at(file, offset + LOCAL.size, name + extra)
    return local_record(fixed, rest), offset + LOCAL.size + name + extra


def _check_whole(end: End, extents: list[tuple[int, int, int]]) -> None:
    if not end.counts(len(extents)):
        raise damaged("its central directory has another number of entries than it says")
    reached = 0
    for start, _, after in sorted(extents):
        if start < reached:
            raise damaged("its entries overlap")
        reached = after


def _entry(file: BinaryIO, member: Member, start: int, meter: Meter) -> Entry:
    folder = _is_folder(member)
    mode = member.mode or (FOLDER_MODE if folder else FILE_MODE)
    contents = iter(()) if folder else _contents(file, member, start, meter)
    return Entry(parts_of(member.name), folder, mode, contents)


def _contents(file: BinaryIO, member: Member, start: int, meter: Meter) -> Iterator[bytes]:
    """As long as the entry says and with its checksum, or ArchiveError before more is given."""
    crc, left = 0, member.size
    packed = _chunks(file, start, member.packed, meter)
    plain = member.method == STORED or not member.packed  # an empty file may be left out whole
    for piece in packed if plain else _inflated(packed):
        meter.unpacked(len(piece))
        left -= len(piece)
        if left < 0:
            break
        crc = zlib.crc32(piece, crc)
        yield piece
    if left or crc != member.crc:
        raise damaged(f"{quoted(member.name)} is not of the size or the checksum that it says")


def _inflated(packed: Iterator[bytes]) -> Iterator[bytes]:
    stream = Inflated(RAW)
    for chunk in packed:
        if stream.ended:
            raise damaged("an entry's content ends before its place does")
        yield from stream.feed(chunk)
    if not stream.ended or stream.left:
        raise damaged("an entry's content does not end where its place does")


def _chunks(file: BinaryIO, start: int, count: int, meter: Meter) -> Iterator[bytes]:
    for at in range(start, start + count, CHUNK):
        meter.ask()  # here too, as much may be read of which nothing comes out
        yield _at(file, at, min(CHUNK, start + count - at))


def _at(file: BinaryIO, offset: int, count: int) -> bytes:
    file.seek(offset)
    found = file.read(count)
    if len(found) != count:
        raise ArchiveError("The archive ends too early.")
    return found
