"""What is honest comes out as it went in, and what is no archive is left alone."""

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from dispatcher.archives import Format, format_of
from tests.archives.harness import everything, unpacked
from tests.archives.raw import (
    END,
    FOLDER,
    REGULAR,
    STORED,
    ZipEntry,
    deflated,
    end64_records,
    end_record,
    gz,
    long_name,
    pax,
    tar,
    tar_entry,
    tar_header,
    wide,
    zip_parts,
    zipped,
)

HELLO = b"hello " * 100
LATER: dict[str, bytes | int] = {"flags": 8, "crc": 0, "packed_size": 0, "size": 0}
LATER64 = LATER | {"packed_size": 0xFFFFFFFF, "size": 0xFFFFFFFF, "extra": wide(0, 0)}
WIDE: dict[str, bytes | int] = {"size": 0xFFFFFFFF, "packed_size": 0xFFFFFFFF}
DESCRIBED = ZipEntry(b"a", HELLO, flags=8, local=LATER, behind=b"PK\x07\x08" + bytes(12))


def wide_zip(brief: bytes | None = None) -> bytes:
    """With zip64 end records though nothing needs them."""
    local, central = zip_parts(ZipEntry(b"a", HELLO))
    size, at = len(central), len(local)
    records = end64_records(1, size, at, at=at + size)
    return local + central + records + (brief or end_record(0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF))


def reversed_zip() -> bytes:
    one, two = ZipEntry(b"a", HELLO), ZipEntry(b"b", HELLO)
    local, _ = zip_parts(one, two)
    central = two.central_record(len(one.local_record())) + one.central_record(0)
    return local + central + end_record(2, len(central), len(local))


HONEST: dict[str, bytes] = {
    "zip": zipped(ZipEntry(b"a", HELLO)),
    "stored zip": zipped(ZipEntry(b"a", HELLO, method=STORED)),
    "zip of one file by way of dots": zipped(ZipEntry(b"././a", HELLO)),
    "zip with its own folder": zipped(ZipEntry(b"./", mode=FOLDER | 0o755), ZipEntry(b"a", HELLO)),
    "zip with a comment": zipped(ZipEntry(b"a", HELLO), comment=b"PK\x05\x05 said somebody"),
    "zip with sizes behind": zipped(DESCRIBED),
    "zip with wide sizes behind": zipped(
        ZipEntry(b"a", HELLO, flags=8, local=LATER64, behind=b"PK\x07\x08" + bytes(20))
    ),
    "zip with a gap": zipped(ZipEntry(b"a", HELLO, behind=b"aligned")),
    "zip with wide sizes": zipped(
        ZipEntry(b"a", HELLO, size=0xFFFFFFFF, extra=b"\x99\x99\1\0x" + wide(600))
    ),
    "zip with wide local sizes alone": zipped(
        ZipEntry(b"a", HELLO, local=WIDE | {"extra": wide(600, len(deflated(HELLO)))})
    ),
    "zip in another order than its directory": reversed_zip(),
    "zip64": wide_zip(),
    "zip64 beside true numbers": wide_zip(end_record(1, 47, 0xFFFFFFFF)),
    "tar": tar(tar_entry(b"a", HELLO)),
    "tar.gz": gz(tar(tar_entry(b"a", HELLO))),
    "tar of the seventh Unix": tar(tar_entry(b"a", HELLO, kind=b"\0", magic=bytes(8))),
    "old folder in a tar": tar(
        tar_entry(b"d/", kind=b"\0", magic=bytes(8)), tar_entry(b"d/b"), tar_entry(b"a", HELLO)
    ),
    "tar of GNU": tar(tar_entry(b"a", HELLO, magic=b"ustar  \0", prefix=b"12345670123")),
    "tar with its own folder": tar(tar_entry(b"./", kind=b"5"), tar_entry(b"./a", HELLO)),
    "tar with a long name of GNU": tar(long_name(b"a"), tar_entry(b"cut", HELLO)),
    "tar with a pax name": tar(pax({b"path": b"a", b"mtime": b"1.5"}), tar_entry(b"cut", HELLO)),
    "tar with a pax size": tar(
        pax({b"size": b"600"}), tar_header(b"a"), tar_entry(b"", HELLO)[512:]
    ),
    "tar with a commit": tar(pax({b"comment": b"5a" * 20}, b"g"), tar_entry(b"a", HELLO)),
    "tar with a binary size": tar(
        tar_header(b"a", b"\x80" + (600).to_bytes(11, "big")), tar_entry(b"", HELLO)[512:]
    ),
    "tar with blanks before numbers": tar(
        tar_header(b"a", b"       1130 ", mode=b"   644 \0"), tar_entry(b"", HELLO)[512:]
    ),
    "tar with one zero block": tar(tar_entry(b"a", HELLO))[:-512],
    "tar in large records": tar(tar_entry(b"a", HELLO)) + bytes(2**20 - 2048 - 512),
    "tar.gz in two members": gz(tar(tar_entry(b"a", HELLO))[:700])
    + gz(tar(tar_entry(b"a", HELLO))[700:]),
    "tar.gz with zeros behind": gz(tar(tar_entry(b"a", HELLO))) + bytes(100_000),
}
PLAIN: dict[str, bytes] = {
    "nothing": b"",
    "text": b"hello",
    "long text": b"hello " * 10_000,
    "zeros": bytes(100_000),
    "gzip of zeros": gz(bytes(2**16)),
    "few zeros": bytes(512),
    "odd zeros": bytes(1025),
    "gzip of nothing": gz(b""),
    "gzip of text": gz(b"hello"),
    "gzip of long text": gz(b"hello " * 10_000),
    "gzip of a gzip of a tar": gz(gz(tar(tar_entry(b"a")))),
    "another compression": b"BZh91AY&SY" + bytes(600),
    "a program with a zip behind": b"#!/bin/sh\n" + zipped(ZipEntry(b"a")),
    "a tar's header cut": tar_entry(b"a")[:511],
    "an old tar with a wrong checksum": tar_entry(b"a", magic=bytes(8))[:-1] + b"\1" + END,
    "the beginnings of signs": b"PK\x03",
    "another sign": b"\x1f\x8b\x07" + bytes(9),
}


