"""What a look at one part of the installation came to: sentences of three kinds."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Report:
    """A fault stops a worker, or only an operator can mend it; a warning costs safety, or may pass.

    `wrong_settings` says whether a setting is among the faults.
    """

    found: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    wrong_settings: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        if self.wrong_settings:
            return 2
        return 1 if self.faults else 0


def joined(reports: Iterable[Report]) -> Report:
    """All of them as one, that says nothing wrong twice."""
    parts = list(reports)
    return Report(
        tuple(line for part in parts for line in part.found),
        tuple(dict.fromkeys(line for part in parts for line in part.faults)),
        any(part.wrong_settings for part in parts),
        tuple(dict.fromkeys(line for part in parts for line in part.warnings)),
    )
