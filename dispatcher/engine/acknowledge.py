"""One delivery's acknowledgement: tries until AWS's answers say whose the job is.

Carries out what handshake decides; knows the calls and the pauses, and changes no record."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from dispatcher.engine import handshake
from dispatcher.engine.handshake import Acknowledged, Handshake, Leave, ReadAgain, Send, Step
from dispatcher.engine.jobs import Jobs
from dispatcher.engine.model import (
    Begun,
    Claim,
    Denied,
    InvalidClientToken,
    InvalidNonce,
    Malformed,
    Park,
    PortError,
    Throttled,
    TokensDown,
    Unanswered,
    UnknownClient,
)
from dispatcher.engine.ports import Clock, Event, Ledger, Observer
from dispatcher.engine.times import Times

Fresh = Callable[[], bool]

# Not applied, and nothing about the job: an earlier try may have made it ours.
SAYS_NOTHING = (Denied, InvalidClientToken, Throttled, TokensDown, UnknownClient)


class Acknowledger:
    def __init__(
        self, jobs: Jobs, ledger: Ledger, observer: Observer, clock: Clock, times: Times
    ) -> None:
        self._jobs = jobs
        self._ledger = ledger
        self._observer = observer
        self._clock = clock
        self._times = times

    def acknowledge(self, claim: Claim, begun: Begun) -> Acknowledged | Park | Leave:
        known = handshake.opening(begun)
        if isinstance(known, Park):
            return known
        left = self._times.fresh - begun.offer_age
        fresh_until = self._clock.monotonic() + left.total_seconds()
        for _ in self._pauses():
            known, step = self._try(claim, known, lambda: self._clock.monotonic() < fresh_until)
            if isinstance(step, Acknowledged | Park | Leave):
                return step
        return handshake.out_of_tries(known)

    def _pauses(self) -> Iterator[None]:
        """One go at once, then more with growing pauses, as long as its answer may come in time.

        The first lease is the window; a try and what it makes necessary may take half of it.
        """
        until = self._clock.monotonic() + self._times.ack_window.total_seconds() / 2
        pause = 0.25
        while self._clock.monotonic() < until:
            yield
            self._clock.sleep(pause)
            pause = min(pause * 2, 4.0)

    def _try(self, claim: Claim, known: Handshake, fresh: Fresh) -> tuple[Handshake, Step]:
        """One try, and what it taught; Send and ReadAgain mean that another is worth it."""
        step = handshake.next_try(known, fresh=fresh())
        if isinstance(step, ReadAgain):
            current = self._current_nonce(claim)
            if current is None:
                return known, step
            known = replace(known, nonce=current, read_again=True)
            step = handshake.next_try(known, fresh=fresh())
        return self._send(claim, known, fresh) if isinstance(step, Send) else (known, step)

    def _send(self, claim: Claim, known: Handshake, fresh: Fresh) -> tuple[Handshake, Step]:
        another = Send(known.nonce)
        try:
            return known, handshake.accepted(known, self._jobs.acknowledge(claim.ref, known.nonce))
        except (Malformed, Unanswered):  # an answer that cannot be read may have been a yes
            return replace(known, unanswered=known.unanswered | {known.nonce}), another
        except SAYS_NOTHING as error:
            self._observer.saw(Event.ACK_FAILED, claim, error=error)
            return known, another
        except InvalidNonce:
            current = self._current_nonce(claim)
            if current is None:
                return known, another
            step = handshake.refused_nonce(known, current, fresh=fresh())
            return replace(known, nonce=current), step
        except PortError as error:
            self._observer.saw(Event.ACK_REFUSED, claim, error=error)
            return known, handshake.refused_otherwise(known)

    def _current_nonce(self, claim: Claim) -> str | None:
        """A third-party job's from its details, a custom one's from its newest offer."""
        try:
            if claim.ref.client_id is None:
                return self._ledger.nonce(claim.ref.job_id)
            return self._jobs.details(claim.ref).nonce
        except PortError as error:
            self._observer.saw(Event.DETAILS_FAILED, claim, error=error)
            return None
