"""One fleet before the judge: work for it, what is done to it, and whether all came well.

Redis is behind a relay, a worker serves polls and recovery, another the handlers. Everything is
what users run; faults come from outside."""

import os
import shutil
import signal
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import psutil

from dispatcher.redis_server import RedisServer
from tests.faults.judge import (
    History,
    Span,
    Terms,
    Violation,
    effective,
    judge,
    read_effects,
    unsettled,
)
from tests.faults.relay import Relay
from tests.harness import QUICK, TOKENS, Fleet, Process, eventually

FAIL, RERUN = "Probe", "Rerun"
OWNERS = {FAIL: "ThirdParty", RERUN: "Custom"}
PAUSE = 0.2  # of the Retries that a probe asks for
WORK = ["ok"] * 3 + ["work"] * 5 + ["continue", "retry"]
SETTLES_WITHIN = 120.0


def type_of(provider: str) -> dict[str, str]:
    return {
        "category": "Test", "owner": OWNERS[provider], "provider": provider, "version": "1"
    }  # fmt: skip


class Clocks:
    """The wall clocks of Redis and of the workers, which a preloaded library sets.

    What has passed they measure by a clock that nobody sets."""

    COMPILER = shutil.which("cc")

    def __init__(self, folder: Path, *, used: bool) -> None:
        self._folder = folder
        self._library = folder / "clock.so" if used else None
        if self._library is not None and self.COMPILER is not None:
            source = Path(__file__).with_name("clock.c")
            subprocess.run(
                [self.COMPILER, "-shared", "-fPIC", "-O2", "-o", self._library, source], check=True
            )

    def env(self, whose: str) -> dict[str, str]:
        """What a process with this clock has in its environment beside the rest."""
        if self._library is None:
            return {}
        clock = self._folder / f"clock-{whose}"
        clock.write_bytes(struct.pack("i", 0))
        return {"LD_PRELOAD": str(self._library), "CLOCK_FILE": str(clock)}

    def set(self, whose: str, ahead: int) -> None:
        """Of "redis" or "workers": seconds ahead of the true time. In one step."""
        with (self._folder / f"clock-{whose}").open("r+b") as clock:
            clock.write(struct.pack("i", ahead))


