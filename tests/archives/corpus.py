"""All hostile archives, each with the words by which its refusal must say what it found."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from dispatcher.archives import Format, Limits
from tests.archives.raw import (
    STORED,
    ZipEntry,
    gz,
    pax,
    tar,
    tar_entry,
    zipped,
)
from tests.archives.tars import TARS, damaged_gzip
from tests.archives.zips import LATE_ZIPS, zips


@dataclass(frozen=True)
class Hostile:
    name: str
    format: Format
    content: bytes = field(repr=False)
    says: str
    late: bool = False  # what is wrong shows only in the content, so some of it is written
    limits: Limits = field(default_factory=Limits)


BAD_NAMES: Mapping[str, tuple[bytes, str]] = {
    "absolute": (b"/etc/passwd", 'begins with "/"'),
    "absolute twice": (b"//etc/passwd", 'begins with "/"'),
    "up first": (b"../a.txt", '".."'),
    "up far": (b"../../../../etc/passwd", '".."'),
    "up in the middle": (b"a/../../b.txt", '".."'),
    "up and back": (b"a/../b.txt", '".."'),
    "up last": (b"a/..", '".."'),
    "up alone": (b"..", '".."'),
    "up after a dot": (b"./../a.txt", '".."'),
    "up as a folder": (b"../", '".."'),
    "drive": (b"C:/a.txt", "drive letter"),
    "drive without a slash": (b"c:a.txt", "drive letter"),
    "drive after a dot": (b"./C:/a.txt", "drive letter"),
    "backslash": (b"a\\b.txt", "backslash"),
    "backslash up": (b"..\\..\\a.txt", "backslash"),
    "network share": (b"\\\\host\\share\\a.txt", "backslash"),
    "newline": (b"a\nb.txt", "control character"),
    "escape sequence": (b"\x1b[31ma.txt", "control character"),
    "delete": (b"a\x7f.txt", "control character"),
    "second row of controls": ("a\x9b.txt".encode(), "control character"),
    "long part": (b"x" * 256, "more than 255 bytes"),
    "long part of wide letters": ("é".encode() * 128, "more than 255 bytes"),
    "long path": (b"/".join([b"x" * 100] * 11), "more than 1024 bytes"),
    "long path of wide letters": ("/".join(["é" * 60] * 9).encode(), "more than 1024 bytes"),
    "deep": (b"d/" * 64 + b"a", "64 folders deep"),
    "half a letter": (b"a\xc3.txt", "not UTF-8"),
    "surrogate": (b"a\xed\xa0\x80.txt", "not UTF-8"),
    "the folder itself": (b".", "the archive's own folder"),
    "the folder itself, longer": (b"././.", "the archive's own folder"),
}
CLASHES: Mapping[str, tuple[tuple[bytes, ...], str]] = {
    "twice": ((b"a", b"a"), "is there twice"),
    "twice after a dot": ((b"a", b"./a"), "is there twice"),
    "twice by slashes": ((b"d/a.txt", b"d//./a.txt"), "is there twice"),
    "file above a file": ((b"a", b"a/b"), "a file's and a folder's"),
    "folder and then a file": ((b"a/b", b"a"), "a file's and a folder's"),
    "empty folder and then a file": ((b"a/", b"a"), "a file's and a folder's"),
    "file and then an empty folder": ((b"a", b"a/"), "a file's and a folder's"),
    "case": ((b"README", b"readme"), "case or Unicode form"),
    "case of a folder": ((b"src/a", b"SRC/b"), "case or Unicode form"),
    "case beyond ASCII": (("É".encode(), "é".encode()), "case or Unicode form"),
    "sharp s": (("straße".encode(), b"STRASSE"), "case or Unicode form"),
    "composed and not": (("\u00e9".encode(), "e\u0301".encode()), "case or Unicode form"),
    "both at once": (("\u00c9".encode(), "e\u0301".encode()), "case or Unicode form"),
}


def both(name: str, content: bytes, says: str, *, late: bool = False) -> Iterator[Hostile]:
    yield Hostile(f"tar: {name}", Format.TAR, content, says, late)
    yield Hostile(f"tar.gz: {name}", Format.TAR_GZ, gz(content), says, late)


def tar_named(name: bytes) -> bytes:
    kind = b"5" if name.endswith(b"/") else b"0"
    if len(name) > 100:
        return pax({b"path": name}) + tar_entry(b"short", kind=kind)
    return tar_entry(name, kind=kind)


def zip_named(name: bytes) -> ZipEntry:
    return ZipEntry(name, flags=1 << 11, method=STORED)


def names() -> Iterator[Hostile]:
    for what, (name, says) in BAD_NAMES.items():
        yield from both(what, tar(tar_entry(b"good"), tar_named(name)), says, late=True)
        yield Hostile(f"zip: {what}", Format.ZIP, zipped(zip_named(b"good"), zip_named(name)), says)
    for what, (several, says) in CLASHES.items():
        yield from both(what, tar(*map(tar_named, several)), says, late=True)
        yield Hostile(f"zip: {what}", Format.ZIP, zipped(*map(zip_named, several)), says)


SMALL: Mapping[str, tuple[Limits, str]] = {
    "bytes": (Limits(max_bytes=1999), "more than 1999 bytes"),
    "entries": (Limits(max_entries=2), "more than 2"),
}


def beyond_limits() -> Iterator[Hostile]:
    """Honest archives of three files of 1000, 1000 and 0 bytes."""
    files = {b"a": bytes(1000), b"b": bytes(1000), b"c": b""}
    as_tar = tar(*(tar_entry(name, content) for name, content in files.items()))
    as_zip = zipped(*(ZipEntry(name, content) for name, content in files.items()))
    for what, (limits, says) in SMALL.items():
        yield Hostile(f"tar: {what}", Format.TAR, as_tar, says, True, limits)
        yield Hostile(f"tar.gz: {what}", Format.TAR_GZ, gz(as_tar), says, True, limits)
        yield Hostile(f"zip: {what}", Format.ZIP, as_zip, says, False, limits)
    commits = tar(pax({b"comment": b"c"}, b"g") * 3, tar_entry(b"a"))
    says = "more than 2 entries"
    yield Hostile("tar: global headers", Format.TAR, commits, says, True, Limits(max_entries=2))
    deep, few = b"a/b/c/d", Limits(max_entries=3)
    says = "more than 3 files and folders"
    yield Hostile("tar: folders implied", Format.TAR, tar(tar_entry(deep)), says, True, few)
    yield Hostile("zip: folders implied", Format.ZIP, zipped(ZipEntry(deep)), says, False, few)


def hostile() -> Iterator[Hostile]:
    yield from names()
    for name, (content, says) in TARS.items():
        yield from both(name, content, says, late=True)
    for name, content, says in damaged_gzip():
        yield Hostile(f"tar.gz: {name}", Format.TAR_GZ, content, says, late=True)
    for name, content, says in zips():
        yield Hostile(f"zip: {name}", Format.ZIP, content, says)
    for name, (entry, says) in LATE_ZIPS.items():
        yield Hostile(f"zip: {name}", Format.ZIP, zipped(entry), says, late=True)
    yield from beyond_limits()
