"""One run of one row: from its seed to the judge's verdict."""

import tempfile
from pathlib import Path

from tests.faults.judge import Verdict, Violation
from tests.faults.rows import Row
from tests.faults.stage import Stage, staged


def play(row: Row, seed: int, keep: Path | None = None) -> tuple[Verdict, Stage]:
    """`keep`: where to leave the logs. What a row asserts in vain is a violation."""
    folder = Path(tempfile.mkdtemp(prefix="faults-")) if keep is None else keep
    pool = row.pools[seed % len(row.pools)]
    with staged(
        folder,
        seed,
        pool=pool,
        slots=row.slots,
        clocks=row.clocks,
        emulator=row.emulator,
        **row.settings,
    ) as stage:
        broken: list[Violation] = []
        try:
            row.run(stage)
        except AssertionError as error:
            broken = [Violation("row", "", str(error).partition("\n")[0])]
        found = broken + stage.violations()
        return Verdict(row.name, seed, stage.faults(), found), stage
