"""Which names an archive may use, and that no two of them meet on any file system.

Knows no format and touches no file.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

from dispatcher.archives.model import ArchiveError, quoted

PATH_BYTES: Final = 1024  # far below PATH_MAX, as the folder's own path comes before it
PART_BYTES: Final = 255  # NAME_MAX
DEPTH: Final = 64


def parts_of(name: str) -> tuple[str, ...]:
    """The folders and the last part of a name; nothing for the archive's own folder."""
    for fault in _faults(name):
        raise ArchiveError(f"The name {quoted(name)} {fault}.")
    return _parts(name)


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part for part in name.split("/") if part not in ("", "."))


def _faults(name: str) -> Iterator[str]:
    if not name:
        yield "is empty"
    # First, as it bounds the work of all that follows.
    if len(name) > PATH_BYTES or len(_encoded(name)) > PATH_BYTES:
        yield f"has more than {PATH_BYTES} bytes"
    if re.search(r"[\ud800-\udfff]", name):
        yield "is not UTF-8"
    if re.search(r"[\x00-\x1f\x7f-\x9f]", name):
        yield "holds a control character"
    if "\\" in name:
        yield 'holds a backslash; folders are parted by "/"'
    if name.startswith("/"):
        yield 'begins with "/"; it must lead into the archive\'s own folder'
    yield from _faulty_parts(_parts(name))


def _faulty_parts(parts: tuple[str, ...]) -> Iterator[str]:
    if ".." in parts:
        yield 'holds ".."; it must lead into the archive\'s own folder'
    if parts and re.match(r"[A-Za-z]:", parts[0]):
        yield "begins with a drive letter"
    if any(len(_encoded(part)) > PART_BYTES for part in parts):
        yield f"has a part of more than {PART_BYTES} bytes"
    if len(parts) > DEPTH:
        yield f"is more than {DEPTH} folders deep"


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


@dataclass(slots=True)
class _Node:
    name: str
    folder: bool
    inside: dict[bytes, "_Node"] = field(default_factory=dict)


class Paths:
    """The files and folders that an archive makes, told apart as the least exact file system does.

    A tree and not a set of paths: a hundred thousand long paths would fill the memory.
    """

    def __init__(self, most: int | None = None) -> None:
        self.files = 0
        self._count = 0
        self._most = most
        self._top: dict[bytes, _Node] = {}

    def add(self, parts: tuple[str, ...], *, folder: bool) -> None:
        """Also the folders above. A file may come once, a folder again."""
        if not parts and not folder:
            raise ArchiveError("A file bears the name of the archive's own folder.")
        here = self._top
        for part in parts[:-1]:
            here = self._step(here, part, parts, folder=True)
        if parts:
            self._step(here, parts[-1], parts, folder=folder)
        self.files += not folder

    def _step(
        self, here: dict[bytes, _Node], part: str, parts: tuple[str, ...], *, folder: bool
    ) -> dict[bytes, _Node]:
        key = _folded(part)
        node = here.get(key)
        if node is None:
            self._count_one()
            node = here[key] = _Node(part, folder)
        elif fault := _clash(node, part, folder=folder):
            raise ArchiveError(f"The name {quoted('/'.join(parts))} {fault}.")
        return node.inside

    def _count_one(self) -> None:
        self._count += 1
        if self._most is not None and self._count > self._most:
            raise ArchiveError(f"The archive makes more than {self._most} files and folders.")


def _folded(part: str) -> bytes:
    """The same for what a file system may take for the same: Unicode's caseless match, D145.

    A digest, as the text may be three times as long as the part.
    """
    if part.isascii():
        text = part.lower()
    else:
        text = unicodedata.normalize("NFD", unicodedata.normalize("NFD", part).casefold())
    return blake2b(text.encode(), digest_size=16).digest()


def _clash(node: _Node, part: str, *, folder: bool) -> str:
    if node.name != part:
        return f"differs from {quoted(node.name)} in case or Unicode form alone"
    if node.folder != folder:
        return "is a file's and a folder's"
    return "" if folder else "is there twice"
