"""From a message to a job that is this delivery's to go on with, or to nothing.

Order matters: details before begin, so that a failure there costs only a wait for the next offer; begin before
the acknowledgement, so that a crash after it is noticed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from dispatcher.engine import lifecycle
from dispatcher.engine.jobs import Jobs
from dispatcher.engine.lifecycle import Acknowledged, Handshake, Leave, ReadAgain, Send, Step
from dispatcher.engine.model import (
    ApiError,
    Begun,
    Claim,
    Dropped,
    How,
    InvalidClientToken,
    InvalidNonce,
    JobDetails,
    JobRef,
    LedgerDown,
    Park,
    PortError,
    Throttled,
    TokensDown,
    Unanswered,
    UnknownClient,
)
from dispatcher.engine.ports import Clock, Event, Ledger, Observer
from dispatcher.engine.times import Times
from dispatcher.sdk import ActionSpec


@dataclass(frozen=True)
class Taken:
    """A job that this delivery owns, and what is next. `details` are None where no handler runs."""

    claim: Claim
    next: lifecycle.Next
    details: JobDetails | None


class Claims:
    def __init__(
        self, jobs: Jobs, ledger: Ledger, observer: Observer, clock: Clock, times: Times
    ) -> None:
        self._jobs = jobs
        self._ledger = ledger
        self._observer = observer
        self._clock = clock
        self._times = times

    def take(self, ref: JobRef, owner: str, spec: ActionSpec) -> Taken | None:
        """For the job's own message. None: dropped, parked or left, and said so."""
        details = self._details(ref)
        if details is None:
            return None
        begun = self._begin(ref, owner, nonce=details.nonce)
        if begun is None:
            return None
        claim = Claim(ref, owner, begun.attempt, begun.ack, begun.starts, begun.retries)
        if not lifecycle.must_acknowledge(begun):
            step = lifecycle.after_begin(begun, spec)
            return Taken(claim, step, details)
        acknowledged = self._acknowledge(claim, begun)
        if acknowledged is None:
            return None
        step = lifecycle.after_acknowledgement(begun, acknowledged, spec)
        return Taken(replace(claim, ack=acknowledged.ack), step, details)

    def settle(self, ref: JobRef, owner: str, spec: ActionSpec) -> Taken | None:
        """For a settle message: only what ends with a put, and needs neither details nor a handler."""
        try:
            self._jobs.check_client(ref)
        except (TokensDown, UnknownClient) as error:
            self._no_token(ref, error)
            return None
        begun = self._begin(ref, owner, only=lifecycle.may_settle(spec))
        if begun is None:
            return None
        claim = Claim(ref, owner, begun.attempt, begun.ack, begun.starts, begun.retries)
        return Taken(claim, lifecycle.after_begin(begun, spec), None)

    def _details(self, ref: JobRef) -> JobDetails | None:
        """On failure the job is nobody's, so that the next offer brings it back."""
        try:
            return self._jobs.details(ref)
        except (TokensDown, UnknownClient, InvalidClientToken) as error:
            self._no_token(ref, error)
            why = "no client token"
        except ApiError as error:
            self._observer.saw(Event.DETAILS_FAILED, ref, error=error)
            why = "details failed"
        self._park(Claim(ref, owner=""), Park(why))
        return None

    def _no_token(self, ref: JobRef, error: PortError) -> None:
        event = Event.TOKENS_DOWN if isinstance(error, TokensDown) else Event.UNKNOWN_CLIENT
        self._observer.saw(event, ref, error=error)

    def _begin(
        self,
        ref: JobRef,
        owner: str,
        *,
        nonce: str | None = None,
        only: frozenset[How] | None = None,
    ) -> Begun | None:
        try:
            begun = self._ledger.begin(ref, owner, nonce, only)
        except LedgerDown as error:
            self._observer.saw(Event.LEDGER_DOWN, ref, error=error)
            return None
        if isinstance(begun, Dropped):
            self._observer.saw(Event.DROPPED, ref, why=begun.why)
            return None
        return begun

    def _acknowledge(self, claim: Claim, begun: Begun) -> Acknowledged | None:
        if begun.nonce is None:
            # A custom job whose record a heartbeat re-created: only an offer knows its nonce.
            self._give_up(claim, Park("no nonce is known"))
            return None
        known = Handshake(begun.how, begun.nonce, begun.tried)
        fresh_until = (
            self._clock.monotonic() + (self._times.fresh - begun.offer_age).total_seconds()
        )
        for _ in self._pauses():
            known, step = self._try(claim.ref, known, fresh_until)
            match step:
                case Acknowledged():
                    self._observer.saw(Event.ACKNOWLEDGED, claim.ref, attempt=claim.attempt)
                    return step
                case Park() | Leave():
                    self._give_up(claim, step)
                    return None
                case Send() | ReadAgain():
                    continue
        self._give_up(claim, lifecycle.out_of_tries(known))
        return None

    def _pauses(self) -> Iterator[None]:
        """One go at once, then some more with growing pauses, while the first lease surely holds."""
        until = self._clock.monotonic() + self._times.fresh.total_seconds()
        pause = 0.25
        while self._clock.monotonic() < until:
            yield
            self._clock.sleep(pause)
            pause = min(pause * 2, 4.0)

    def _try(self, ref: JobRef, known: Handshake, fresh_until: float) -> tuple[Handshake, Step]:
        """One try, and what it taught; Send means that it is worth another."""

        def fresh() -> bool:
            return self._clock.monotonic() < fresh_until

        step = lifecycle.next_try(known, fresh=fresh())
        if isinstance(step, ReadAgain):
            current = self._current_nonce(ref)
            if current is None:
                return known, step
            known = replace(known, nonce=current, read_again=True)
            step = lifecycle.next_try(known, fresh=fresh())
        if not isinstance(step, Send):
            return known, step
        try:
            return known, lifecycle.accepted(known, self._jobs.acknowledge(ref, known.nonce))
        except Unanswered:
            return replace(known, unanswered=known.unanswered | {known.nonce}), step
        except (Throttled, TokensDown):
            return known, step
        except InvalidNonce:
            return self._after_refusal(ref, known, fresh)
        except PortError as error:
            self._observer.saw(Event.ACK_REFUSED, ref, error=error)
            return known, lifecycle.refused_otherwise(known)

    def _after_refusal(
        self, ref: JobRef, known: Handshake, fresh: Callable[[], bool]
    ) -> tuple[Handshake, Step]:
        current = self._current_nonce(ref)
        if current is None:
            return known, Send(known.nonce)
        step = lifecycle.refused_nonce(known, current, fresh=fresh())
        return replace(known, nonce=current), step

    def _current_nonce(self, ref: JobRef) -> str | None:
        """A third-party job's from its details, a custom one's from its newest offer."""
        try:
            if ref.client_id is None:
                return self._ledger.nonce(ref.job_id)
            return self._jobs.details(ref).nonce
        except PortError as error:
            self._observer.saw(Event.DETAILS_FAILED, ref, error=error)
            return None

    def _give_up(self, claim: Claim, step: Park | Leave) -> None:
        if isinstance(step, Park):
            self._observer.saw(Event.NOT_OURS, claim.ref, why=step.why)
            self._park(claim, step)
        else:
            self._observer.saw(Event.ACK_UNKNOWN, claim.ref)

    def _park(self, claim: Claim, park: Park) -> None:
        try:
            self._ledger.finish(claim, park)
        except LedgerDown as error:
            # Its lease ends all the same.
            self._observer.saw(Event.LEDGER_DOWN, claim.ref, error=error)
