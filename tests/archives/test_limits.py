"""Nothing is written over what stands there, beyond a limit, or when the time is over; and a fault
of the disk is not the archive's."""

import errno
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dispatcher.archives import ArchiveError, Format, Limits, extract
from dispatcher.archives.meter import Meter
from dispatcher.archives.model import Entry, never
from dispatcher.archives.tree import Tree
from tests.archives.harness import everything, unpacked
from tests.archives.raw import FOLDER, ZipEntry, deflated, gz, pax, tar, tar_entry, zipped

HELLO = b"hello " * 100
ARCHIVES = {
    Format.ZIP: zipped(ZipEntry(b"a", HELLO)),
    Format.TAR: tar(tar_entry(b"a", HELLO)),
    Format.TAR_GZ: gz(tar(tar_entry(b"a", HELLO))),
}
FORMATS = pytest.mark.parametrize("kind", ARCHIVES)


def archive(kind: Format, **files: bytes) -> bytes:
    if kind is Format.ZIP:
        return zipped(*(ZipEntry(name.encode(), files[name]) for name in files))
    plain = tar(*(tar_entry(name.encode(), files[name]) for name in files))
    return gz(plain) if kind is Format.TAR_GZ else plain


def stand_as_file(place: Path) -> None:
    place.write_text("author's")


def stand_as_folder(place: Path) -> None:
    place.mkdir()


def stand_as_link_out(place: Path) -> None:
    place.symlink_to(place.parents[1] / "outside", target_is_directory=True)


def stand_as_dangling_link(place: Path) -> None:
    place.symlink_to(place.parents[1] / "outside" / "new")


@pytest.mark.parametrize(
    ("name", "stands"),
    [
        ("a", stand_as_file),
        ("a", stand_as_folder),
        ("a", stand_as_link_out),
        ("a", stand_as_dangling_link),
        ("a/b", stand_as_file),
        ("a/b", stand_as_link_out),
        ("a/b", stand_as_dangling_link),
        ("a/b/c", stand_as_link_out),
        ("a/", stand_as_file),
        ("a/", stand_as_link_out),
        ("a/", stand_as_dangling_link),
    ],
)
def test_nothing_is_written_over_or_through_what_stands_there(
    name: str, stands: Callable[[Path], None], tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "folder").mkdir()
    stands(tmp_path / "folder" / "a")
    before = everything(tmp_path)

    with pytest.raises(ArchiveError, match="stands in its place"):
        unpacked(zipped(ZipEntry(name.encode()), ZipEntry(b"z")), tmp_path / "folder")

    assert everything(tmp_path) == before


def test_the_author_s_folders_are_shared_and_keep_their_modes(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o750)
    (tmp_path / "shared" / "mine").write_text("mine")

    unpacked(zipped(ZipEntry(b"shared/", mode=FOLDER | 0o777), ZipEntry(b"shared/a")), tmp_path)

    assert set(everything(tmp_path)) == {"shared", "shared/mine", "shared/a"}
    assert (tmp_path / "shared").stat().st_mode & 0o777 == 0o750


@FORMATS
def test_an_extraction_whose_time_is_over_ends(kind: Format, tmp_path: Path) -> None:
    asked = iter([False])

    with pytest.raises(ArchiveError, match="time was over"):
        unpacked(ARCHIVES[kind], tmp_path, over=lambda: next(asked, True))


@FORMATS
def test_a_large_file_s_extraction_is_asked_all_the_while(kind: Format, tmp_path: Path) -> None:
    content = os.urandom(2**20)
    asked = 0

    def over() -> bool:
        nonlocal asked
        asked += 1
        return asked > 8

    with pytest.raises(ArchiveError, match="time was over"):
        unpacked(archive(kind, a=content), tmp_path, over=over)

    assert 0 < (tmp_path / "a").stat().st_size < 2**20


def asked_while_unpacking(content: bytes, folder: Path) -> int:
    asked = 0

    def over() -> bool:
        nonlocal asked
        asked += 1
        return False

    unpacked(content, folder, over=over)
    return asked


def test_an_extraction_is_asked_even_where_nothing_comes_out(tmp_path: Path) -> None:
    """Deflate has blocks of nothing, gzip has members of nothing."""
    nothing = b"\0\0\0\xff\xff" * 100_000
    as_zip = zipped(ZipEntry(b"a", b"x", packed=nothing + deflated(b"x")))
    as_gzip = gz(tar(tar_entry(b"a")) + bytes(9000)) + gz(b"") * 20_000

    assert asked_while_unpacking(as_zip, tmp_path / "zip") > len(as_zip) / 2**16
    assert asked_while_unpacking(as_gzip, tmp_path / "gzip") > len(as_gzip) / 2**16


