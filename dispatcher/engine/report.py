"""From a handler's end, or a stored verdict, to AWS: stored first, then sent."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

from dispatcher.engine import lifecycle
from dispatcher.engine.jobs import Jobs
from dispatcher.engine.leases import Held
from dispatcher.engine.model import (
    Again,
    Arm,
    Dead,
    Done,
    InvalidClientToken,
    InvalidJobState,
    LedgerDown,
    Park,
    PortError,
    Refused,
    Release,
    Store,
    Throttled,
    Unanswered,
    Verdict,
)
from dispatcher.engine.ports import Clock, Event, Ledger, Observer
from dispatcher.engine.times import PUT_INLINE, WITHOUT_LEDGER


class Reporter:
    def __init__(self, jobs: Jobs, ledger: Ledger, observer: Observer, clock: Clock) -> None:
        self._jobs = jobs
        self._ledger = ledger
        self._observer = observer
        self._clock = clock

    def end(self, held: Held, arm: Store | Again) -> None:
        """Of a handler: its verdict to the ledger and then to AWS, or its Retry to the ledger."""
        if isinstance(arm, Again):
            held.claim = replace(held.claim, retries=held.claim.retries + 1)
        stored = self._store(held, arm)
        if stored is False:
            self._observer.saw(Event.LOST, held.claim)
        elif isinstance(arm, Again):
            if stored:
                self._observer.saw(Event.RETRY, held.claim, after=arm.after.total_seconds())
        elif stored or lifecycle.may_put_unstored(held.spec):
            event = Event.FINISHED if stored else Event.PUT_ANYHOW
            self._observer.saw(event, held.claim, outcome=arm.verdict.kind)
            self.put(held, arm.verdict, timedelta())

    def put(self, held: Held, verdict: Verdict, age: timedelta) -> None:
        """A minute of tries under the lease, then again later."""
        end = self._tries(held, verdict)
        arm = lifecycle.put_later(age + PUT_INLINE, end) if isinstance(end, str) else end
        if not isinstance(arm, Done | Park):
            # The ledger may have lost it since, or never had it: whoever goes on needs it there.
            self._store(held, Store(verdict))
        self._tell(held, verdict, arm)
        self._finish(held, replace(arm, told=verdict) if isinstance(arm, Done | Dead) else arm)

    def _tries(self, held: Held, verdict: Verdict) -> Arm | str:
        """Or why there is no end yet."""
        why = ""
        for _ in self._pauses(PUT_INLINE):
            if held.lost and not lifecycle.may_put_unstored(held.spec):
                return Release(timedelta(), "lease lost")
            try:
                return self._put(held, verdict)
            except (Unanswered, Throttled) as error:
                self._observer.saw(Event.PUT_FAILED, held.claim, error=error)
                why = _said(error)
            except PortError as error:
                self._observer.saw(Event.PUT_FAILED, held.claim, error=error)
                return _said(error)  # an operator's to mend: no use in trying at once
        return why

    def _put(self, held: Held, verdict: Verdict) -> Arm:
        try:
            self._jobs.put(held.claim.ref, verdict)
        except InvalidJobState:
            return lifecycle.put_in_wrong_state(verdict, held.claim.ack)
        except InvalidClientToken:
            raise  # an operator can mend that
        except Refused as error:
            self._observer.saw(Event.PUT_FAILED, held.claim, error=error)
            return lifecycle.put_refused(_said(error))
        return lifecycle.put_accepted(verdict)

    def _tell(self, held: Held, verdict: Verdict, arm: Arm) -> None:
        claim = held.claim
        match arm:
            case Done(accepted=True):
                told = {"outcome": verdict.kind, "type": verdict.failure_type}
                self._observer.saw(Event.REPORTED, claim, **told)
            case Done():
                self._observer.saw(Event.CLOSED, claim, outcome=verdict.kind)
            case Dead():
                self._observer.saw(Event.DEAD, claim, outcome=verdict.kind)
            case Park(why):
                self._observer.saw(Event.PARKED, claim, why=why)
            case _:
                self._observer.saw(Event.PUT_LATER, claim, outcome=verdict.kind)

    def _store(self, held: Held, arm: Store | Again) -> bool | None:
        """None: the ledger did not answer for half a minute."""
        for _ in self._pauses(WITHOUT_LEDGER):
            try:
                return self._ledger.finish(held.claim, arm)
            except LedgerDown as error:
                self._observer.saw(Event.LEDGER_DOWN, held.claim, error=error)
        return None

    def _finish(self, held: Held, arm: Arm) -> None:
        for _ in self._pauses(timedelta(seconds=5)):
            try:
                self._ledger.finish(held.claim, arm)
            except LedgerDown as error:
                # Its lease ends all the same; AWS then answers the repeated put that it has one.
                self._observer.saw(Event.LEDGER_DOWN, held.claim, error=error)
            else:
                return

    def _pauses(self, most: timedelta) -> Iterator[None]:
        until = self._clock.monotonic() + most.total_seconds()
        pause = 0.25
        yield
        while self._clock.monotonic() < until:
            self._clock.sleep(pause)
            pause = min(pause * 2, 8.0)
            yield


def _said(error: PortError) -> str:
    """Ours quote nothing."""
    return f"{type(error).__name__}: {error}"
