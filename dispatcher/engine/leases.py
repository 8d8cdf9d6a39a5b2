"""The jobs that this process holds, and the one thread that keeps their leases and limits.

A job is lost when the ledger says so, or when no heartbeat got through for a whole lease of our
own clock."""

import threading
from collections.abc import Callable
from datetime import timedelta

from dispatcher.engine import lifecycle
from dispatcher.engine.model import Beat, Claim, LedgerDown, Release, Store
from dispatcher.engine.ports import Clock, Event, Lease, Observer
from dispatcher.engine.times import Times
from dispatcher.sdk import ActionSpec, OnCrash

PATIENCE = timedelta(seconds=30)  # with a handler that was told to stop
GLANCE = 0.05  # seconds: how late a waiting handler may learn that it should stop


class Held:
    """One job under its lease. It is also the `Control` of the handler that runs it."""

    def __init__(
        self, claim: Claim, spec: ActionSpec, clock: Clock, stopping: Callable[[], bool]
    ) -> None:
        self.claim = claim
        self.spec = spec
        self.lost = False  # the handler should stop
        self.refused = False  # nothing more of it is for the ledger
        self.revoked: float | None = None  # when the ledger said that the job is another's, or over
        self.fenced = False  # its process was told to end, if that ends it
        self.beaten = clock.monotonic()
        self.deadline: float | None = None  # while the handler runs
        self._clock = clock
        self._process_stops = stopping
        self.transfer = ""  # of an artifact that is on its way, said in place of the author's note
        self._progress: tuple[int | None, str] = (None, "")

    def overdue(self) -> bool:
        return self.deadline is not None and self._clock.monotonic() >= self.deadline

    def hung(self) -> bool:
        """It was told to stop for good, and had time to do so."""
        if self.deadline is None:
            return False
        told = self.deadline if self.revoked is None else min(self.deadline, self.revoked)
        patience = min(self.spec.time_limit, PATIENCE).total_seconds()
        return self._clock.monotonic() >= told + patience

    def stopping(self) -> bool:
        return self.over() or self._process_stops()

    def over(self) -> bool:
        """Whatever it still does, nobody waits for it."""
        return self.lost or self.overdue()

    def wait(self, seconds: float) -> bool:
        until = self._clock.monotonic() + seconds
        while not self.stopping() and (left := until - self._clock.monotonic()) > 0:
            self._clock.sleep(min(left, GLANCE))
        return self.stopping()

    def progress(self, percent: int | None, note: str) -> None:
        self._progress = (percent, note)

    def left(self) -> timedelta:
        """Of the time limit."""
        if self.deadline is None:
            return self.spec.time_limit
        return timedelta(seconds=max(self.deadline - self._clock.monotonic(), 0))

    def beat(self) -> Beat:
        if self.deadline is None:
            return Beat(self.claim, None)
        percent, note = self._progress
        return Beat(self.claim, self.left(), percent, self.transfer or note)


class Leases:
    """`fence` ends the process where that is the way to stop a handler that may not go on."""

    def __init__(
        self,
        ledger: Lease,
        observer: Observer,
        clock: Clock,
        times: Times,
        stopping: Callable[[], bool],
        fence: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._observer = observer
        self._clock = clock
        self._times = times
        self._stopping = stopping
        self._fence = fence
        self._lock = threading.Lock()
        self._held: dict[str, Held] = {}
        self._wake = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._next_beat = 0.0
        self._ended = False

    def hold(self, claim: Claim, spec: ActionSpec) -> Held:
        """Keeps the lease that begin gave, until `drop`."""
        held = Held(claim, spec, self._clock, self._stopping)
        with self._lock:
            if not self._held:
                self._next_beat = self._clock.monotonic() + self._times.beat.total_seconds()
            self._held[claim.owner] = held
            self._ensure_thread()
            self._wake.notify()
        return held

    def start(self, held: Held) -> bool:
        """The first heartbeat: only when it went through may the handler start."""
        held.deadline = self._clock.monotonic() + held.spec.time_limit.total_seconds()
        until = self._clock.monotonic() + self._times.fresh.total_seconds()
        while True:
            sent = self._clock.monotonic()
            try:
                lost = self._ledger.heartbeat([held.beat()])
            except LedgerDown as error:
                self._observer.saw(Event.LEDGER_DOWN, held.claim, error=error)
                if self._clock.monotonic() >= until:
                    return False
                self._clock.sleep(0.5)
                continue
            held.beaten = max(held.beaten, sent)
            return not lost and not held.refused

    def drop(self, held: Held) -> None:
        with self._lock:
            self._held.pop(held.claim.owner, None)

    def holding(self) -> list[Held]:
        with self._lock:
            return list(self._held.values())

    def hung(self) -> int:
        """Slots that handlers long past their time limit hold until they return."""
        return sum(held.hung() for held in self.holding())

    def end(self) -> None:
        """No heartbeat any more: this process is about to be gone."""
        self._ended = True

    def look(self) -> None:
        """One round of the thread: limits, then heartbeats when they are due."""
        for held in self.holding():
            self._check(held)
        if self._clock.monotonic() >= self._next_beat and not self._ended:
            self._beat()

    def _beat(self) -> None:
        held = [one for one in self.holding() if not one.refused]
        sent = self._clock.monotonic()
        if not held:
            return
        try:
            lost = self._ledger.heartbeat([one.beat() for one in held])
        except LedgerDown as error:
            self._observer.saw(Event.LEDGER_DOWN, error=error)
            self._next_beat = sent + min(1.0, self._times.beat.total_seconds())
            return
        self._next_beat = sent + self._times.beat.total_seconds()
        for one in held:
            one.beaten = max(one.beaten, sent)
            if one.claim.owner in lost and not one.overdue():
                one.refused, one.revoked = True, self._clock.monotonic()
                self._lose(one)

    def _check(self, held: Held) -> None:
        silent = self._clock.monotonic() - held.beaten
        if not held.lost and silent >= self._times.fence.total_seconds():
            self._lose(held)
            if held.spec.on_crash is OnCrash.RERUN:
                # Another may run it by now: it must not renew what it no longer has.
                held.refused = True
                self._end(held)
        if held.overdue() and not held.refused:
            self._time_out(held)
        if held.revoked is not None and held.hung():
            self._end(held)

    def _lose(self, held: Held) -> None:
        held.lost = True
        self._observer.saw(Event.LOST, held.claim)

    def _time_out(self, held: Held) -> None:
        """Nothing can end a thread: its verdict is stored here, its late return will be refused."""
        try:
            if self._ledger.finish(held.claim, Store(lifecycle.timed_out(held.spec))):
                self._ledger.finish(held.claim, Release(timedelta(), "time limit"))
            elif not held.overdue():
                return  # it returned just now
        except LedgerDown as error:
            self._observer.saw(Event.LEDGER_DOWN, held.claim, error=error)
            return
        held.lost = held.refused = True
        self._observer.saw(Event.TIMED_OUT, held.claim)
        self._end(held)

    def _end(self, held: Held) -> None:
        if not held.fenced:
            held.fenced = True
            self._fence()

    def _ensure_thread(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._keep, name="leases", daemon=True)
            self._thread.start()

    def _keep(self) -> None:
        pause = min(0.5, self._times.beat.total_seconds() / 4)
        while True:
            with self._lock:
                self._wake.wait_for(lambda: self._held)
            try:
                self.look()
            except Exception as error:  # noqa: BLE001 - it is the only keeper of all leases
                self._observer.saw(Event.KEEPER_FAILED, error=error)
            self._clock.sleep(pause)
