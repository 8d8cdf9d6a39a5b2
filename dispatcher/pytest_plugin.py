"""pytest's fixture `rehearse`, wherever this package is installed: a provider on the emulator.

Loaded by every pytest run there, hence it imports what it needs when a test asks for it.
"""

# ruff: noqa: PLC0415

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from dispatcher.emulator.client import Emulator
    from dispatcher.rehearsal import Rehearsal


@pytest.fixture
def rehearse(codepipeline_emulator: "Emulator") -> "Iterator[Rehearsal]":
    """Runs a handler for a job of the emulator's, with its artifacts in the emulator's S3:
    `rehearse(deploy, {"App": "shop"}, inputs={"Source": {"a.txt": "x"}}, outputs=["Log"])`.

    What continues a job, or is asked for again, follows at once.
    """
    from dispatcher.rehearsal import Rehearsal

    codepipeline_emulator.reset(continuation_delay=0)
    made = Rehearsal(codepipeline_emulator)
    yield made
    made.close()
