"""`python -m tests.faults [--long] [--seed N] [--row NAME ...]`: the fault matrix, as a table.

Ends with status 1 if an invariant did not hold; then the logs of that run stay where it says."""

import argparse
import random
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.faults.judge import Verdict, table
from tests.faults.play import play
from tests.faults.rows import BY_NAME, ROWS, Row


def chosen(names: list[str] | None, *, long: bool) -> list[Row]:
    rows = [BY_NAME[name] for name in names] if names else ROWS
    return [row for row in rows if long or names or not row.long_only]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--long", action="store_true", help="every row as often as it says")
    parser.add_argument("--at-once", type=int, default=1, help="so many fleets side by side")
    parser.add_argument("--times", type=int, help="every row so often")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--row", action="append", choices=list(BY_NAME), help="only this row")
    given = parser.parse_args()
    with ThreadPoolExecutor(given.at_once) as pool:
        runs = [
            pool.submit(run, row, given.seed + number)
            for row in chosen(given.row, long=given.long)
            for number in range(given.times or (row.times if given.long else 1))
        ]
        verdicts = [one.result() for one in runs]
    sys.stdout.write(f"\n{table(verdicts)}")
    sys.exit(any(verdict.violations for verdict in verdicts))


def run(row: Row, seed: int) -> Verdict:
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    began = time.monotonic()
    verdict, stage = play(row, seed, folder)
    took = time.monotonic() - began
    recovery = "".join(f" recovered in {seconds:.1f} s" for seconds in stage.recovery)
    lines = [
        f"{row.name}, seed {seed}, {stage.pool}: {sum(verdict.faults.values())} faults, "
        f"{len(verdict.violations)} violations, {took:.0f} s{recovery}"
    ]
    lines += [f"  {one.invariant} {one.job_id} {one.text}" for one in verdict.violations[:9]]
    if verdict.violations:
        lines.append(f"  logs: {folder}")
    else:
        shutil.rmtree(folder)
    sys.stdout.write("\n".join([*lines, ""]))
    sys.stdout.flush()
    return verdict


if __name__ == "__main__":
    main()
