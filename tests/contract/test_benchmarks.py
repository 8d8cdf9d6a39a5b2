"""Benchmarks run; what they measure is for people to read."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "arguments",
    [
        ["tests.benchmarks.emulator", "--calls", "40"],
        ["tests.benchmarks.artifacts", "--mib", "1"],
    ],
)
def test_a_benchmark_ends_with_its_ratio(arguments: list[str]) -> None:
    run = subprocess.run(
        [sys.executable, "-m", *arguments], capture_output=True, text=True, check=False, cwd=ROOT
    )

    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1].startswith("ratio: ")
