"""Every hostile archive is refused in a sentence, and nothing outside its folder is touched."""

import stat
from collections import Counter
from pathlib import Path

import pytest

from dispatcher.archives import ArchiveError, Format, extract, format_of
from tests.archives.corpus import Hostile, hostile
from tests.archives.harness import everything

CORPUS = list(hostile())


def test_the_corpus_is_large_for_each_format() -> None:
    counts = Counter(one.format for one in CORPUS)

    assert min(counts[kind] for kind in Format if kind is not Format.PLAIN) > 60
    assert len({one.name for one in CORPUS}) == len(CORPUS)


@pytest.mark.parametrize("one", CORPUS, ids=lambda one: one.name)
def test_a_hostile_archive_is_refused(one: Hostile, tmp_path: Path) -> None:
    archive, folder = tmp_path / "archive", tmp_path / "folder" / "inside"
    archive.write_bytes(one.content)
    (tmp_path / "passwd").write_text("root")
    before = everything(tmp_path)

    with archive.open("rb") as file, pytest.raises(ArchiveError) as caught:
        extract(file, folder, one.limits)

    said = str(caught.value)
    assert one.says in said
    assert said.isprintable()
    assert said.endswith(".")
    after = everything(tmp_path)
    written = {path for path in after if path.startswith("folder/inside/")}
    own = written | {"folder", "folder/inside"}
    assert {path: state for path, state in after.items() if path not in own} == before
    assert one.late or not folder.exists()
    assert all(stat.S_IFMT(after[path][0]) in (stat.S_IFREG, stat.S_IFDIR) for path in written)


@pytest.mark.parametrize("one", CORPUS, ids=lambda one: one.name)
def test_a_hostile_archive_is_known_for_what_it_is(one: Hostile, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.write_bytes(one.content)

    with archive.open("rb") as file:
        try:
            found = format_of(file)
        except ArchiveError:
            found = Format.TAR_GZ if one.format is Format.TAR_GZ else Format.PLAIN

    assert found is one.format
