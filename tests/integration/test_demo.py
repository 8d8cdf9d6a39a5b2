"""The demo as a user runs it: what it says, how it exits, and that no process outlives it."""

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from redis import Redis

from dispatcher.redis_server import RedisServer
from tests.harness import BIN, eventually

ROOT = Path(__file__).parent.parent.parent
MARK = "DEMO_TEST_MARK"
COMMAND = [str(BIN / "dispatcher"), "demo"]
UNHEARD = """
import sys
from datetime import timedelta
from dispatcher.demo.course import follow
from dispatcher.demo.scenario import ECHO, Planned, scenario
jobs = [*scenario(2), Planned("unheard", ECHO, {"Message": "x"}, "nobody")]
sys.exit(follow(jobs, stay=False, as_json=True, patience=timedelta(seconds=4)))
"""
CHAINS_REST = 5  # lines of the first steps' ends: no job runs until the continuation delay is over


class Demo:
    """One run. Its processes inherit a mark and share a group, by which they are found.

    Both, since a Redis server writes its title over its environment.
    """

    def __init__(self, folder: Path, command: list[str], place: Path, **settings: str) -> None:
        self.mark = uuid.uuid4().hex
        self.temporary = folder / self.mark
        self.temporary.mkdir()
        self._groups: set[int] = set()
        self._out, self._err = folder / f"{self.mark}.out", folder / f"{self.mark}.err"
        env = {**os.environ, MARK: self.mark, "TMPDIR": str(self.temporary), **settings}
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.popen = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=place, env=env
            )

    @property
    def output(self) -> str:
        return self._out.read_text()

    @property
    def errors(self) -> str:
        return self._err.read_text()

    def says(self, text: str, times: int = 1) -> None:
        eventually(lambda: self.output.count(text) >= times, f"{text!r} in {self._out}", within=40)
        self._look()

    def wait(self) -> int:
        until = time.monotonic() + 60
        while self.popen.poll() is None and time.monotonic() < until:
            self._look()
            time.sleep(0.05)
        return self.popen.wait(0)

    def counts(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.output.splitlines()[-1])
        return found

    def processes(self) -> list[psutil.Process]:
        """All of it, the demo's own included."""
        return [one for one in psutil.process_iter() if self._mine(one)]

    def find(self, words: str) -> psutil.Process:
        return next(one for one in self.processes() if words in " ".join(one.cmdline()))

    def _look(self) -> None:
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            for child in psutil.Process(self.popen.pid).children():
                self._groups.add(os.getpgid(child.pid))
            self._groups.discard(os.getpgid(0))  # a child's, before it joins its own

    def kept(self) -> list[str]:
        return [one.name for one in self.temporary.iterdir()]

    def _mine(self, one: psutil.Process) -> bool:
        try:
            return os.getpgid(one.pid) in self._groups or one.environ().get(MARK) == self.mark
        except (psutil.Error, ProcessLookupError):
            return False


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    demos: list[Demo] = []

    def start(*options: str, command: list[str] | None = None, **settings: str) -> Demo:
        place = Path(settings.pop("place", ROOT))
        demos.append(Demo(tmp_path, [*(command or COMMAND), *options], place, **settings))
        return demos[-1]

    yield start
    for demo in demos:
        demo.popen.kill()
        demo.popen.wait()


def test_twenty_jobs_end_as_they_should_and_nothing_is_left(start: Callable[..., Demo]) -> None:
    demo = start("--exit", "--json")

    status = demo.wait()

    assert status == 0, demo.output + demo.errors
    counts = demo.counts()
    assert (counts["jobs"], counts["succeeded"], counts["failed"], counts["waiting"]) == (
        20, 17, 2, 1,
    )  # fmt: skip
    assert list(counts) == ["jobs", "succeeded", "failed", "waiting", "seconds", "redis"]
    assert isinstance(counts["redis"], str)
    assert 4 < float(str(counts["seconds"])) < 30
    assert "JobFailed: It was told to fail." in demo.output
    assert "ConfigurationError: " in demo.output
    assert demo.processes() == []
    assert demo.kept() == []


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGTERM, "Starting"),
        (signal.SIGTERM, "InProgress"),
        (signal.SIGINT, "InProgress"),
        (signal.SIGHUP, "Starting"),
    ],
)
def test_a_signal_leaves_no_process(
    start: Callable[..., Demo], number: signal.Signals, moment: str
) -> None:
    demo = start("--exit")
    demo.says(moment)

    demo.popen.send_signal(number)

    assert demo.wait() == 128 + number
    assert demo.processes() == []
    assert demo.kept() == []


def test_a_second_signal_does_not_interrupt_the_way_out(start: Callable[..., Demo]) -> None:
    demo = start("--exit")
    demo.says("Ready")

    demo.popen.send_signal(signal.SIGINT)
    demo.popen.send_signal(signal.SIGINT)

    assert demo.wait() == 128 + signal.SIGINT
    assert demo.processes() == []