def test_whatever_a_reader_hands_on_no_more_than_the_limit_is_written(tmp_path: Path) -> None:
    meter = Meter(Limits(max_bytes=100), 0, never)
    more = Entry(("a",), folder=False, mode=0o644, contents=iter([bytes(60), bytes(60)]))

    with Tree(tmp_path, meter) as tree, pytest.raises(ArchiveError, match="more than 100 bytes"):
        tree.add(more)

    assert (tmp_path / "a").stat().st_size <= 100


@pytest.mark.parametrize("most", [0, 1, 99_999, 100_000])
@FORMATS
def test_never_more_is_written_than_the_limit(kind: Format, most: int, tmp_path: Path) -> None:
    content = os.urandom(50_000)
    files = {"a": content, "b": content, "c": b"x"}

    with pytest.raises(ArchiveError, match="bytes"):
        unpacked(archive(kind, **files), tmp_path, Limits(max_bytes=most))

    assert sum(len(content) for _, content in everything(tmp_path).values()) <= most


def test_as_much_as_the_limits_allow_is_taken(tmp_path: Path) -> None:
    exact = tar(tar_entry(b"d/a", bytes(1000)), tar_entry(b"d/b", bytes(1000)))

    unpacked(gz(exact), tmp_path, Limits(max_bytes=2000, max_entries=3, max_ratio=1))

    assert len(everything(tmp_path)) == 3


def test_a_tar_of_much_that_is_no_file_is_refused(tmp_path: Path) -> None:
    headers = pax({b"comment": bytes(1_000_000)}, b"g") * 4

    with pytest.raises(ArchiveError, match="belongs to no file"):
        unpacked(tar(headers, tar_entry(b"a")), tmp_path, Limits(max_bytes=0, max_entries=500))


@pytest.mark.parametrize("kind", [Format.ZIP, Format.TAR_GZ])
def test_the_ratio_counts_only_for_much(kind: Format, tmp_path: Path) -> None:
    some, much = (archive(kind, a=bytes(size * 2**20)) for size in (31, 33))

    unpacked(some, tmp_path / "some")
    unpacked(much, tmp_path / "allowed", Limits(max_ratio=1100))

    with pytest.raises(ArchiveError, match="200 times its size"):
        unpacked(much, tmp_path / "much")


WITHIN = """
import io, resource, sys
from pathlib import Path
from dispatcher.archives import extract
content = sys.stdin.buffer.read()
resource.setrlimit(getattr(resource, sys.argv[2]), (int(sys.argv[3]),) * 2)
try:
    extract(io.BytesIO(content), Path(sys.argv[1]))
except OSError as error:
    print(error.errno)
"""


@FORMATS
@pytest.mark.parametrize(
    ("limit", "most", "expected"),
    [("RLIMIT_FSIZE", 100, errno.EFBIG), ("RLIMIT_NOFILE", 5, errno.EMFILE)],
)
def test_a_machine_that_gives_no_more_is_not_the_archive_s_fault(
    kind: Format, limit: str, most: int, expected: int, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", WITHIN, str(tmp_path), limit, str(most)]

    done = subprocess.run(command, input=ARCHIVES[kind], stdout=subprocess.PIPE, check=True)

    assert int(done.stdout) == expected


@FORMATS
def test_a_folder_that_cannot_be_made_is_not_the_archive_s_fault(
    kind: Format, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(NotADirectoryError):
        unpacked(ARCHIVES[kind], tmp_path / "file" / "folder")


class Unreadable(io.BytesIO):
    """A disk whose later blocks cannot be read."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell():
            raise OSError(5, "Input/output error")
        return super().read(size)


@FORMATS
def test_a_file_that_cannot_be_read_is_not_the_archive_s_fault(
    kind: Format, tmp_path: Path
) -> None:
    file = Unreadable(ARCHIVES[kind] + bytes(100_000))

    with pytest.raises(OSError, match="Input/output"):
        extract(file, tmp_path)


def test_an_error_is_one_line_of_a_sane_length() -> None:
    error = ArchiveError("a\nb\x1b\u202e\ud800" * 1000)

    assert str(error).isprintable()
    assert len(str(error)) <= 500


def test_open_files_are_closed_again(tmp_path: Path) -> None:
    nested = zipped(ZipEntry(b"a/b/c", HELLO), ZipEntry(b"a/d", HELLO))
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - its entries come and go

    unpacked(nested, tmp_path)
    with pytest.raises(ArchiveError):
        unpacked(nested, tmp_path)

    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
