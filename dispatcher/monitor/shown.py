"""What the pages say of a reading: words, counts and links, all of it plain text.

Escaping is the templates'; it must not know Flower."""

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode

from dispatcher.monitor.readings import Board, ProviderRow
from dispatcher.store.records import FAILED, Record, State, Wanted, span

MOST: Final = 200  # rows of a page
CUT: Final = 160  # characters of a message in a list
NAMED: Final = 3  # workers of a provider
COLOURS: Final[Mapping[State, str]] = {
    State.WAITING: "text-bg-secondary",
    State.RUNNING: "task-state-started",
    State.RETRY: "text-bg-warning",
    State.FINISHED: "text-bg-info",
    State.REPORTED: "text-bg-success",
    State.DEAD: "text-bg-danger",
    State.DAMAGED: "text-bg-dark",
}
MEANINGS: Final[Mapping[State, str]] = {
    State.WAITING: "on offer, for a worker to begin it",
    State.RUNNING: "a worker has it",
    State.RETRY: "waits to be run again",
    State.FINISHED: "its result is on the way to AWS",
    State.REPORTED: "AWS has its result",
    State.DEAD: "AWS refused its result for good",
    State.DAMAGED: "its record cannot be read, and nobody acts on it",
}
VERDICT: Final[Mapping[str, str]] = {  # what of it is shown, and how that is called
    "kind": "Outcome",
    "failure_type": "Failure type",
    "message": "Message",
    "external_id": "External id",
    "percent": "Percent",
    "revision": "Revision",
    "variables": "Output variables",
}


@dataclass(frozen=True)
class Choice:
    """A link that sets a filter, or takes it back."""

    label: str
    count: int
    query: str
    active: bool
    title: str = ""


@dataclass(frozen=True)
class Listing:
    """One look at the list, as it was asked for."""

    board: Board
    wanted: Wanted

    @property
    def matching(self) -> Sequence[Record]:
        return [record for record in self.board.jobs if self.wanted.takes(record)]

    @property
    def states(self) -> Sequence[Choice]:
        """Each with how many there would be, by the other filters."""
        others = replace(self.wanted, state="")
        counts = Counter(one.state for one in self.board.jobs if others.takes(one))
        every = Choice("All", sum(counts.values()), query(others), not self.wanted.state)
        failed = replace(self.wanted, state=FAILED)
        failures = sum(map(failed.takes, self.board.jobs))
        each = [self._state(state.value, counts[state], MEANINGS[state]) for state in State]
        return [every, *each, self._state(FAILED, failures, "AWS was, or is to be, told a failure")]

    def _state(self, state: str, count: int, meaning: str) -> Choice:
        here = self.wanted.state == state
        link = query(replace(self.wanted, state="" if here else state))
        return Choice(state.capitalize(), count, link, here, meaning)

    def of(self, row: ProviderRow, state: State | None = None) -> str:
        """A query for one provider's jobs."""
        return query(Wanted(provider=row.name, state=state.value if state else ""))

    @property
    def provider_names(self) -> Sequence[str]:
        """To choose from; what was asked for is among them."""
        return sorted({row.name for row in self.board.providers} | {self.wanted.provider} - {""})

    @property
    def filtered(self) -> bool:
        return self.wanted != Wanted()


def query(wanted: Wanted) -> str:
    given = {
        "job": wanted.job,
        "provider": wanted.provider,
        "client": wanted.client,
        "state": wanted.state,
        "q": wanted.text,
    }
    return "?" + urlencode({name: value for name, value in given.items() if value})


def colour(record: Record) -> str:
    if record.state is State.REPORTED and record.failed:
        return "jobs-badge-failed"
    return COLOURS[record.state]


def meaning(record: Record) -> str:
    return MEANINGS[record.state]


def age(record: Record, now: datetime) -> str:
    if record.ended:
        return f"{span(now - record.ended)} ago"
    return span(now - record.since) if record.since else ""


def due(record: Record, now: datetime) -> str:
    if record.state is not State.RETRY or record.lease is None:
        return ""
    return f"next try in {span(record.lease - now)}" if record.lease > now else "next try is due"


def moments(record: Record) -> Sequence[tuple[str, datetime]]:
    """A lease means something while somebody holds the job, or while a Retry waits."""
    lease = {State.RUNNING: "Leased until", State.RETRY: "Next try"}.get(record.state)
    found = (("First offered", record.since), ("Ended", record.ended), (lease, record.lease))
    return [(title, at) for title, at in found if title and at]


def result(record: Record) -> str:
    """Of what has one; its first lines at most."""
    if not record.outcome:
        return ""
    return cut(f"{record.outcome}: {record.message}" if record.message else record.outcome)


def cut(text: str, most: int = CUT) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def brief(job_id: str) -> str:
    """A UUID's first part tells jobs apart; the filter takes how an id begins."""
    return job_id.partition("-")[0] if len(job_id) == 36 else cut(job_id, 20)


def crew(row: ProviderRow) -> str:
    named = ", ".join(row.workers[:NAMED])
    more = len(row.workers) - NAMED
    return f"{named} and {more} more" if more > 0 else named


def instant(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def command(*words: str) -> str:
    """To be pasted into a shell: a name that came from a pipeline is one word there."""
    return shlex.join(("dispatcher", *words))


def told(verdict: Mapping[str, Any]) -> Sequence[tuple[str, str, bool]]:
    """Title, text, and whether that is JSON."""
    found = ((title, verdict.get(name)) for name, title in VERDICT.items())
    return [(title, *_text(value)) for title, value in found if value not in (None, "", {})]


def _text(value: Any) -> tuple[str, bool]:
    if isinstance(value, Mapping | list):
        return json.dumps(value, indent=2, ensure_ascii=False, default=str), True
    return str(value), False
