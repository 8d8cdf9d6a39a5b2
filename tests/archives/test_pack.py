"""What is packed of a folder, in which order, and what is refused with its path."""

import io
import os
import socket
import stat
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from dispatcher.archives import ArchiveError, Format, pack
from tests.archives.harness import everything, packed, unpacked

FORMATS = pytest.mark.parametrize("kind", [Format.ZIP, Format.TAR, Format.TAR_GZ])


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """`dist` with two files deep in it, an empty folder, a file above, and a hidden one."""
    folder = tmp_path / "tree"
    (folder / "dist" / "js").mkdir(parents=True)
    (folder / "dist" / "none").mkdir()
    (folder / "dist" / "js" / "a.js").write_text("js")
    (folder / "dist" / "b.txt").write_text("b")
    (folder / "a.txt").write_text("a")
    (folder / ".hidden").write_text("h")
    (folder / "dist" / "js").chmod(0o710)
    (folder / "a.txt").chmod(0o755)
    return folder


def names(archive: bytes) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        return file.namelist()


@FORMATS
def test_a_folder_comes_out_as_it_was_packed(kind: Format, tree: Path, tmp_path: Path) -> None:
    found = unpacked(packed(tree, kind), tmp_path / "out")

    assert found is kind
    assert everything(tmp_path / "out") == everything(tree)


def test_other_programs_read_what_is_packed(tree: Path, tmp_path: Path) -> None:
    for kind in (Format.TAR, Format.TAR_GZ):
        with tarfile.open(fileobj=io.BytesIO(packed(tree, kind))) as archive:
            found = {one.name: (one.mode, one.uid, one.gid, one.uname) for one in archive}
        assert found["a.txt"] == (0o755, 0, 0, "")
        assert found["dist/js"] == (0o710, 0, 0, "")
    with zipfile.ZipFile(io.BytesIO(packed(tree, Format.ZIP))) as archive:
        assert archive.testzip() is None
        assert archive.getinfo("dist/js/").external_attr == (stat.S_IFDIR | 0o710) << 16 | 0x10
        assert archive.getinfo("a.txt").external_attr == (stat.S_IFREG | 0o755) << 16
        assert archive.getinfo("a.txt").compress_type == zipfile.ZIP_DEFLATED


@FORMATS
def test_the_same_files_make_the_same_bytes(kind: Format, tmp_path: Path) -> None:
    orders = (["b", "a", "c/z", "c/y"], ["c/y", "a", "c/z", "b"])
    archives = set()
    for number, order in enumerate(orders):
        folder = tmp_path / str(number)
        for name in order:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(name)
            os.utime(folder / name, (1e9, 1e9))
        os.utime(folder / "c", (1e9, 1e9))
        archives.add(packed(folder, kind))

    assert len(archives) == 1
    if kind is Format.TAR_GZ:
        assert archives.pop()[4:8] == bytes(4)  # the time of its making


def test_files_are_packed_in_the_order_of_their_paths(tmp_path: Path) -> None:
    expected = [f"{letter}{number}.txt" for letter in "abcdefgh" for number in range(9)]
    for name in reversed(expected):
        (tmp_path / name).touch()

    assert names(packed(tmp_path, Format.ZIP)) == expected


def test_paths_are_in_order_and_folders_before_what_is_in_them(tree: Path) -> None:
    found = names(packed(tree, Format.ZIP))

    assert found == [
        ".hidden",
        "a.txt",
        "dist/",
        "dist/b.txt",
        "dist/js/",
        "dist/js/a.js",
        "dist/none/",
    ]


def test_special_bits_are_not_packed(tree: Path) -> None:
    (tree / "a.txt").chmod(0o6755)
    (tree / "dist").chmod(0o3755)

    with zipfile.ZipFile(io.BytesIO(packed(tree, Format.ZIP))) as archive:
        zipped = [archive.getinfo(name).external_attr >> 16 for name in ("a.txt", "dist/")]
    with tarfile.open(fileobj=io.BytesIO(packed(tree, Format.TAR))) as other:
        tarred = [other.getmember(name).mode for name in ("a.txt", "dist")]

    assert [mode & 0o7777 for mode in zipped] == tarred == [0o755, 0o755]


