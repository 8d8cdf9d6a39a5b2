"""What the fleet counts: names, labels, and how counts travel from a worker to who shows them.

A process adds up in memory, and its next call of the ledger or the fleet takes the sums along: no
round trip is made for them. Labels are bounded: providers come from the registry, never from a
message, and no job, client or pipeline is named."""

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

from dispatcher.engine.model import Claim
from dispatcher.engine.ports import About, Event

PREFIX: Final = "codepipeline_"
BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, inf)  # seconds of an AWS call


@dataclass(frozen=True)
class Metric:
    """`name` without its prefix, and without the `_total` of a counter."""

    name: str
    help: str
    labels: tuple[str, ...] = ("provider",)


COUNTERS: Final = (
    Metric("polls", "Polls, by what came of them.", ("provider", "result")),
    Metric("offers", "Jobs in polls' answers: new, or known already.", ("provider", "kind")),
    Metric("acknowledgements", "Acknowledgements, by what came.", ("provider", "result")),
    Metric("results", "Jobs that AWS has a result of, or will not take.", ("provider", "outcome")),
    Metric("failures", "Failed jobs, by AWS's type of failure.", ("provider", "type")),
    Metric("recoveries", "Jobs published again, and why.", ("provider", "cause")),
    Metric("events", "Warnings and errors, as the log names them.", ("provider", "event")),
    Metric("aws_calls", "Calls of CodePipeline, by answer.", ("operation", "result")),
)
LATENCY: Final = Metric("aws_seconds", "How long calls of CodePipeline took.", ("operation",))
SPENT: Final = "aws_microseconds"  # their sum
GAUGES: Final = (
    Metric("queue_messages", "Messages in the provider's queue."),
    Metric("jobs_waiting", "Jobs that were offered and that nobody has begun."),
    Metric("oldest_waiting_seconds", "Since the oldest of them was first offered."),
    Metric("jobs_running", "Jobs that somebody works on; they take slots."),
    Metric("jobs_retrying", "Jobs that wait for their Retry."),
    Metric("jobs_dead", "Dead letters: AWS refused the result, an operator is to look."),
    Metric("workers", "Workers that announced themselves lately."),
    Metric("slots", "Their slots."),
    Metric("draining", "Workers that leave: they finish, and begin nothing."),
    Metric("paused", "1 while the provider is paused."),
)
UP: Final = Metric("ledger_up", "Whether Redis told the above.", ())

_ACKNOWLEDGED: Final = {
    Event.ACKNOWLEDGED: "accepted",
    Event.ACK_PARKED: "refused",
    Event.ACK_UNKNOWN: "unanswered",
}
_POLLED: Final = {
    Event.POLL_THROTTLED: "throttled",
    Event.POLL_FAILED: "failed",
    Event.TYPE_UNKNOWN: "unknown_type",
}
_ENDED: Final = {Event.CLOSED: "closed", Event.DEAD: "dead"}
_TROUBLES: Final = frozenset(event for event in Event if event.value[0] in {"warning", "error"})


class Tally:
    """Counts of one process that nobody took along yet. Threads may add at any time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, name: str, *values: str, by: int = 1) -> None:
        with self._lock:
            self._counts["|".join((name, *values))] += by

    def take(self) -> Mapping[str, int]:
        if not self._counts:
            return {}
        with self._lock:
            taken, self._counts = self._counts, Counter()
        return taken

    def put_back(self, counts: Mapping[str, int]) -> None:
        """Of a call without an answer. It may have been applied: then these count twice."""
        with self._lock:
            self._counts.update(counts)


class Counting:
    """`Observer` that counts."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def saw(self, event: Event, about: About = None, **fields: object) -> None:
        provider = _provider(about, fields)
        if event in _TROUBLES:
            self._tally.add("events", provider, event.name.lower())
        if event is Event.POLLED:
            self._polled(provider, int(str(fields["offers"])), int(str(fields["new"])))
        elif event in _POLLED:
            self._tally.add("polls", provider, _POLLED[event])
        elif event in _ACKNOWLEDGED:
            self._tally.add("acknowledgements", provider, _ACKNOWLEDGED[event])
        elif event is Event.SWEPT:
            self._tally.add("recoveries", provider, str(fields["why"]).replace(" ", "_"))
        else:
            self._ended(event, provider, fields)

    def _polled(self, provider: str, offers: int, new: int) -> None:
        self._tally.add("polls", provider, "jobs" if offers else "empty")
        for kind, count in (("new", new), ("known", offers - new)):
            if count:
                self._tally.add("offers", provider, kind, by=count)

    def _ended(self, event: Event, provider: str, fields: Mapping[str, object]) -> None:
        if event is Event.REPORTED:
            self._tally.add("results", provider, str(fields["outcome"]))
            if fields.get("type"):
                self._tally.add("failures", provider, str(fields["type"]))
        elif event in _ENDED:
            self._tally.add("results", provider, _ENDED[event])

    def called(self, operation: str, result: str, seconds: float) -> None:
        """A call of CodePipeline was answered, or given up."""
        self._tally.add("aws_calls", operation, result)
        bound = next(bound for bound in BUCKETS if seconds <= bound)
        self._tally.add(LATENCY.name, operation, str(bound))
        self._tally.add(SPENT, operation, by=int(seconds * 1_000_000))


def _provider(about: About, fields: Mapping[str, object]) -> str:
    ref = about.ref if isinstance(about, Claim) else about
    if ref is not None:
        return ref.type.provider
    parts = str(fields.get("action_type", "")).split(".")
    return parts[2] if len(parts) == 4 else ""


@dataclass(frozen=True)
class Counted:
    """One series: a counter's sum."""

    name: str
    values: Sequence[str]
    sum: int


def counted(stored: Mapping[str, str]) -> list[Counted]:
    """What the fleet has counted, as Redis holds it; fields of other releases are passed over."""
    known = {metric.name: len(metric.labels) for metric in COUNTERS}
    known |= {LATENCY.name: 2, SPENT: 1}
    found = []
    for field, value in stored.items():
        name, *values = field.split("|")
        if known.get(name) == len(values) and value.lstrip("-").isdecimal():
            found.append(Counted(name, values, int(value)))
    return found


def time_spent(sums: Sequence[Counted], operation: str) -> float:
    """Seconds, in all calls of an operation."""
    return sum(one.sum for one in sums if one.name == SPENT and one.values == [operation]) / 1e6