def test_a_killed_demo_leaves_no_process_and_starts_again(start: Callable[..., Demo]) -> None:
    demo = start("--exit")
    demo.says("Ready")

    demo.popen.kill()
    demo.wait()

    eventually(lambda: not demo.processes(), "no process is left", within=5)
    again = start("--jobs", "1", "--exit", "--json")
    assert again.wait() == 0
    assert again.counts()["succeeded"] == 1


def test_a_job_that_never_ends_is_named_and_makes_it_exit_1(start: Callable[..., Demo]) -> None:
    demo = start(command=[sys.executable, "-c", UNHEARD])

    assert demo.wait() == 1
    assert (demo.counts()["succeeded"], demo.counts()["waiting"]) == (2, 1)
    assert "NOT AS IT SHOULD: it should have succeeded, and nobody began it" in demo.output
    assert str(demo.temporary) in demo.errors  # where the logs are
    assert len(demo.kept()) == 1
    assert demo.processes() == []


def test_a_child_that_dies_early_ends_it_with_its_last_words(start: Callable[..., Demo]) -> None:
    demo = start("--exit")
    demo.says("Created, step 2")

    demo.find("-n providers@").kill()

    assert demo.wait() == 1
    assert re.search(r"worker-providers ended early, with status -9.*\n    \{", demo.errors)
    assert demo.processes() == []


def test_a_redis_of_its_own_may_be_killed(start: Callable[..., Demo]) -> None:
    demo = start("--exit", "--json")
    demo.says("Created, step 2", CHAINS_REST)

    demo.find("127.0.0.1:").kill()  # how a Redis server names itself

    assert demo.wait() == 0, demo.output + demo.errors
    assert "Redis was gone; it is started again" in demo.output
    assert demo.counts()["succeeded"] == 17


def test_a_given_redis_lends_an_empty_database_and_gets_it_back_empty(
    start: Callable[..., Demo], redis: Redis, redis_server: RedisServer
) -> None:
    redis.set("dispatcher:job:foreign", "untouched")

    demo = start("--jobs", "3", "--exit", "--json", DISPATCHER_REDIS_URL=redis_server.url)
    status = demo.wait()

    assert status == 0, demo.output + demo.errors
    assert demo.counts()["redis"] == "DISPATCHER_REDIS_URL, database 15"
    assert redis.info("keyspace").keys() == {"db0"}
    assert redis.keys() == ["dispatcher:job:foreign"]


def test_a_database_that_a_killed_demo_left_is_taken_again(
    start: Callable[..., Demo], redis: Redis, redis_server: RedisServer
) -> None:
    killed = start("--exit", DISPATCHER_REDIS_URL=redis_server.url)
    killed.says("Ready")
    killed.popen.kill()
    killed.wait()
    eventually(lambda: not killed.processes(), "no process is left", within=5)
    assert redis.dbsize() > 0

    demo = start("--jobs", "1", "--exit", "--json", DISPATCHER_REDIS_URL=redis_server.url)

    assert demo.wait() == 0
    assert demo.counts()["redis"] == "DISPATCHER_REDIS_URL, database 0"
    assert redis.dbsize() == 0


def test_a_given_redis_that_does_not_answer_is_one_sentence(start: Callable[..., Demo]) -> None:
    demo = start("--exit", DISPATCHER_REDIS_URL="redis://:secret@127.0.0.1:1/0")

    assert demo.wait() == 1
    assert demo.errors.startswith("demo: DISPATCHER_REDIS_URL: no Redis answers there")
    assert demo.errors.count("\n") == 1
    assert "secret" not in demo.errors
    assert demo.kept() == []


def test_without_the_checkouts_workers_it_says_what_it_needs(
    start: Callable[..., Demo], tmp_path: Path
) -> None:
    place = tmp_path / "elsewhere"
    place.mkdir()
    (place / "dispatcher").symlink_to(ROOT / "dispatcher")
    code = "from dispatcher.cli import main; main()"

    demo = start("demo", "--exit", command=[sys.executable, "-c", code], place=str(place))

    assert demo.wait() == 1
    assert "Echo and Countdown" in demo.errors
    assert "run it in a checkout" in demo.errors
    assert demo.errors.count("\n") == 1


def test_on_a_terminal_it_draws_a_table_and_stays_until_ctrl_c(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    env = {**os.environ, "TMPDIR": str(tmp_path), "COLUMNS": "100", "LINES": "30"}
    with subprocess.Popen(
        [*COMMAND, "--jobs", "1"], stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, env=env
    ) as demo:
        os.close(theirs)
        said = ""
        while "until Ctrl-C" not in said:
            said += os.read(ours, 4096).decode()
        flower = re.search(r"Flower: +(http://127\.0\.0\.1:\d+)", said)
        assert flower is not None
        with urllib.request.urlopen(f"{flower[1]}/workers") as page:  # noqa: S310 - our own
            assert page.status == 200

        demo.send_signal(signal.SIGINT)

        assert demo.wait(20) == 0
    os.close(ours)
    assert "\x1b[2A" in said  # a row and its head, drawn over
