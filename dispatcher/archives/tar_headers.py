"""The blocks of a tar that are no content: headers of ustar, v7 and GNU, and pax records.

Refuses what it does not know, as readers that guess come to different files from one archive.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from dispatcher.archives.model import ArchiveError, damaged, quoted

BLOCK: Final = 512
ZEROS: Final = bytes(BLOCK)
FILE, OLD_FILE, FOLDER, SPARSE = b"0", b"\0", b"5", b"S"
PAX, PAX_GLOBAL, LONG_NAME, LONG_LINK = b"x", b"g", b"L", b"K"
EXTRAS: Final = {PAX: 2**20, PAX_GLOBAL: 2**20, LONG_NAME: 2**13, LONG_LINK: 2**13}  # bytes at most
PAX_RECORDS: Final = 1000  # in one header; each costs time
_PAX_LENGTH: Final = re.compile(rb"([1-9][0-9]{0,6}) ")
_REFUSED: Final = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a fifo",
    SPARSE: "a sparse file",
}
_CHECKSUM: Final = slice(148, 156)
_MAGIC: Final = slice(257, 262)


@dataclass(frozen=True)
class Header:
    name: bytes
    mode: int
    size: int
    kind: bytes


def begins_tar(block: bytes) -> bool:
    """Also of a header that is damaged, or older than the magic."""
    return len(block) == BLOCK and (block[_MAGIC] == b"ustar" or _is_whole(block))


def header_of(block: bytes) -> Header:
    if not _is_whole(block):
        raise damaged("a tar header does not have its checksum")
    name = _text(block[:100])
    if block[257:263] == b"ustar\0" and (prefix := _text(block[345:500])):
        name = prefix + b"/" + name
    kind = block[156:157]
    if kind == OLD_FILE:
        kind = FOLDER if name.endswith(b"/") else FILE
    return Header(name, _number(block[100:108]), _number(block[124:136]), kind)


def check_kind(header: Header) -> None:
    shown = quoted(header.name.decode(errors="replace"))
    if header.kind not in (FILE, FOLDER):
        what = _REFUSED.get(header.kind, "of a kind that is not known")
        raise ArchiveError(f"The archive's {shown} is {what}; only files and folders are taken.")
    if header.kind == FOLDER and header.size:
        raise ArchiveError(f"The archive's folder {shown} has content.")
    if header.kind == FILE and header.name.endswith(b"/"):
        raise ArchiveError(f"The archive's file {shown} has a folder's name.")


def pax_records(body: bytes) -> Mapping[bytes, bytes]:
    """Each is its own length in decimals, a space, a key, an equals sign, a value and a newline."""
    records: dict[bytes, bytes] = {}
    at = count = 0
    while at < len(body):
        key, value, at = _pax_record(body, at)
        records[key] = value
        count += 1
        if count > PAX_RECORDS:
            raise ArchiveError(f"The archive has a pax header of more than {PAX_RECORDS} records.")
    return records


def _pax_record(body: bytes, at: int) -> tuple[bytes, bytes, int]:
    length = _PAX_LENGTH.match(body, at)
    end = at + int(length[1]) if length else 0
    if length and end <= len(body) and body[end - 1] == ord("\n"):
        key, equals, value = body[length.end() : end - 1].partition(b"=")
        if key and equals:
            return key, value, end
    raise damaged("a pax header cannot be read")


def check_global(body: bytes) -> None:
    """git's archives name their commit here; a name or a size for all entries is nothing honest."""
    for key in pax_records(body):
        if key in (b"path", b"size") or key.startswith(b"GNU.sparse."):
            raise ArchiveError("The archive's global pax header would alter every entry.")


def amended(header: Header, extras: Mapping[bytes, bytes]) -> Header:
    """With the name and size that its extra headers give it."""
    records = pax_records(extras.get(PAX, b""))
    sparse = any(key.startswith(b"GNU.sparse.") for key in records)
    names = [records[b"path"]] if b"path" in records else []
    if LONG_NAME in extras:
        names.append(_text(extras[LONG_NAME]))
    if len(names) > 1:
        raise ArchiveError("The archive gives one entry two long names.")
    size = _decimal(records[b"size"]) if b"size" in records else header.size
    kind = SPARSE if sparse else header.kind
    return Header(names[0] if names else header.name, header.mode, size, kind)


def _decimal(value: bytes) -> int:
    if not re.fullmatch(rb"[0-9]{1,20}", value):
        raise damaged("a pax header has a size that is no number")
    return int(value)


def _is_whole(block: bytes) -> bool:
    """Whether the checksum is that of the block with blanks in its place."""
    said = block[_CHECKSUM].strip(b" \0")
    total = sum(block) - sum(block[_CHECKSUM]) + 8 * ord(" ")
    return re.fullmatch(rb"[0-7]+", said) is not None and int(said, 8) == total


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes) -> int:
    """Octal digits; or after 0x80 the bytes of the number itself. After 0xff it is below zero."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = _text(field).strip(b" ")
    if not re.fullmatch(rb"[0-7]*", digits):
        raise damaged("a tar header has a number that cannot be read")
    return int(digits or b"0", 8)
