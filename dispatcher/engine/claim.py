"""From a message to a job that is this delivery's to go on with, or to nothing.

Order matters: details before begin, so that a failure there costs only a wait for the next offer;
begin before the acknowledgement, so that a crash after it is noticed."""

from dataclasses import dataclass, replace

from dispatcher.engine import lifecycle
from dispatcher.engine.acknowledge import Acknowledger
from dispatcher.engine.handshake import Acknowledged, Leave
from dispatcher.engine.jobs import Jobs
from dispatcher.engine.model import (
    ApiError,
    Begun,
    Claim,
    Dropped,
    How,
    InvalidClientToken,
    JobDetails,
    JobRef,
    LedgerDown,
    Park,
    PortError,
    Refused,
    Release,
    TokensDown,
    UnknownClient,
)
from dispatcher.engine.ports import Event, Ledger, Observer
from dispatcher.sdk import ActionSpec, Pipeline


@dataclass(frozen=True)
class Taken:
    """A job that this delivery owns, and what is next. `details` are None where no handler runs."""

    claim: Claim
    next: lifecycle.Next
    details: JobDetails | None


class Claims:
    def __init__(
        self, jobs: Jobs, ledger: Ledger, acknowledger: Acknowledger, observer: Observer
    ) -> None:
        self._jobs = jobs
        self._ledger = ledger
        self._acknowledger = acknowledger
        self._observer = observer

    def take(self, ref: JobRef, owner: str, spec: ActionSpec) -> Taken | None:
        """For the job's own message. None: dropped, parked or left, and said so."""
        details = self._details(ref)
        if details is None:
            return None
        if isinstance(details, Refused):
            return self._without_details(ref, owner)
        begun = self._begin(ref, owner, nonce=details.nonce, pipeline=details.pipeline)
        if begun is None:
            return None
        claim = begun.claim(owner)
        if not lifecycle.must_acknowledge(begun):
            step = lifecycle.after_begin(begun, spec)
            return Taken(claim, step, details)
        acknowledged = self._acknowledge(claim, begun)
        if acknowledged is None:
            return None
        step = lifecycle.after_acknowledgement(begun, acknowledged, spec)
        return Taken(replace(claim, ack=acknowledged.ack), step, details)

    def settle(self, ref: JobRef, owner: str, spec: ActionSpec) -> Taken | None:
        """For a settle message: only what ends with a put, without details or a handler.

        The token is looked up by the put alone: without one the verdict is stored, and tried until
        it is a dead letter that an operator sees.
        """
        begun = self._begin(ref, owner, only=lifecycle.may_settle(spec))
        if begun is None:
            return None
        claim = begun.claim(owner)
        return Taken(claim, lifecycle.after_begin(begun, spec), None)

    def _without_details(self, ref: JobRef, owner: str) -> Taken | None:
        """AWS will never tell them: an acknowledged job still gets its result, or is over."""
        begun = self._begin(ref, owner, only=lifecycle.ACKNOWLEDGED)
        if begun is None:
            return None
        claim = begun.claim(owner)
        return Taken(claim, lifecycle.without_details(begun), None)

    def _details(self, ref: JobRef) -> JobDetails | Refused | None:
        """On failure an unacknowledged job is nobody's, so that the next offer brings it back."""
        refused = None
        try:
            return self._jobs.details(ref)
        except (TokensDown, UnknownClient, InvalidClientToken) as error:
            self._no_token(ref, error)
            why = "no client token"
        except Refused as error:
            self._observer.saw(Event.DETAILS_FAILED, ref, error=error)
            why, refused = "details refused", error
        except ApiError as error:
            self._observer.saw(Event.DETAILS_FAILED, ref, error=error)
            why = "details failed"
        self._finish(Claim(ref, owner=""), Park(why))
        return refused

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
        pipeline: Pipeline | None = None,
    ) -> Begun | None:
        try:
            begun = self._ledger.begin(ref, owner, nonce, only, pipeline)
        except LedgerDown as error:
            self._observer.saw(Event.LEDGER_DOWN, ref, error=error)
            return None
        if isinstance(begun, Dropped):
            self._observer.saw(Event.DROPPED, ref, why=begun.why)
            return None
        return begun

    def _acknowledge(self, claim: Claim, begun: Begun) -> Acknowledged | None:
        step = self._acknowledger.acknowledge(claim, begun)
        match step:
            case Acknowledged():
                self._observer.saw(Event.ACKNOWLEDGED, claim, ack=step.ack)
                return step
            case Park():
                self._observer.saw(Event.ACK_PARKED, claim, why=step.why)
                self._finish(claim, step)
            case Leave():
                self._observer.saw(Event.ACK_UNKNOWN, claim)
                self._finish(claim, lifecycle.leave())
        return None

    def _finish(self, claim: Claim, arm: Park | Release) -> None:
        try:
            self._ledger.finish(claim, arm)
        except LedgerDown as error:
            # Its lease ends all the same.
            self._observer.saw(Event.LEDGER_DOWN, claim.ref, error=error)
