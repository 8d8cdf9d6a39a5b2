"""What archives are called, how much one may hold, and how a refusal is told."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

CHUNK: Final = 64 * 1024  # what is read, inflated and written at once
NAME_SHOWN: Final = 100  # characters of a name in an error's sentence
SENTENCE: Final = 500


class Format(StrEnum):
    ZIP = "zip"
    TAR = "tar"
    TAR_GZ = "tar.gz"
    PLAIN = "plain"


class ArchiveError(Exception):
    """What is wrong with an archive, or with a folder to pack: one sentence, fit to be shown."""

    def __init__(self, sentence: str) -> None:
        super().__init__(_printable(sentence[:SENTENCE])[:SENTENCE])


@dataclass(frozen=True)
class Limits:
    """How much one archive may hold. Its depth and the length of its names are limited always.

    `max_entries` counts what stands in the archive, and also the files and folders made of it.
    `max_ratio`, of what comes out to the archive's size, counts only beyond 32 MiB.
    """

    max_bytes: int = 10 * 2**30
    max_entries: int = 100_000
    max_ratio: float = 200


@dataclass(frozen=True)
class Entry:
    """One file or folder of an archive; `contents` must be taken before the next entry."""

    parts: tuple[str, ...]
    folder: bool
    mode: int
    contents: Iterator[bytes]


def never() -> bool:
    return False


def damaged(what: str) -> ArchiveError:
    return ArchiveError(f"The archive is damaged: {what}.")


def quoted(name: str) -> str:
    cut = name if len(name) <= NAME_SHOWN else f"{name[:NAME_SHOWN]}..."
    return f'"{cut}"'


def _printable(text: str) -> str:
    """Names are hostile: what could break a line or turn the reading order is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
