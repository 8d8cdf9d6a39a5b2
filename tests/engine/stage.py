"""Tasks of processes as threads of which one runs at a time: who goes on next is chosen outside.

So any two tasks meet at any two of their calls, and the same choices make the same run."""

from collections.abc import Callable
from threading import Lock, Thread

from tests.engine.clock import Clock
from tests.engine.line import Died
from tests.engine.world import Worker


class Actor:
    """One task, from its first call to its last."""

    def __init__(self, worker: Worker, act: Callable[[], object]) -> None:
        self.worker = worker
        self.wakes = 0.0  # it sleeps until then
        self.over = False
        self._act = act
        self._error: BaseException | None = None
        self._goes, self._waits = Lock(), Lock()
        self._goes.acquire()
        self._waits.acquire()
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def go_on(self) -> None:
        """Until it waits, or is over."""
        self._goes.release()
        self._waits.acquire()
        if self._error is not None:
            raise self._error

    def wait(self) -> None:
        """Of the actor itself."""
        self._waits.release()
        self._goes.acquire()
        if self.worker.line.dead:
            raise Died

    def _run(self) -> None:
        self._goes.acquire()
        try:
            self._act()
        except BaseException as error:  # noqa: BLE001 - go_on raises it again
            self._error = error
        self.over = True
        self._waits.release()


class Stage:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.acting: Actor | None = None
        self.actors: list[Actor] = []

    def enter(self, worker: Worker, act: Callable[[], object]) -> None:
        self.actors.append(Actor(worker, act))

    def go_on(self, actor: Actor) -> None:
        self.acting = actor
        try:
            actor.go_on()
        finally:
            self.acting = None
            if actor.over:
                self.actors.remove(actor)

    def bury(self) -> None:
        """Whoever's process died ends without another call."""
        for actor in list(self.actors):
            if actor.worker.line.dead:
                self.go_on(actor)

    def awake(self) -> list[Actor]:
        now = self._clock.monotonic()
        return [one for one in self._thawed() if one.wakes <= now]

    def idle(self) -> float | None:
        """For how many seconds nobody has anything to do; None for ever."""
        wakes = [one.wakes for one in self._thawed()]
        return max(min(wakes) - self._clock.monotonic(), 0) if wakes else None

    def sleep(self, seconds: float) -> None:
        """Of an actor, while which others go on; anybody else's time passes at once."""
        if self.acting is None:
            self._clock.advance(seconds)
        else:
            self.acting.wakes = self._clock.monotonic() + seconds
            self.acting.wait()

    def _thawed(self) -> list[Actor]:
        return [one for one in self.actors if not one.worker.frozen]