class Stage:
    def __init__(
        self,
        folder: Path,
        seed: int,
        pool: str,
        slots: int,
        clocks: bool,
        settings: Mapping[str, str],
    ) -> None:
        self.seed, self.random = seed, Random(seed)
        self.pool, self.slots = pool, slots
        self.clocks = Clocks(folder, used=clocks)
        env = {**os.environ, **self.clocks.env("redis")}
        self.redis = RedisServer(folder, durable=True, env=env)
        self.relay: Relay
        self.fleet: Fleet
        self.folder, self.settings = folder, settings
        self.polls: Process
        self.worker: Process
        self.deaths: dict[int, float] = {}
        self.outside: list[Span] = []
        self.frozen: dict[int, list[Span]] = {}
        self.cut_off: dict[int, list[Span]] = {}
        self.retries: dict[str, list[float]] = {}
        self.struck: Counter[str] = Counter()  # of faults that the emulator's log does not show
        self.more: dict[str, Any] = {}  # of the judge's terms
        self.recovery: list[float] = []  # seconds

    def open(self, emulator: tuple[str, ...] = ()) -> None:
        self.fleet = Fleet(self.relay.url, self.folder, self.settings)
        window = self.fleet.env["DISPATCHER_ACK_WINDOW"]
        self.fleet.start_emulator(
            "--ack-window", window, "--continuation-delay", "0.2", "--batch-cap", "10", *emulator
        )
        for provider in OWNERS:  # a type that is polled before it is there rests for long
            self.fleet.aws.ask("/_admin/action-types", {"actionTypeId": type_of(provider)})
        self.fleet.env.update(self.clocks.env("workers"))
        self.fleet.start_beat()
        self.polls = self.start_polls()
        self.worker = self.start_worker()

    def start_polls(self, name: str = "polls") -> Process:
        return self.fleet.start_worker("threads", slots=2, queues="dispatcher", name=name)

    def start_worker(self, name: str = "w", pool: str | None = None) -> Process:
        queues = ",".join(f"provider.{provider}" for provider in OWNERS)
        return self.fleet.start_worker(pool or self.pool, self.slots, queues, name)

    def seconds(self, setting: str) -> float:
        return float(self.fleet.env[f"DISPATCHER_{setting}"])

    # Work

    def submit(self, do: str = "ok", provider: str = FAIL, **configuration: str) -> str:
        (job,) = self.fleet.submit(
            provider, owner=OWNERS[provider], configuration={"Do": do, **configuration}
        )
        if do == "retry":
            self.retries[job] = [PAUSE, PAUSE]
        return job

    def carry(self, provider: str) -> str:
        """A job with artifacts."""
        client = {"client_id": "client", "client_token": TOKENS["client"]}
        return self.fleet.aws.submit(
            provider,
            {"Do": "carry"},
            owner="ThirdParty" if OWNERS[provider] == "ThirdParty" else "Custom",
            inputs={"In": self.random.randbytes(2000)},
            outputs=["Out"],
            **client,
        )

    def load(self, count: int, without: str = "") -> list[str]:
        """Jobs of both kinds and of all sorts, some short and some not."""
        draw = self.random
        sorts = [do for do in WORK if do != without]
        return [
            self.submit(
                draw.choice(sorts),
                draw.choice(list(OWNERS)),
                Seconds=f"{draw.uniform(0.01, 1):.3f}",
            )
            for _ in range(count)
        ]

    def in_flight(self, jobs: list[str], share: float) -> None:
        """Waits until so much of the work has begun."""
        wanted = max(int(len(jobs) * share), 1)
        eventually(
            lambda: len({line["job"] for line in self.effects()} & set(jobs)) >= wanted,
            f"{wanted} of {len(jobs)} jobs begun",
            60,
        )

    def effects(self) -> list[dict[str, Any]]:
        return read_effects(self.fleet.effects_file)

    # What is done to it

    def kill(self, pid: int, what: str) -> None:
        """One process, right now."""
        self.deaths[pid] = time.time()
        with suppress(ProcessLookupError):
            psutil.Process(pid).kill()
        self.note(what)

    def kill_all(self, processes: list[Process], what: str) -> None:
        """With all their children, as a machine that is lost."""
        now = time.time()
        for process in processes:
            for one in [*process.children(), psutil.Process(process.popen.pid)]:
                self.deaths[one.pid] = now
        for process in processes:
            process.end()
        self.note(what)

    def died_at_its_point(self, pid: int) -> None:
        """What was held could not go on: from its last word it was as good as dead."""
        said = [line["at"] for line in self.effects() if line["pid"] == pid]
        if pid in self.deaths and said:
            self.deaths[pid] = min(self.deaths[pid], max(said))

    def note(self, what: str, since: float | None = None) -> None:
        """A fault that took effect just now, or until now."""
        now = time.time()
        self.outside.append((since or now, now))
        self.struck[what] += 1

    @contextmanager
    def lasting(self, what: str) -> Iterator[None]:
        since = time.time()
        self.outside.append((since, since + 3600))
        self.struck[what] += 1
        try:
            yield
        finally:
            self.outside[-1] = (since, time.time())

    @contextmanager
    def asleep(self, process: Process, what: str) -> Iterator[None]:
        """Stopped with its children, and woken."""
        since = time.time()
        everyone = [psutil.Process(process.popen.pid), *process.children()]
        for one in everyone:
            one.suspend()
        with self.lasting(what):
            yield
        for one in everyone:
            one.resume()
            self.frozen.setdefault(one.pid, []).append((since, time.time()))

    @contextmanager
    def redis_asleep(self, what: str) -> Iterator[None]:
        assert self.redis.process is not None
        since = time.time()
        self.redis.process.send_signal(signal.SIGSTOP)
        with self.lasting(what):
            yield
        self.redis.process.send_signal(signal.SIGCONT)
        self.everybody_cut_off(since)

    def everybody_cut_off(self, since: float) -> None:
        """From Redis, until now."""
        for process in self.alive():
            for one in [psutil.Process(process.popen.pid), *process.children()]:
                self.cut_off.setdefault(one.pid, []).append((since, time.time()))

    def alive(self) -> list[Process]:
        return [process for process in self.fleet.processes if process.popen.poll() is None]

    # What the judge says

    def terms(self) -> Terms:
        given = {**QUICK, **self.settings}
        return Terms(
            fail=[FAIL, "Short"],
            rerun=[RERUN],
            ack_window=float(given["DISPATCHER_ACK_WINDOW"]),
            poll_interval=float(given["DISPATCHER_POLL_INTERVAL_MAX"]),
            lease=float(given["DISPATCHER_LEASE"]),
            read_at=time.time(),
            outside=self.outside,
            deaths=self.deaths,
            frozen=self.frozen,
            cut_off=self.cut_off,
            retries=self.retries,
            time_limits={"Short": 1.0},
            **self.more,
        )

    def history(self) -> History:
        """In this order each part shows the causes of the one before."""
        effects = self.effects()
        jobs = self.fleet.aws.ask("/_admin/jobs")
        log = self.fleet.log()
        return History(effects, jobs, log, self.fleet.aws.ask("/_admin/s3"))

    def violations(self, within: float = SETTLES_WITHIN) -> list[Violation]:
        """Once nothing more is to come, or too late."""

        def settled() -> bool:
            terms = self.terms()
            return not unsettled(self.history(), terms)

        with suppress(AssertionError):
            eventually(settled, "all jobs have ended", within, every=0.2)
        terms = self.terms()
        history = self.history()
        found = judge(history, terms)
        late = [
            Violation("I2", job, f"had no end {within:.0f} s after the last fault")
            for job in unsettled(history, terms)
        ]
        return found + late

    def faults(self) -> Counter[str]:
        """That took effect."""
        log = self.fleet.log() + self.fleet.aws.ask("/_admin/s3")
        return effective(log) + self.struck


Run = Callable[[Stage], None]  # what a row does on its stage


@contextmanager
def staged(
    folder: Path,
    seed: int,
    *,
    pool: str = "threads",
    slots: int = 4,
    clocks: bool = False,
    emulator: tuple[str, ...] = (),
    **settings: str,
) -> Iterator[Stage]:
    """Running, and gone afterwards."""
    stage = Stage(folder, seed, pool, slots, clocks, settings)
    with stage.redis, Relay(stage.redis.port) as stage.relay:
        try:
            stage.open(emulator)
            yield stage
        finally:
            stage.fleet.end()
