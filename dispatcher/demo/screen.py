"""What the demo shows: a line a change, or on a terminal a table that redraws itself; the summary.

It must not know where the jobs' progress comes from."""

import shutil
import statistics
import sys
from collections.abc import Sequence
from typing import Protocol

import click

from dispatcher.demo.scenario import End, Progress

HEAD = f"{'JOB':>4}  {'TENANT':<8}  {'PROVIDER':<16}  {'WHAT':<16}  {'STATUS':<18}  {'SECONDS':>7}"
COLOURS = {"Succeeded": "green", "Failed": "red", "TimedOut": "red", "InProgress": "cyan"}


class Screen(Protocol):
    def show(self, seen: Sequence[Progress]) -> None: ...

    def say(self, text: str) -> None:
        """Between two looks."""


def screen(jobs: int) -> Screen:
    """A table that does not fit cannot be redrawn: lines then."""
    watched = sys.stdout.isatty()
    columns, rows = shutil.get_terminal_size()
    return Table() if watched and columns > len(HEAD) and rows > jobs + 2 else Lines()


class Lines:
    """One line for each change."""

    def __init__(self) -> None:
        self._before: list[Progress] = []

    def show(self, seen: Sequence[Progress]) -> None:
        if not self._before:
            click.echo(HEAD)
        for number, one in enumerate(seen):
            if not self._before or self._before[number] != one:
                click.echo(_row(number, one))
        self._before = list(seen)

    def say(self, text: str) -> None:
        click.echo(text)


class Table:
    def __init__(self) -> None:
        self._drawn = 0

    def show(self, seen: Sequence[Progress]) -> None:
        rows = [HEAD, *(_coloured(number, one) for number, one in enumerate(seen))]
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        click.echo(up + "\n".join(f"\x1b[2K{row}" for row in rows))
        self._drawn = len(rows)

    def say(self, text: str) -> None:
        """The next table starts below."""
        self._drawn = 0
        click.echo(text)


def _row(number: int, one: Progress) -> str:
    planned = one.planned
    provider = f"{planned.action_type.owner} {planned.action_type.provider}"
    status = f"{one.status}, step {one.step}" if one.step > 1 else one.status
    return (
        f"{number + 1:>4}  {planned.client or '(own)':<8}  {provider:<16}  {planned.title:<16}  "
        f"{status:<18}  {one.seconds:>7.2f}"
    )


def _coloured(number: int, one: Progress) -> str:
    return click.style(_row(number, one), fg=COLOURS.get(one.status))


def summary(seen: Sequence[Progress]) -> None:
    click.echo("\nEvery job's end, and the seconds from its submission to it:")
    click.echo(HEAD)
    for number, one in enumerate(seen):
        click.echo(_row(number, one))
        if why := _why(one):
            click.echo(f"      {why}")
    times = [one.seconds for one in seen if one.end is not End.WAITING]
    if times:
        click.echo(f"p50 {statistics.median(times):.2f} s, longest {max(times):.2f} s")


def _why(one: Progress) -> str:
    parts = []
    if one.failure:
        parts.append(f"{one.failure[0]}: {one.failure[1]}")
    if one.planned.should is End.WAITING and one.well:
        parts.append("stays on offer: nobody here knows this client's token")
    if not one.well:
        parts.append(f"NOT AS IT SHOULD: {_expected(one)}")
    return "; ".join(parts)


def _expected(one: Progress) -> str:
    planned = one.planned
    kind = f" with {planned.failure}" if planned.failure else ""
    if not one.carried:
        return "its output artifact should be its input, and is not"
    if one.end is End.WAITING and not one.begun:
        return f"it should have {_past(planned.should)}{kind}, and nobody began it"
    return f"it should have {_past(planned.should)}{kind}"


def _past(end: End) -> str:
    return "stayed on offer" if end is End.WAITING else str(end)
