"""A token bucket: so many calls a second are answered, and a second's worth of them at once."""

from collections.abc import Callable


class Throttle:
    """`rate`: calls a second, 0 for all. `clock`: epoch seconds."""

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._most = max(rate, 1)  # of a rate below 1 there must be a whole call to take some day
        self._clock = clock
        self._left, self._at = self._most, clock()

    def takes(self) -> bool:
        """Whether this call is still within the rate."""
        if not self._rate:
            return True
        now = self._clock()
        self._left = min(self._most, self._left + max(now - self._at, 0) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
