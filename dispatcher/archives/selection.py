"""What of a folder goes into an archive of it: every file, or those that patterns name.

Knows no format. Links are followed only to files inside, so that nothing from outside is packed.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from dispatcher.archives.model import ArchiveError, quoted
from dispatcher.archives.names import Paths, parts_of


@dataclass(frozen=True)
class Member:
    """A file or folder to pack, under its path in the archive; `source` is no link."""

    path: str
    source: Path
    mode: int
    size: int
    modified: float
    folder: bool


@dataclass(frozen=True)
class _Found:
    parts: tuple[str, ...]
    leaf: bool  # all but folders that hold something

    @property
    def path(self) -> str:
        return "/".join(self.parts)


def selected(folder: Path, include: Sequence[str] | None) -> Sequence[Member]:
    """In order of their paths, each folder before what is in it."""
    if not folder.is_dir():
        raise ArchiveError(f"The folder {quoted(folder.name)} that should be packed is not there.")
    root = folder.resolve()
    found = sorted(_walk(root), key=lambda one: one.parts)
    chosen = found if include is None else list(_included(found, include))
    paths = Paths()
    members = []
    for one in chosen:
        member = _member(root, one)
        paths.add(parts_of(one.path), folder=member.folder)
        members.append(member)
    if not paths.files:
        raise ArchiveError(f"The folder {quoted(folder.name)} holds no file that could be packed.")
    return members


def _walk(root: Path) -> Iterator[_Found]:
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        above = waiting.pop()
        with os.scandir(root.joinpath(*above)) as entries:
            inside = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        if above:
            yield _Found(above, leaf=not inside)
        for name, folder in inside:
            if folder:
                waiting.append((*above, name))
            else:
                yield _Found((*above, name), leaf=True)


def _included(found: Sequence[_Found], include: Sequence[str]) -> Iterator[_Found]:
    """Leaves that a pattern names, and the folders above them for their modes."""
    patterns = [tuple(part for part in text.split("/") if part != ".") for text in include]
    unmatched = dict(zip(patterns, include, strict=True))
    wanted: set[tuple[str, ...]] = set()
    for one in found:
        for pattern in patterns:
            if one.leaf and _matches(pattern, one.parts):
                unmatched.pop(pattern, None)
                wanted.update(one.parts[:depth] for depth in range(1, len(one.parts) + 1))
    for text in unmatched.values():
        raise ArchiveError(
            f"The pattern {quoted(text)} matches no file; a folder's files are named by "
            f"{quoted('folder/**')}."
        )
    return (one for one in found if one.parts in wanted)


def _matches(pattern: Sequence[str], parts: Sequence[str]) -> bool:
    if not pattern or not parts:
        return not pattern and not parts
    if pattern[0] != "**":
        return fnmatchcase(parts[0], pattern[0]) and _matches(pattern[1:], parts[1:])
    if len(pattern) == 1:
        return True
    return any(_matches(pattern[1:], parts[start:]) for start in range(len(parts)))


def _member(root: Path, found: _Found) -> Member:
    source = root.joinpath(*found.parts)
    state = source.lstat()
    if stat.S_ISLNK(state.st_mode):
        source = _target(root, source, found.path)
        state = source.lstat()
        if stat.S_ISDIR(state.st_mode):
            raise _refused(found.path, "a link to a folder")
    folder = stat.S_ISDIR(state.st_mode)
    if not folder and not stat.S_ISREG(state.st_mode):
        raise _refused(found.path, "neither a file nor a folder")
    size = 0 if folder else state.st_size
    return Member(found.path, source, state.st_mode & 0o777, size, state.st_mtime, folder)


def _target(root: Path, link: Path, path: str) -> Path:
    try:
        target = link.resolve(strict=True)
    except PermissionError:
        raise
    except (OSError, RuntimeError) as error:  # the latter is pathlib's word for a loop
        raise _refused(path, "a link that leads nowhere") from error
    if not target.is_relative_to(root):
        raise _refused(path, "a link out of the folder")
    return target


def _refused(path: str, what: str) -> ArchiveError:
    return ArchiveError(f"{quoted(path)} cannot be packed: it is {what}.")
