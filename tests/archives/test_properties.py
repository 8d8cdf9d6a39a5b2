"""Whatever tree is packed comes out again, and whatever is done to an archive stays inside."""

import contextlib
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from dispatcher.archives import ArchiveError, Format, Limits
from tests.archives.harness import everything, packed, unpacked
from tests.archives.raw import (
    FOLDER,
    REGULAR,
    ZipEntry,
    gz,
    long_name,
    pax,
    tar,
    tar_entry,
    zipped,
)

ARCHIVES = st.sampled_from([Format.ZIP, Format.TAR, Format.TAR_GZ])
letters = st.characters(blacklist_categories=["Cc", "Cs"], blacklist_characters='/\\:"')
parts = st.text(letters, min_size=1, max_size=60).filter(
    lambda part: part not in (".", "..") and len(part.encode()) <= 255
)
paths = st.lists(parts, min_size=1, max_size=4).map(tuple)
files = st.tuples(st.binary(max_size=2000), st.integers(0, 0o777).map(lambda m: m | 0o600))
folders = st.integers(0, 0o777).map(lambda mode: mode | 0o700)
Tree = dict[tuple[str, ...], tuple[bytes, int] | int]


def same(path: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(unicodedata.normalize("NFKD", part.casefold()).casefold() for part in path)


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """Paths that no file system takes for another's, with at least one file."""
    tree: Tree = {("file",): draw(files)}
    taken: dict[tuple[str, ...], tuple[str, ...]] = {same(("file",)): ("file",)}
    for path, what in draw(st.lists(st.tuples(paths, files | folders), max_size=8)):
        above = [path[:depth] for depth in range(1, len(path))]
        if same(path) in taken or any(
            taken.get(same(folder), folder) != folder or isinstance(tree.get(folder), tuple)
            for folder in above
        ):
            continue
        taken |= {same(one): one for one in (*above, path)}
        tree |= {folder: 0o755 for folder in above if folder not in tree}
        tree[path] = what
    return tree


def planted(tree: Tree, folder: Path) -> None:
    for path, what in sorted(tree.items()):
        place = folder.joinpath(*path)
        if isinstance(what, int):
            place.mkdir(parents=True, exist_ok=True)
            place.chmod(what)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(what[0])
            place.chmod(what[1])


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A new one for each example."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@settings(deadline=None, max_examples=60)
@given(trees(), ARCHIVES)
def test_a_tree_that_is_packed_is_unpacked_as_it_was(tree: Tree, kind: Format) -> None:
    with folder() as here:
        (here / "tree").mkdir()
        planted(tree, here / "tree")

        archive = packed(here / "tree", kind)
        unpacked(archive, here / "out")

        assert everything(here / "out") == everything(here / "tree")
        assert packed(here / "out", kind, ["**"])


GOOD: list[bytes] = [
    zipped(
        ZipEntry(b"d/", mode=FOLDER | 0o755),
        ZipEntry(b"d/a", b"hello " * 50, mode=REGULAR | 0o755),
        ZipEntry("é".encode(), b"stored", flags=1 << 11, method=0),
    ),
    zipped(ZipEntry(b"a", b"x" * 99, flags=8, local={"flags": 8, "crc": 0}, behind=bytes(16))),
    tar(
        tar_entry(b"d/", kind=b"5"),
        pax({b"path": "d/é".encode(), b"size": b"300"}),
        tar_entry(b"cut", b"hello " * 50),
        long_name(b"l" * 120),
        tar_entry(b"cut", b"x" * 512, magic=b"ustar  \0"),
        tar_entry(b"e/f", b"", prefix=b"p", mode=0o4755),
    ),
]
GOOD.append(gz(GOOD[-1]))
cuts = st.tuples(st.integers(0, 4000), st.integers(0, 4000))
flips = st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), max_size=4)
HEADERS = st.binary(max_size=12)


def changed(archive: bytes, changes: list[tuple[int, int]], cut: tuple[int, int] | None) -> bytes:
    content = bytearray(archive)
    for at, mask in changes:
        content[at % len(content)] ^= mask
    if cut is not None:
        start, length = cut[0] % len(content), cut[1]
        del content[start : start + length]
    return bytes(content)


def with_checksums(archive: bytes) -> bytes:
    """So that a changed tar header is looked at beyond its checksum."""
    blocks = [archive[at : at + 512] for at in range(0, len(archive), 512)]
    for at, block in enumerate(blocks):
        if block[257:262] == b"ustar" and len(block) == 512:
            total = sum(block) - sum(block[148:156]) + 8 * 32
            blocks[at] = block[:148] + b"%06o\0 " % total + block[156:]
    return b"".join(blocks)


def stays_inside(archive: bytes) -> None:
    with folder() as here:
        (here / "outside").write_text("mine")

        with contextlib.suppress(ArchiveError):
            unpacked(archive, here / "in" / "folder", Limits(max_bytes=10_000, max_entries=50))

        found = everything(here)
        inside = {path for path in found if path.startswith("in/folder/")}
        assert found.keys() - inside - {"in", "in/folder"} == {"outside"}
        assert (here / "outside").read_text() == "mine"
        assert sum(len(found[path][1]) for path in inside) <= 10_000
        assert all(found[path][0] & 0o7000 == 0 for path in inside)


@settings(deadline=None, max_examples=400)
@given(st.sampled_from(GOOD), flips, st.none() | cuts, st.sampled_from([bytes, with_checksums]))
def test_a_changed_archive_is_taken_or_refused_and_stays_inside(
    archive: bytes,
    changes: list[tuple[int, int]],
    cut: tuple[int, int] | None,
    mend: Callable[[bytes], bytes],
) -> None:
    stays_inside(mend(changed(archive, changes, cut)))


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=600), st.sampled_from([b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b\x08"]))
@example(b"", b"PK\x05\x06")
def test_whatever_follows_an_archive_s_sign_is_refused(content: bytes, sign: bytes) -> None:
    stays_inside(sign + content)


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from([0, 100, 124, 148, 156, 157, 257, 345, 482]), HEADERS, st.binary(max_size=1500)
)
def test_whatever_stands_in_a_tar_header_stays_inside(
    at: int, field: bytes, records: bytes
) -> None:
    header = tar_entry(b"a", b"x")
    altered = header[:at] + field + header[at + len(field) :]

    stays_inside(with_checksums(tar(altered)))
    stays_inside(with_checksums(tar(pax(records), altered)))


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.text(max_size=20), st.booleans()), min_size=1, max_size=6))
def test_whatever_names_archives_hold_they_stay_inside(names: list[tuple[str, bool]]) -> None:
    raw = [(name.encode("utf-8", "surrogatepass"), is_folder) for name, is_folder in names]

    stays_inside(zipped(*(ZipEntry(name + b"/" * is_folder) for name, is_folder in raw)))
    stays_inside(
        tar(
            *(
                pax({b"path": name or b"x"}) + tar_entry(b"s", kind=b"5" if is_folder else b"0")
                for name, is_folder in raw
            )
        )
    )