@pytest.mark.parametrize("content", HONEST.values(), ids=HONEST)
def test_an_honest_archive_is_unpacked(content: bytes, tmp_path: Path) -> None:
    unpacked(content, tmp_path / "new" / "folder")

    assert (tmp_path / "new" / "folder" / "a").read_bytes() == HELLO


@pytest.mark.parametrize("content", PLAIN.values(), ids=PLAIN)
def test_what_is_no_archive_is_plain_and_left_alone(content: bytes, tmp_path: Path) -> None:
    found = unpacked(content, tmp_path / "folder")

    assert found is Format.PLAIN
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize(
    "content", [HONEST["zip"], HONEST["tar"], HONEST["tar.gz"], PLAIN["text"]], ids=list(Format)
)
def test_to_look_at_a_file_does_not_move_it(content: bytes) -> None:
    file = io.BytesIO(content)
    file.seek(3)

    format_of(file)

    assert file.tell() == 0


def test_folders_named_or_not_and_modes_are_kept(tmp_path: Path) -> None:
    entries = [
        (b"tool", HELLO, REGULAR | 0o755),
        (b"deep/er/file", b"", REGULAR | 0o640),
        (b"deep/", b"", FOLDER | 0o710),
        (b"empty/", b"", FOLDER | 0o777),
        (b"empty/", b"", FOLDER | 0o770),
    ]
    as_zip = zipped(*(ZipEntry(name, content, mode) for name, content, mode in entries))
    as_tar = tar(
        *(
            tar_entry(name, content, mode=mode & 0o777, kind=b"5" if name.endswith(b"/") else b"0")
            for name, content, mode in entries
        )
    )

    unpacked(as_zip, tmp_path / "zip")
    unpacked(as_tar, tmp_path / "tar")

    found = everything(tmp_path / "zip")
    assert found == everything(tmp_path / "tar")
    assert {path: oct(mode) for path, (mode, _) in found.items() if path != "deep/er"} == {
        "tool": "0o100755",
        "deep": "0o40710",
        "deep/er/file": "0o100640",
        "empty": "0o40770",
    }