@FORMATS
@pytest.mark.parametrize("moment", [0, -1e9, 1e9, 1e10])
def test_times_before_1980_or_too_late_are_drawn_in(
    kind: Format, moment: float, tree: Path, tmp_path: Path
) -> None:
    os.utime(tree / "a.txt", (moment, moment))

    archive = packed(tree, kind)

    assert unpacked(archive, tmp_path / "out") is kind
    if kind is Format.ZIP:
        with zipfile.ZipFile(io.BytesIO(archive)) as file:
            year = file.getinfo("a.txt").date_time[0]
        assert year == min(max(time.gmtime(moment).tm_year, 1980), 2107)


@pytest.mark.parametrize(
    ("include", "expected"),
    [
        (["a.txt"], ["a.txt"]),
        (["./a.txt"], ["a.txt"]),
        (["*.txt"], ["a.txt"]),
        (["?.txt", "a.*"], ["a.txt"]),
        (["[ab].txt"], ["a.txt"]),
        (["*"], [".hidden", "a.txt"]),
        (["dist/*"], ["dist/", "dist/b.txt", "dist/none/"]),
        (["a.txt", "dist/none"], ["a.txt", "dist/", "dist/none/"]),
        (
            ["dist/**"],
            ["dist/", "dist/b.txt", "dist/js/", "dist/js/a.js", "dist/none/"],
        ),
        (["dist/**/*.js"], ["dist/", "dist/js/", "dist/js/a.js"]),
        (["**/*.txt"], ["a.txt", "dist/", "dist/b.txt"]),
        (["**/js/**"], ["dist/", "dist/js/", "dist/js/a.js"]),
        (["a.txt", "dist/b.txt"], ["a.txt", "dist/", "dist/b.txt"]),
        (["dist/b.txt", "a.txt"], ["a.txt", "dist/", "dist/b.txt"]),
    ],
)
def test_patterns_name_what_is_packed(include: list[str], expected: list[str], tree: Path) -> None:
    assert names(packed(tree, Format.ZIP, include)) == expected


@pytest.mark.parametrize(
    "pattern", ["b.txt", "dist", "dist/", "/a.txt", "../a.txt", "", "a.txt/**", "A.TXT", "dist\\*"]
)
def test_a_pattern_that_matches_nothing_is_named(pattern: str, tree: Path) -> None:
    with pytest.raises(ArchiveError) as caught:
        packed(tree, Format.ZIP, ["a.txt", pattern])

    assert f'The pattern "{pattern}" matches no file' in str(caught.value)


def test_a_pattern_of_an_empty_folder_alone_packs_no_file(tree: Path) -> None:
    with pytest.raises(ArchiveError, match="holds no file"):
        packed(tree, Format.ZIP, ["dist/none"])


@FORMATS
def test_a_link_to_a_file_inside_is_packed_as_that_file(
    kind: Format, tree: Path, tmp_path: Path
) -> None:
    (tree / "link").symlink_to("dist/b.txt")
    (tree / "dist" / "absolute").symlink_to((tree / "a.txt").resolve())
    (tree / "dist" / "js" / "again").symlink_to("../absolute")

    unpacked(packed(tree, kind), tmp_path / "out")

    found = everything(tmp_path / "out")
    assert found["link"] == everything(tree)["dist/b.txt"]
    assert found["dist/absolute"] == found["dist/js/again"] == everything(tree)["a.txt"]


def test_a_folder_may_be_named_by_a_link(tree: Path, tmp_path: Path) -> None:
    (tree / "link").symlink_to("a.txt")
    (tmp_path / "alias").symlink_to(tree)

    assert "link" in names(packed(tmp_path / "alias", Format.ZIP))


def link_to(target: str) -> Callable[[Path], None]:
    return lambda place: place.symlink_to(target)


def loop(place: Path) -> None:
    place.symlink_to(place)


def listen(place: Path) -> None:
    here = Path.cwd()
    os.chdir(place.parent)  # a socket's path must be short
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(place.name)
    finally:
        os.chdir(here)


