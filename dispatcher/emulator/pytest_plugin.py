"""pytest's fixture `codepipeline_emulator`, wherever this package is installed.

Loaded by every pytest run there, hence it imports what it needs when a test asks for it.
"""

# ruff: noqa: PLC0415

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from dispatcher.emulator.client import Emulator


@pytest.fixture(scope="session")
def _codepipeline_emulator_process() -> "Iterator[Emulator]":
    from dispatcher.emulator.process import running

    with running() as emulator:
        yield emulator


@pytest.fixture
def codepipeline_emulator(
    _codepipeline_emulator_process: "Emulator", monkeypatch: pytest.MonkeyPatch
) -> "Emulator":
    """An emulated CodePipeline without jobs, and the AWS SDK's environment pointing at it.

    One process serves all tests of a run and is emptied before each; `reset` gives it options.
    """
    emulator = _codepipeline_emulator_process
    emulator.reset()
    theirs = ("AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_IGNORE_CONFIGURED")
    for name in [name for name in os.environ if name.startswith(theirs)]:
        monkeypatch.delenv(name)
    for name, value in emulator.environment.items():
        monkeypatch.setenv(name, value)
    return emulator