def test_special_bits_are_dropped_and_the_owner_may_always_write(tmp_path: Path) -> None:
    modes = {b"set": 0o7755, b"none": 0o000, b"read": 0o444}
    as_tar = [tar_entry(name, mode=mode) for name, mode in modes.items()]
    as_tar.append(tar_entry(b"folder/", mode=0o7000, kind=b"5"))
    as_zip = [ZipEntry(name, mode=REGULAR | mode) for name, mode in modes.items()]
    as_zip += [ZipEntry(b"without", mode=0), ZipEntry(b"folder/", mode=FOLDER | 0o7100)]

    unpacked(tar(*as_tar), tmp_path / "tar")
    unpacked(zipped(*as_zip, ZipEntry(b"bare/", mode=0)), tmp_path / "zip")

    found = {path: oct(mode & 0o7777) for path, (mode, _) in everything(tmp_path).items()}
    assert found | {"tar": "", "zip": ""} == {
        "tar": "",
        "tar/set": "0o755",
        "tar/none": "0o600",
        "tar/read": "0o644",
        "tar/folder": "0o700",
        "zip": "",
        "zip/set": "0o755",
        "zip/none": "0o600",
        "zip/without": "0o644",  # a system without modes
        "zip/read": "0o644",
        "zip/folder": "0o700",
        "zip/bare": "0o755",
    }


def test_names_in_any_of_the_codes_of_a_zip_are_read(tmp_path: Path) -> None:
    entries = [
        ZipEntry("ä".encode(), flags=1 << 11),
        ZipEntry("ö".encode()),  # Info-ZIP on Linux
        ZipEntry("ü".encode("cp437")),
    ]

    unpacked(zipped(*entries), tmp_path)

    assert set(everything(tmp_path)) == {"ä", "ö", "ü"}


def test_a_zip_may_have_more_entries_than_its_end_record_can_count(tmp_path: Path) -> None:
    """macOS's archives let the number run over."""
    count = 65_540
    folders = ZipEntry(b"./", mode=FOLDER | 0o755)
    record, at = folders.local_record(), len(folders.local_record())
    local = record * count + ZipEntry(b"a", HELLO).local_record()
    central = [folders.central_record(at * number) for number in range(count)]
    directory = b"".join(central) + ZipEntry(b"a", HELLO).central_record(at * count)
    end = end_record((count + 1) % 65_536, len(directory), len(local))

    unpacked(local + directory + end, tmp_path)

    assert (tmp_path / "a").read_bytes() == HELLO


def test_an_entry_may_end_wherever_a_chunk_does(tmp_path: Path) -> None:
    """Its last input may be taken before its last output has come."""
    sizes = [2**16 + beyond for beyond in range(-260, 261, 4)]

    unpacked(zipped(*(ZipEntry(b"%d" % size, bytes(size)) for size in sizes)), tmp_path)

    assert {int(path.name): path.stat().st_size for path in tmp_path.iterdir()} == {
        size: size for size in sizes
    }


def test_archives_in_an_archive_stay_files(tmp_path: Path) -> None:
    inner = zipped(ZipEntry(b"a", HELLO))

    unpacked(tar(tar_entry(b"inner.zip", inner)), tmp_path)

    assert (tmp_path / "inner.zip").read_bytes() == inner


def written_by_tarfile(kind: int, mode: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode, format=kind) as archive:  # type: ignore[call-overload]
        for name in ("short", "l" * 90 + "/" + "o" * 90, "ünï/" + "ö" * 120):
            record = tarfile.TarInfo(name)
            record.size = len(HELLO)
            archive.addfile(record, io.BytesIO(HELLO))
    return file.getvalue()


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_tarfile_writes_is_read(kind: int, mode: str, tmp_path: Path) -> None:
    unpacked(written_by_tarfile(kind, mode), tmp_path)

    files = [content for _, content in everything(tmp_path).values() if content]
    assert files == [HELLO] * 3


class Unseekable(io.BytesIO):
    """As a pipe is."""

    def seekable(self) -> bool:
        return False

    def seek(self, *to: int) -> int:
        raise OSError(to)


@pytest.mark.parametrize("kind", [io.BytesIO, Unseekable])
@pytest.mark.parametrize("large", [False, True])
def test_what_zipfile_writes_is_read(
    kind: Callable[[], io.BytesIO], large: bool, tmp_path: Path
) -> None:
    file = kind()
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("ünï/a", "w", force_zip64=large) as entry,
    ):
        entry.write(HELLO)

    unpacked(file.getvalue(), tmp_path)

    assert (tmp_path / "ünï" / "a").read_bytes() == HELLO