@FORMATS
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (link_to("/etc/passwd"), "a link out of the folder"),
        (link_to("../../../outside"), "a link out of the folder"),
        (link_to("../../../tree-of-another/secret"), "a link out of the folder"),
        (link_to("none"), "a link that leads nowhere"),
        (link_to("b.txt/none"), "a link that leads nowhere"),
        (link_to("."), "a link to a folder"),
        (link_to(".."), "a link to a folder"),
        (link_to("../.."), "a link to a folder"),
        (loop, "a link that leads nowhere"),
        (os.mkfifo, "neither a file nor a folder"),
        (listen, "neither a file nor a folder"),
    ],
)
def test_what_cannot_be_packed_is_named(
    kind: Format, make: Callable[[Path], None], says: str, tree: Path
) -> None:
    (tree.parent / "outside").write_text("secret")
    (tree.parent / "tree-of-another").mkdir()
    (tree.parent / "tree-of-another" / "secret").write_text("secret")
    make(tree / "dist" / "js" / "odd")

    with pytest.raises(ArchiveError) as caught:
        packed(tree, kind)

    assert str(caught.value) == f'"dist/js/odd" cannot be packed: it is {says}.'
    assert packed(tree, kind, ["a.txt"])  # what is not chosen does not count


def test_a_link_to_a_fifo_is_refused(tree: Path) -> None:
    os.mkfifo(tree / "fifo")
    (tree / "link").symlink_to("fifo")

    with pytest.raises(ArchiveError, match='"link" cannot be packed'):
        packed(tree, Format.ZIP, ["link"])


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (b"a\xff", "is not UTF-8"),
        (b"a\nb", "control character"),
        (b"a\\b", "backslash"),
        (b"C:a", "drive letter"),
        (b"A.TXT", "case or Unicode form"),
    ],
)
def test_a_name_that_could_not_be_unpacked_is_not_packed(
    name: bytes, says: str, tree: Path
) -> None:
    Path(os.fsdecode(os.fsencode(tree) + b"/" + name)).touch()

    with pytest.raises(ArchiveError) as caught:
        packed(tree, Format.ZIP)

    assert says in str(caught.value)


def test_a_folder_that_is_empty_or_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty" / "emptier").mkdir(parents=True)
    (tmp_path / "file").touch()

    for name in ("none", "file"):
        with pytest.raises(ArchiveError, match=f'"{name}" that should be packed is not there'):
            packed(tmp_path / name, Format.ZIP)
    for name in ("empty", "empty/emptier"):
        with pytest.raises(ArchiveError, match="holds no file"):
            packed(tmp_path / name, Format.ZIP)


def test_a_folder_cannot_be_packed_as_plain(tree: Path) -> None:
    with pytest.raises(ValueError, match="use zip"):
        packed(tree, Format.PLAIN)


class Growing(io.BytesIO):
    """A disk on which the packed file is written to, as soon as the archive is."""

    def __init__(self, path: Path, content: str) -> None:
        super().__init__()
        self._path = path
        self._content = content

    def write(self, content: object, /) -> int:
        self._path.write_text(self._content)
        return super().write(content)  # type: ignore[arg-type]


@FORMATS
@pytest.mark.parametrize("content", ["", "long" * 100_000])
def test_a_file_that_changes_while_it_is_packed_is_named(
    kind: Format, content: str, tree: Path
) -> None:
    with pytest.raises(ArchiveError, match="changed while it was packed"):
        pack(tree, Growing(tree / "dist" / "b.txt", content), kind)


LARGE = """
import sys
from pathlib import Path
from dispatcher.archives import Format, Limits, extract, pack
from tests.archives.bombs import peak
folder, kind = Path(sys.argv[1]), Format(sys.argv[2])
with (folder / "archive").open("w+b") as file:
    pack(folder / "tree", file, kind)
    extract(file, folder / "out", Limits(max_ratio=2000))
print(peak())
"""


@FORMATS
def test_a_large_file_passes_in_little_memory(kind: Format, tmp_path: Path) -> None:
    size = 128 * 2**20
    (tmp_path / "tree").mkdir()
    with (tmp_path / "tree" / "large").open("wb") as file:
        file.truncate(size)

    command = [sys.executable, "-c", LARGE, str(tmp_path), kind]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)

    assert (tmp_path / "out" / "large").stat().st_size == size
    assert int(done.stdout) < size / 2
