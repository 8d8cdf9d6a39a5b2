"""From an archive's file to a folder: which reader takes it, and within what limits."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from dispatcher.archives.formats import format_of
from dispatcher.archives.inflate import gunzipped
from dispatcher.archives.meter import Meter
from dispatcher.archives.model import CHUNK, Entry, Format, Limits, never
from dispatcher.archives.tar import Stream, tar_entries
from dispatcher.archives.tree import Tree
from dispatcher.archives.zip import zip_entries

_LIMITS: Final = Limits()


def extract(
    file: BinaryIO, folder: Path, limits: Limits = _LIMITS, over: Callable[[], bool] = never
) -> Format:
    """Unpack a file on disk into the folder, made if need be, over nothing that stands there.

    Writes nothing for PLAIN. Of a file's mode the bits 0o777 are kept, and its owner may always
    read and write; its time is not. Raises ArchiveError for an archive that is empty, damaged,
    hostile or beyond the limits, and when `over`, asked all the while, says so: what was written
    then stays. Raises OSError for what fails in reading the file or writing into the folder.
    """
    found = format_of(file)
    if found is Format.PLAIN:
        return found
    meter = Meter(limits, file.seek(0, os.SEEK_END), over)
    file.seek(0)
    entries = _entries(file, found, meter)
    with Tree(folder, meter) as tree:
        for entry in entries:
            tree.add(entry)
    return found


def _entries(file: BinaryIO, found: Format, meter: Meter) -> Iterator[Entry]:
    if found is Format.ZIP:
        return zip_entries(file, meter)
    packed = _chunks(file, meter)
    content = _unpacked(packed, meter) if found is Format.TAR_GZ else packed
    return tar_entries(Stream(content, meter), meter)


def _chunks(file: BinaryIO, meter: Meter) -> Iterator[bytes]:
    while chunk := file.read(CHUNK):
        meter.ask()
        yield chunk


def _unpacked(packed: Iterator[bytes], meter: Meter) -> Iterator[bytes]:
    for piece in gunzipped(packed):
        meter.unpacked(len(piece))
        yield piece
