"""Jobs' folders: gone with the job, or with the next worker if its process was killed."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from dispatcher.folders import HOST, clear_left_behind, job_folder

KILLED = """
import os, signal, sys, tempfile
from dispatcher.folders import job_folder
with job_folder() as folder:
    open(os.path.join(folder, "large"), "w").close()
    print(folder, flush=True)
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_what_a_killed_process_left_is_cleared_and_nothing_else(place: Path) -> None:
    others = [place / "job-elsewhere-1-abc", place / f"job-{HOST}-x-abc", place / "mine"]
    for other in others:
        other.mkdir()
    command = [sys.executable, "-c", KILLED]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())

        clear_left_behind()
        assert (left / "large").exists()

        process.communicate()
    with job_folder() as own:
        clear_left_behind()

        assert sorted(place.iterdir()) == sorted([*others, Path(own)])
