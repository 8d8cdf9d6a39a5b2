"""No archive takes more memory than a worker may have, nor longer than a moment to be refused."""

import json
import subprocess
import sys
from typing import Any, Final

import pytest

from tests.archives.bombs import BOMBS
from tests.archives.corpus import hostile

MEMORY: Final = 256 * 2**20
MOMENT: Final = 15  # seconds; most take a thousandth of it, but the machine may be busy


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """By the names of the bombs, and "peak", from one process that took them and the corpus."""
    folder = tmp_path_factory.mktemp("bombs")
    for name, (make, _) in BOMBS.items():
        (folder / name).write_bytes(make())
    for number, one in enumerate(hostile()):
        (folder / f"of the corpus, {number}").write_bytes(one.content)

    command = [sys.executable, "-m", "tests.archives.bombs", str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)

    for path in folder.iterdir():
        path.unlink()
    answers: dict[str, Any] = {}
    for one in map(json.loads, done.stdout.splitlines()):
        answers |= {one["name"]: one} if "name" in one else one
    return answers


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_at_once(name: str, answers: dict[str, Any]) -> None:
    answer = answers[name]

    assert BOMBS[name][1] in answer["said"]
    assert bool(BOMBS[name][1]) == bool(answer["said"])  # an archive in an archive is a file
    assert answer["seconds"] < MOMENT


def test_no_archive_takes_more_memory_than_a_worker_has(answers: dict[str, Any]) -> None:
    assert answers["peak"] < MEMORY
