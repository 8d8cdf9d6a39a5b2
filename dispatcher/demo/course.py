"""The demo's course: everything up, jobs submitted and followed, a summary, everything gone."""

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from dispatcher.demo import parts, terminal
from dispatcher.demo.client import Client, answers
from dispatcher.demo.processes import DemoError, Processes
from dispatcher.demo.scenario import (
    COUNTDOWN,
    ECHO,
    OVER,
    Planned,
    Progress,
    Shown,
    count,
    progress,
    scenario,
)
from dispatcher.demo.screen import screen, summary
from dispatcher.redis_server import NoRedisError, free_port

PATIENCE = timedelta(seconds=60)
START_WITHIN = 60.0  # seconds
FLOWER_WITHIN = 20.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StoppedError(BaseException):
    """By a signal. Not an Exception: nothing on the way out may take it for a fault."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = 128 + number


def run(*, jobs: int, stay: bool, as_json: bool) -> int:
    """The exit status: 0 only if every job ended as it should."""
    return follow(scenario(jobs), stay=stay, as_json=as_json)


def follow(
    planned: Sequence[Planned], *, stay: bool, as_json: bool, patience: timedelta = PATIENCE
) -> int:
    """`patience`: how long no job may come nearer to its end before the demo gives up."""
    folder = parts.new_folder()
    status = 1
    try:
        with _signals():
            status = _Demo(folder, planned, patience).run(stay=stay, as_json=as_json)
    except (DemoError, NoRedisError) as error:
        click.echo(f"demo: {error}", err=True)
    except StoppedError as stopped:
        click.echo("Stopped; every process is gone.", err=True)
        status = stopped.status
    finally:
        _tidy(folder, keep=status == 1)
    return status


def _tidy(folder: Path, *, keep: bool) -> None:
    if not any(folder.glob("*.log")) or not keep:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        for name in parts.SECRET:
            (folder / name).unlink(missing_ok=True)
        click.echo(f"The logs are kept in {folder}", err=True)


@contextmanager
def _signals() -> Iterator[None]:
    """Each ends the demo in order; the second one no longer interrupts that."""
    before = {number: signal.signal(number, _leave) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    _be_deaf()
    raise StoppedError(number)


def _be_deaf() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class _Demo:
    def __init__(self, folder: Path, planned: Sequence[Planned], patience: timedelta) -> None:
        self._folder = folder
        self._planned = planned
        self._screen = screen(len(planned))
        self._patience = patience.total_seconds()
        self._arrived: dict[str, bool] = {}  # by job: whether its artifact came out as it went in

    def run(self, *, stay: bool, as_json: bool) -> int:
        parts.check_extra()
        place = parts.providers_folder()
        with ExitStack() as stack:
            self._processes = stack.enter_context(Processes(self._folder))
            self._store = stack.enter_context(parts.store(self._folder, self._processes.group))
            stack.callback(self._processes.stop)
            stack.callback(_be_deaf)  # on the way out, whatever the way
            click.echo(f"Redis:   {self._store}\nLogs:    {self._folder}")
            self._bring_up(place)
            began = time.monotonic()
            seen = self._follow()
            seconds = time.monotonic() - began
            self._report(seen, seconds, stay=stay, as_json=as_json)
            if stay:
                self._stay()
            return 0 if all(one.well for one in seen) else 1

    def _bring_up(self, place: Path) -> None:
        began = time.monotonic()
        address = parts.start_emulator(self._processes, place)
        path = self._folder / parts.TOKENS
        self._tokens = tokens = parts.new_tokens(path)
        self._client = Client(address, lambda client: tokens.get(client, "unknown"))
        # Before anybody polls: a type that is not there yet is left alone for a minute.
        for action_type in (ECHO, COUNTDOWN):
            self._client.define(action_type)
        self._flower = f"127.0.0.1:{free_port()}"
        self._place = place
        self._env = parts.environment(
            os.environ, redis=self._store.url, emulator=address, tokens=path
        )
        parts.start_fleet(self._processes, self._env, place, int(self._flower.rpartition(":")[2]))
        click.echo("Starting emulator, beat, two workers and Flower ...")
        self._processes.wait(self._client.polled, within=START_WITHIN, what="the workers' start")
        click.echo(f"Ready after {time.monotonic() - began:.1f} s.\n")

    def _follow(self) -> list[Progress]:
        """Until every job is over or where it should be, or none came any further for long."""
        ids = [self._client.submit(one) for one in self._planned]
        best, until = -1, 0.0
        while True:
            asked = time.monotonic()
            seen = self._look(ids)
            self._screen.show(seen)
            reached = sum(one.step + one.settled for one in seen)
            if reached > best:
                best, until = reached, time.monotonic() + self._patience
            if all(one.settled for one in seen) or time.monotonic() > until:
                return seen
            time.sleep(max(0.1, 3 * (time.monotonic() - asked)))  # many jobs: a look is not free

    def _look(self, ids: Sequence[str]) -> list[Progress]:
        self._check()
        jobs = self._client.jobs()
        return [
            progress(one, id_, jobs, carried=self._carried(one, id_, jobs))
            for one, id_ in zip(self._planned, ids, strict=True)
        ]

    def _carried(self, planned: Planned, job_id: str, jobs: Mapping[str, Shown]) -> bool:
        """Asked once, when the job is over: until then it may still be on its way."""
        if planned.carries is None or jobs[job_id]["status"] not in OVER:
            return True
        if job_id not in self._arrived:
            self._arrived[job_id] = self._client.carried(job_id)
        return self._arrived[job_id]

    def _check(self) -> None:
        """A Redis of the demo's own may be killed: it is started again, with what it held."""
        self._processes.check()
        server = self._store.server
        if server is not None and not server.alive:
            server.start()
            self._screen.say("Redis was gone; it is started again on its port, with what it held.")

    def _report(
        self, seen: Sequence[Progress], seconds: float, *, stay: bool, as_json: bool
    ) -> None:
        summary(seen)
        counts = count(seen)
        ends = ", ".join(f"{counts[end]} {end}" for end in ("succeeded", "failed", "waiting"))
        click.echo(f"{counts['jobs']} jobs in {seconds:.1f} s: {ends}")
        self._processes.wait(
            lambda: answers(self._flower, "/healthcheck"),
            within=FLOWER_WITHIN,
            what="Flower's start",
        )
        if stay:
            url = f"http://{self._flower}"
            click.echo(f"Flower:  {url}, the jobs: {url}/jobs")
            click.echo(f"Redis:   {self._store}\nLogs:    {self._folder}")
            click.echo(self._invitation())
            click.echo("Everything stays up until Ctrl-C.")
        if as_json:
            click.echo(
                json.dumps({**counts, "seconds": round(seconds, 3), "redis": self._store.name})
            )

    def _invitation(self) -> str:
        return terminal.invite(self._folder, self._place, self._env, os.environ, self._tokens)

    def _stay(self) -> None:
        try:
            while True:
                self._check()
                time.sleep(0.5)
        except StoppedError:
            return  # as it should
