"""The decisions of an acknowledgement: pure functions that say whose a job is by AWS's answers.

A nonce proves whose acknowledgement it was. AWS accepts one acknowledgement of one dispatch, and
makes a new nonce for the next: so a refused nonce that is still the current one was acknowledged,
by whoever sent it.

    offer ──────────── 0.8 W ─┄┄ W ──▶ re-offer, new nonce
      │  may send what was read here │  may send only what stands in `tried`
"""

from dataclasses import dataclass

from dispatcher.engine.model import Ack, Begun, How, Park

IN_PROGRESS = "InProgress"


@dataclass(frozen=True)
class Handshake:
    """What one delivery knows while it acknowledges."""

    how: How
    nonce: str
    tried: frozenset[str]
    unanswered: frozenset[str] = frozenset()
    read_again: bool = False

    @property
    def evidence(self) -> frozenset[str]:
        """Nonces that this fleet sent, or may have sent, while they were surely its own."""
        return self.tried | self.unanswered


@dataclass(frozen=True)
class Send:
    """Acknowledge with this nonce."""

    nonce: str


@dataclass(frozen=True)
class ReadAgain:
    """Read the job's current nonce first."""


@dataclass(frozen=True)
class Leave:
    """Whether AWS took it is unknown: keep the evidence, so that the next begin inherits it."""


@dataclass(frozen=True)
class Acknowledged:
    """The job is this fleet's. `by_predecessor`: whether its handler started is not known."""

    ack: Ack
    by_predecessor: bool = False


Step = Send | ReadAgain | Leave | Acknowledged | Park


def opening(begun: Begun) -> Handshake | Park:
    if begun.nonce is None:  # a custom job whose record a heartbeat re-created: offers know it
        return Park("no nonce is known", forget=begun.how is How.SEND)
    return Handshake(begun.how, begun.nonce, begun.tried)


def next_try(known: Handshake, *, fresh: bool) -> Send | ReadAgain | Leave | Park:
    """What to do before each try. `fresh`: the newest offer is younger than 0.8 W."""
    if fresh or known.nonce in known.tried:
        return Send(known.nonce)
    if known.tried and not known.read_again:
        return ReadAgain()
    return (
        Leave() if known.unanswered else Park("the acknowledgement window is over", _forget(known))
    )


def accepted(known: Handshake, status: str) -> Acknowledged | Park:
    if status == IN_PROGRESS:
        return Acknowledged(Ack.SURE)
    return Park(f"acknowledged as {status}", _forget(known))


def refused_nonce(known: Handshake, current: str, *, fresh: bool) -> Acknowledged | Send | Park:
    """AWS answered InvalidNonce; `current` was read after that."""
    sent_by_us = current in known.evidence
    if current == known.nonce and sent_by_us:
        ack = Ack.SURE if fresh else Ack.PRESUMED
        return Acknowledged(ack, by_predecessor=known.how is How.INHERITED)
    if sent_by_us:
        return Send(current)
    return Park("somebody else's", _forget(known))


def refused_otherwise(known: Handshake) -> Park:
    """AWS will not have it acknowledged, whoever tries: never a result, and never a job of ours."""
    return Park("acknowledgement refused", _forget(known))


def out_of_tries(known: Handshake) -> Leave | Park:
    """No answer about the job. Parking forgets evidence, so only what has none is parked."""
    if known.unanswered or known.how is not How.FRESH:
        return Leave()
    return Park("the acknowledgement found no answer")


def _forget(known: Handshake) -> bool:
    return known.how is How.SEND
