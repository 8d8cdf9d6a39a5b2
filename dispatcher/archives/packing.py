"""From a folder to an archive: the same files, times and modes make the same bytes anywhere."""

import gzip
import os
import stat
import tarfile
import time
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from dispatcher.archives.model import CHUNK, ArchiveError, Format, quoted
from dispatcher.archives.selection import Member, selected

LEVEL: Final = 6  # of deflate: 9 takes several times as long for a hundredth
UNIX: Final = 3
MS_DOS_FOLDER: Final = 0x10
ZIP_TIMES: Final = (315_532_800, 4_354_819_198)  # 1980 to 2107, which is what its dates can say
TAR_TIMES: Final = (0, 8**11 - 1)


def pack(
    folder: Path,
    file: BinaryIO,
    format: Format = Format.ZIP,  # noqa: A002 - the word that a handler's author reads
    include: Sequence[str] | None = None,
) -> None:
    """Write an archive of the folder into the file, which must be seekable for a zip.

    `include`: patterns of paths in the folder, parted by "/", where `*`, `?` and `[...]` stand for
    characters of one part and `**` for folders, or at the end for all that is in them; each must
    match a file or an empty folder. Without it all is packed. A link to a file inside the folder
    is packed as that file. Raises ArchiveError for a folder without files, for other links, for
    what is neither file nor folder, and for names that `extract` would refuse.
    """
    if format is Format.PLAIN:
        raise ValueError("A folder cannot be packed as plain; use zip, tar or tar.gz.")
    members = selected(folder, include)
    if format is Format.ZIP:
        _write_zip(members, file)
    elif format is Format.TAR:
        _write_tar(members, file)
    else:
        with gzip.GzipFile("", "wb", LEVEL, file, mtime=0) as packed:
            _write_tar(members, packed)


def _write_zip(members: Iterable[Member], file: BinaryIO) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=LEVEL) as archive:
        for member in members:
            with archive.open(_zip_record(member), "w") as entry:
                for chunk in _contents(member):
                    entry.write(chunk)


def _zip_record(member: Member) -> zipfile.ZipInfo:
    moment = time.gmtime(_within(member.modified, ZIP_TIMES))
    record = zipfile.ZipInfo(f"{member.path}/" if member.folder else member.path, moment[:6])
    record.create_system = UNIX
    kind = stat.S_IFDIR if member.folder else stat.S_IFREG
    record.external_attr = (kind | member.mode) << 16 | (MS_DOS_FOLDER if member.folder else 0)
    record.compress_type = zipfile.ZIP_STORED if member.folder else zipfile.ZIP_DEFLATED
    record.file_size = member.size  # so that zip64 is used where it is needed
    return record


def _write_tar(members: Iterable[Member], file: BinaryIO | gzip.GzipFile) -> None:
    """By tarfile's headers alone, as its TarFile keeps every one of them."""
    for member in members:
        record = tarfile.TarInfo(member.path)
        record.type = tarfile.DIRTYPE if member.folder else tarfile.REGTYPE
        record.mode, record.size = member.mode, member.size
        record.mtime = _within(member.modified, TAR_TIMES)
        file.write(record.tobuf(tarfile.PAX_FORMAT))
        for chunk in _contents(member):
            file.write(chunk)
        file.write(bytes(-member.size % tarfile.BLOCKSIZE))
    file.write(bytes(2 * tarfile.BLOCKSIZE))


def _within(moment: float, times: tuple[int, int]) -> int:
    return int(min(max(moment, times[0]), times[1]))


def _contents(member: Member) -> Iterator[bytes]:
    if member.folder:
        return
    left = member.size
    # The path may be another's by now: a link is not followed, and a fifo not waited for.
    source = os.open(member.source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(source, "rb") as file:
        while (chunk := file.read(CHUNK)) and left >= len(chunk):
            left -= len(chunk)
            yield chunk
    if chunk or left:
        raise ArchiveError(f"{quoted(member.path)} changed while it was packed.")
