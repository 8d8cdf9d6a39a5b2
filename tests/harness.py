"""A fleet of real processes for tests: emulator, beat, workers, and waiting for what they do."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from dispatcher.emulator.client import Emulator

T = TypeVar("T")

BIN = Path(sys.executable).parent
PROBES = Path(__file__).parent / "probes"
TOKENS = {"client": "token-of-client", "tenant": "token-of-tenant"}
AWS = {  # of nobody: tests reach the emulator alone
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "eu-west-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
QUICK = {
    "DISPATCHER_POLL_INTERVAL": "0.1",
    "DISPATCHER_POLL_INTERVAL_MAX": "0.2",
    "DISPATCHER_ACK_WINDOW": "3",
    "DISPATCHER_LEASE": "4",
    "DISPATCHER_SWEEP_INTERVAL": "0.5",
    "DISPATCHER_SHUTDOWN_GRACE": "2",
}
NEEDS_CURL = pytest.mark.skipif(
    shutil.which("curl") is None and "CI" not in os.environ,
    reason="no curl here, as people type it",
)
FINAL = {"Succeeded", "Failed", "TimedOut"}


def eventually(
    find: Callable[[], T | None], what: str, within: float = 30, every: float = 0.02
) -> T:
    """The first true answer of `find`, looked for until `within` seconds are over."""
    until = time.monotonic() + within
    while True:
        if found := find():
            return found
        if time.monotonic() > until:
            raise AssertionError(f"not within {within} s: {what}")
        time.sleep(every)


class Unwatched:
    """Of transfers: they go on."""

    def going_on(self) -> bool:
        return True

    def moved(self, direction: str, name: str, done: int, of: int) -> bool:
        return True

    def ended(self, direction: str, name: str, size: int | None) -> None:
        return


class Process:
    """One process of the fleet, in a session of its own, its output in a file."""

    def __init__(self, command: list[str], env: Mapping[str, str], log: Path) -> None:
        self.log = log
        with log.open("wb") as out:
            self.popen = subprocess.Popen(
                command, env=dict(env), stdout=out, stderr=out, cwd=PROBES, start_new_session=True
            )

    @property
    def output(self) -> str:
        return self.log.read_text()

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.popen.pid).children(recursive=True)

    def signal(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def wait(self, within: float = 20) -> int:
        return self.popen.wait(within)

    def end(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()


class Fleet:
    """Everything of one test: what it started is gone after it."""

    def __init__(self, redis_url: str, folder: Path, settings: Mapping[str, str]) -> None:
        self.folder = folder
        self.effects_file = folder / "effects"
        self.effects_file.touch()
        self.processes: list[Process] = []
        self.redis_url = redis_url
        self.emulator = ""
        self.aws = Emulator("")  # until one is started
        tokens = folder / "tokens.json"
        tokens.write_text(json.dumps(TOKENS))
        self.env = {
            **os.environ,
            **AWS,
            **QUICK,
            "DISPATCHER_REDIS_URL": redis_url,
            "DISPATCHER_PROVIDERS": "probes",
            "DISPATCHER_CLIENT_TOKENS": f"file://{tokens}",
            "PROBE_FOLDER": str(folder),
            "PROBE_EPOCH": str(time.time() - time.monotonic()),
            "C_FORCE_ROOT": "1",
            "XDG_STATE_HOME": str(folder / "state"),  # Flower's memory, else in the user's home
            **settings,
        }

    def start(self, name: str, *command: str) -> Process:
        log = self.folder / f"{name}-{len(self.processes)}.log"
        process = Process([str(BIN / command[0]), *command[1:]], self.env, log)
        self.processes.append(process)
        return process

    def start_emulator(self, *flags: str) -> Process:
        process = self.start("emulator", "dispatcher", "emulator", "--port", "0", *flags)
        line = eventually(lambda: process.output.partition("\n")[0], "the emulator listens")
        self.emulator = line.split()[-1]
        self.aws = Emulator(self.emulator)
        for service in ("CODEPIPELINE", "S3"):
            self.env[f"AWS_ENDPOINT_URL_{service}"] = self.emulator
        return process

    def start_beat(self) -> Process:
        return self.start("beat", "celery", "-A", "dispatcher", "beat")

    def start_worker(
        self, pool: str, slots: int = 4, queues: str | None = None, name: str = "w"
    ) -> Process:
        options = ["-P", pool, "-c", str(slots), "-n", f"{name}@test", "-l", "INFO"]
        chosen = ["-Q", queues] if queues else []
        worker = self.start(name, "celery", "-A", "dispatcher", "worker", *options, *chosen)
        eventually(
            lambda: " ready." in worker.output or worker.popen.poll() is not None,
            f"{name} is ready",
        )
        assert worker.popen.poll() is None, worker.output
        return worker

    def python(self, code: str, *arguments: str) -> str:
        """Run as one of the fleet's processes would be."""
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=self.env,
            cwd=PROBES,
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    def submit(self, provider: str = "Probe", **given: Any) -> list[str]:
        owner = given.pop("owner", "ThirdParty")
        body = {
            "actionTypeId": {
                "category": "Test",
                "owner": owner,
                "provider": provider,
                "version": "1",
            },
            "configuration": given.pop("configuration", {"Do": "ok"}),
            "count": given.pop("count", 1),
        }
        if owner == "ThirdParty":
            body["clientId"] = given.pop("client", "client")
            body["clientToken"] = given.pop("token", TOKENS.get(body["clientId"], "unknown"))
        return list(self.aws.ask("/_admin/jobs", body)["jobIds"])

    def job(self, job_id: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = self.aws.ask(f"/_admin/jobs?id={job_id}")
        return found[0]

    def log(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.aws.ask("/_admin/log")
        return found

    def calls(self, job_id: str, operation: str = "") -> list[dict[str, Any]]:
        return [
            call
            for call in self.log()
            if call["jobId"] == job_id and call["operation"].startswith(operation)
        ]

    def ended(self, job_id: str, within: float = 30) -> dict[str, Any]:
        def find() -> dict[str, Any] | None:
            job = self.job(job_id)
            return job if job["status"] in FINAL else None

        try:
            return eventually(find, f"{job_id} has ended", within)
        except AssertionError as error:
            logs = "\n".join(p.log.name + "\n" + p.output[-3000:] for p in self.processes)
            raise AssertionError(f"{error}; {self.job(job_id)}\n{logs}") from None

    def effects(self, job_id: str, event: str = "start") -> list[dict[str, Any]]:
        """What handlers of this job noted, in order."""
        lines = [json.loads(line) for line in self.effects_file.read_text().splitlines()]
        return [line for line in lines if line["job"] == job_id and line["event"] == event]

    def started(self, job_id: str, times: int = 1) -> dict[str, Any]:
        def find() -> list[dict[str, Any]] | None:
            found = self.effects(job_id)
            return found if len(found) >= times else None

        return eventually(find, f"{job_id} started {times} times")[-1]

    def release(self, job_id: str) -> None:
        """Lets a handler that holds go on."""
        (self.folder / f"go-{job_id}").touch()

    def end(self) -> None:
        for process in reversed(self.processes):
            process.end()


@contextmanager
def fleet(redis_url: str, folder: Path, **settings: str) -> Iterator[Fleet]:
    made = Fleet(redis_url, folder, settings)
    try:
        yield made
    finally:
        made.end()
