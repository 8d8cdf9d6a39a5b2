"""A job's artifacts, from where CodePipeline says they are to what the handler is given.

Knows no S3: a Storage moves the files, and is looked at while it does."""

import threading
from dataclasses import dataclass

from dispatcher.engine.leases import Held
from dispatcher.engine.ports import Clock, Event, Observer

TELL_EVERY = 10.0  # seconds, of one transfer
MIB = 2**20


@dataclass
class _Transfer:
    began: float
    told: float


class Watch:
    """Sees how far the transfers of one job are, and tells the log and whoever looks at the job."""

    def __init__(self, held: Held, observer: Observer, clock: Clock) -> None:
        self._held = held
        self._observer = observer
        self._clock = clock
        self._lock = threading.Lock()
        self._transfers: dict[tuple[str, str], _Transfer] = {}

    def going_on(self) -> bool:
        return not self._held.over()

    def moved(self, direction: str, name: str, done: int, of: int) -> bool:
        now = self._clock.monotonic()
        with self._lock:
            transfer = self._transfers.setdefault((direction, name), _Transfer(now, now))
            due = now - transfer.told >= TELL_EVERY
            if due:
                transfer.told = now
        if due:
            self._held.transfer = f"{direction} of {name}: {done // MIB} of {of // MIB} MiB"
            self._saw(Event.TRANSFERRING, direction, name, bytes=done, of=of)
        return self.going_on()

    def ended(self, direction: str, name: str, size: int | None) -> None:
        now = self._clock.monotonic()
        with self._lock:
            transfer = self._transfers.pop((direction, name), _Transfer(now, now))
        self._held.transfer = ""
        if size is None:  # its failure says so
            return
        seconds = round(now - transfer.began, 3)
        self._saw(Event.TRANSFERRED, direction, name, bytes=size, seconds=seconds)

    def _saw(self, event: Event, direction: str, name: str, **fields: object) -> None:
        self._observer.saw(event, self._held.claim, direction=direction, artifact=name, **fields)
