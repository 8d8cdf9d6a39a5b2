"""Notices that a worker consumes nothing while there is something to consume.

It must not know Celery: it is told of each message, and asks whether there is room and work."""

import threading
import time
from collections.abc import Callable

LOOKS = 10  # in the time that a stall may last


class StallWatch:
    """`stalled` is called once, when at every look for `after` seconds a message waited, a slot was
    free, and none was received. `after` 0: never. `wanting` may raise: then nobody knows. Looks
    with a sleep of the whole process between them say nothing."""

    def __init__(
        self,
        after: float,
        wanting: Callable[[], bool],
        stalled: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._after = after
        self._wanting = wanting
        self._stalled = stalled
        self._clock = clock
        self._since = self._looked = clock()

    def received(self) -> None:
        self._since = self._clock()

    def look(self) -> bool:
        """Whether it stands still; each look that finds all well begins anew."""
        now, before = self._clock(), self._looked
        self._looked = now
        if now - before > 2 * self._after / LOOKS:
            self._since = now
        began = self._since
        try:
            wanting = self._wanting()
        except Exception:  # noqa: BLE001 - whatever asks the broker may raise
            wanting = False
        if not wanting:
            self.received()
        return wanting and began == self._since and self._clock() - began >= self._after

    def start(self) -> None:
        """On a thread of its own: what stands still may be the caller's loop."""
        if self._after:
            threading.Thread(target=self._watch, name="stall", daemon=True).start()

    def _watch(self) -> None:
        while not self.look():
            time.sleep(self._after / LOOKS)
        self._stalled()
