"""How much an archive has given so far, against its limits; whoever reads or writes tells it."""

from collections.abc import Callable
from typing import Final

from dispatcher.archives.model import ArchiveError, Limits

RATIO_FROM: Final = 32 * 2**20  # bytes; below, zeros and logs shrink a thousandfold honestly
ASIDE: Final = 4096  # bytes that may come with each entry beside its content


class Meter:
    """`size`: of the archive. `over`, asked at every step: whether to end early."""

    def __init__(self, limits: Limits, size: int, over: Callable[[], bool]) -> None:
        self.limits = limits
        self._size = size
        self._over = over
        self._entries = self._unpacked = self._written = 0

    def ask(self) -> None:
        if self._over():
            raise ArchiveError("The archive is not unpacked: its time was over before its end.")

    def entry(self) -> None:
        self.ask()
        self._entries += 1
        if self._entries > self.limits.max_entries:
            raise ArchiveError(f"The archive holds more than {self.limits.max_entries} entries.")

    def unpacked(self, count: int) -> None:
        """Bytes that came out of compression, wherever they go."""
        self.ask()
        self._unpacked += count
        if self._unpacked > max(RATIO_FROM, self.limits.max_ratio * self._size):
            raise ArchiveError(
                f"The archive unpacks to more than {self.limits.max_ratio:g} times its size."
            )

    def announced(self, count: int) -> None:
        """An entry's size, as its header has it: what is too large need not be begun."""
        if self._written + count > self.limits.max_bytes:
            raise ArchiveError(f"The archive holds more than {self.limits.max_bytes} bytes.")

    def writes(self, count: int) -> None:
        """Before they are written."""
        self.announced(count)
        self._written += count
