"""The short set: every row of the matrix once, at the points and with the load of one seed.

The seed is another in each run, and printed; `python -m tests.faults --row NAME --seed N` repeats
one. Several fleets run at a time: they mostly wait."""

import os
import random
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults.judge import Verdict
from tests.faults.play import play
from tests.faults.rows import ROWS, Row

SEED = int(os.environ.get("FAULTS_SEED") or random.SystemRandom().randrange(10**6))
AT_ONCE = 3
MATRIX = "test_nothing_is_lost_and_nothing_runs_twice"
SHORT = [row for row in ROWS if not row.long_only]


@pytest.fixture(scope="module")
def verdicts(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Verdict]]]:
    """All rows that this run selected, on their way from the first test on."""
    wanted = {
        item.callspec.params["row"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.originalname == MATRIX
    }
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {
            row.name: pool.submit(run, row, SEED + number, tmp_path_factory.mktemp("row"))
            for number, row in enumerate(SHORT)
            if row in wanted
        }


def run(row: Row, seed: int, folder: Path) -> Verdict:
    return play(row, seed, folder)[0]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("row", SHORT, ids=lambda row: row.name)
def test_nothing_is_lost_and_nothing_runs_twice(
    row: Row, verdicts: dict[str, Future[Verdict]]
) -> None:
    verdict = verdicts[row.name].result()

    again = f"python -m tests.faults --row {row.name!r} --seed {verdict.seed}"
    assert not verdict.violations, again
    assert sum(verdict.faults.values()), f"no fault took effect: {again}"
