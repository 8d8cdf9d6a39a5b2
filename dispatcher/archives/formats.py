"""Which format a file has, by what is in it. Unpacks no more than a first header."""

from typing import BinaryIO, Final

from dispatcher.archives.inflate import gunzipped
from dispatcher.archives.model import CHUNK, Format
from dispatcher.archives.tar_headers import BLOCK, begins_tar
from dispatcher.archives.zip_records import END_SIGN, LOCAL_SIGN

GZIP_SIGN: Final = b"\x1f\x8b\x08"
EMPTY_TAR: Final = 20 * BLOCK  # a record of zeros; longer zeros are a file of zeros
LOOKED_AT: Final = 2**20  # bytes of a gzip within which its content must begin


def format_of(file: BinaryIO) -> Format:
    """The file's position is 0 after it.

    What is none of the formats is PLAIN: also a gzip of anything but a tar, other compressions, and
    a zip behind a program that unpacks it. Raises ArchiveError for a gzip that cannot be read.
    """
    file.seek(0)
    head = file.read(EMPTY_TAR + 1)
    file.seek(0)
    if head.startswith((LOCAL_SIGN, END_SIGN)):
        return Format.ZIP
    if head.startswith(GZIP_SIGN):
        content = _beginning(file)
        return Format.TAR_GZ if _is_tar(content) else Format.PLAIN
    return Format.TAR if _is_tar(head) else Format.PLAIN


def _beginning(file: BinaryIO) -> bytes:
    content = b""
    packed = (file.read(CHUNK) for _ in range(LOOKED_AT // CHUNK))
    for piece in gunzipped(packed):
        content += piece
        if len(content) > EMPTY_TAR:
            break
    file.seek(0)
    return content


def _is_tar(head: bytes) -> bool:
    """A tar of nothing is zeros alone."""
    whole = len(head) <= EMPTY_TAR
    empty = whole and len(head) >= 2 * BLOCK and len(head) % BLOCK == 0 and not head.strip(b"\0")
    return empty or begins_tar(head[:BLOCK])
