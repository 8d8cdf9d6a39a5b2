"""The engine's durations: settings, what derives from them, and the pace of polls."""

from dataclasses import dataclass, replace
from datetime import timedelta

RETRY_AFTER = timedelta(seconds=10)  # for an exception in `retry_on`, which names no delay
RETRY_MOST = timedelta(minutes=15)
PUT_INLINE = timedelta(minutes=1)
PUT_FOR = timedelta(hours=24)  # then it is a dead letter: a custom action times out after a day
PUT_PAUSE_LEAST = timedelta(seconds=15)
PUT_PAUSE_MOST = timedelta(seconds=60)
WITHOUT_LEDGER = timedelta(seconds=30)  # then a `fail` verdict is put though it could not be stored
LEAVE_FOR = timedelta(seconds=5)  # until an acknowledgement that found no answer is tried again
UNKNOWN_LEAST = timedelta(seconds=5)  # an operator may be about to create the type
REST_MOST = timedelta(seconds=60)  # of an action type that AWS throttles, or does not know


@dataclass(frozen=True)
class Times:
    """The settings."""

    poll_interval: timedelta = timedelta(seconds=1)
    poll_interval_max: timedelta = timedelta(seconds=5)
    ack_window: timedelta = timedelta(seconds=30)
    lease: timedelta = timedelta(seconds=60)
    sweep_interval: timedelta = timedelta(seconds=10)
    shutdown_grace: timedelta = timedelta(seconds=20)

    @property
    def fresh(self) -> timedelta:
        """How long after an offer its nonce surely is not a foreign worker's."""
        return 0.8 * self.ack_window

    @property
    def fence(self) -> timedelta:
        """After so much silence a handler stops, some time before another may start."""
        return 0.9 * self.lease

    @property
    def beat(self) -> timedelta:
        """Between two heartbeats: three may fail before a lease ends; one comes in begin's own."""
        return min(self.lease / 4, self.ack_window / 2)


@dataclass(frozen=True)
class Pace:
    """How long one action type rests between polls."""

    rest: timedelta
    times: Times

    def busy(self) -> "Pace":
        return replace(self, rest=timedelta())

    def idle(self) -> "Pace":
        longer = max(self.rest * 1.5, self.times.poll_interval)
        return replace(self, rest=min(longer, self.times.poll_interval_max))

    def throttled(self) -> "Pace":
        longer = max(self.rest * 2, self.times.poll_interval * 2)
        return replace(self, rest=min(longer, REST_MOST))

    def unknown(self) -> "Pace":
        return replace(self, rest=max(self.throttled().rest, UNKNOWN_LEAST))
