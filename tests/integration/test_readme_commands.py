"""The README's commands, typed as they stand: only addresses and secrets are this test's own."""

import os
import re
import shlex
import signal
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from dispatcher.redis_server import RedisServer, free_port
from tests.harness import BIN, NEEDS_CURL, eventually, fleet

README = (Path(__file__).parents[2] / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
ELSEWHERE = (  # run by .ci/run, by the demo's tests, or parsed with the compose file
    "python3 -m venv .venv && .venv/bin/pip install -q -e '.[demo]' && .venv/bin/dispatcher demo",
    "python3 -m venv .venv && .venv/bin/pip install -q -e '.[dev]' && .venv/bin/pytest",
    "pip install codepipeline-dispatcher",
    "FLOWER_PASSWORD=choose-one docker compose up --build --scale echo-worker=3",
)
ACME = """
class Run:
    id, failed, done, percent, reason = "run-1", False, True, 100, ""

class Client:
    def __init__(self, key): assert key == "k"
    def start(self, app, idempotency_key): return Run()
    def status(self, run): return Run()
"""


def block(word: str) -> str:
    [found] = [one for one in BLOCKS if word in one]
    return str(found)


def commands(text: str) -> list[str]:
    """Whole lines without their comments, what sets a variable left out."""
    lines = [line.partition("  #")[0].strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("export ")]


TRY = block("dispatcher emulator --port")
REAL = block("dispatcher check")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """With the README's provider in it."""
    module = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    (tmp_path / "acme_providers.py").write_text(module)
    (tmp_path / "acme.py").write_text(ACME)
    return tmp_path


@NEEDS_CURL
def test_the_provider_is_tried_against_the_emulator(
    redis: Redis, redis_server: RedisServer, place: Path
) -> None:
    typed, _, elsewhere = TRY.replace("8765", str(free_port())).rstrip().rpartition("\n")
    assert elsewhere.startswith("curl ")
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    env = {"PATH": path, "DISPATCHER_REDIS_URL": redis_server.url, "C_FORCE_ROOT": "1"}

    def ended() -> bool:
        """Its first job: what follows its Continue comes after half a minute."""
        asked = subprocess.run(["sh", "-c", elsewhere], env=env, capture_output=True, check=False)
        return b'"Succeeded"' in asked.stdout

    with started(typed, place, env) as log:
        eventually(ended, f"the job is done; {log.read_text()}", within=60)


@contextmanager
def started(script: str, place: Path, env: Mapping[str, str]) -> Iterator[Path]:
    """In a shell, whose output is in the file; all that it started is gone in the end."""
    log = place / "log"
    with log.open("wb") as out:
        shell = subprocess.Popen(
            ["sh", "-ec", script],
            cwd=place,
            env=env,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        yield log
    finally:
        os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()


def test_what_runs_for_real_works_as_it_is_typed(
    redis: Redis, redis_server: RedisServer, place: Path
) -> None:
    told = dict(re.findall(r"^export (\w+)=(\S+)", REAL, re.MULTILINE))
    own = {"DISPATCHER_REDIS_URL", "DISPATCHER_CLIENT_TOKENS"}
    given = {name: value for name, value in told.items() if name not in own}
    port = str(free_port())
    typed = [line for line in commands(REAL) if line not in ELSEWHERE]

    with fleet(redis_server.url, place, **given, PYTHONPATH=str(place), FLOWER_PORT=port) as made:
        made.start_emulator("--continuation-delay", "0.3")
        made.aws.define("AcmeDeploy", category="Deploy", owner="ThirdParty")
        check, *others = [shlex.split(line) for line in typed]
        checked = made.start("check", *check)
        assert checked.wait() == 0, checked.output
        for number, line in enumerate(others):
            made.start(f"line{number}", *line)

        body = {"App": "shop", "ApiKey": "k"}
        whose: Any = {
            "client_id": "client",
            "client_token": "token-of-client",
            "owner": "ThirdParty",
        }
        job = made.aws.submit("AcmeDeploy", body, category="Deploy", **whose)
        assert made.aws.wait_for(job, timeout=60).status == "Succeeded"
        eventually(lambda: job in answer(f"http://127.0.0.1:{port}/jobs"), "Flower shows it")
        healthy = [made.start("health", *line) for line in health()]
        assert [one.wait() for one in healthy] == [0, 0], [one.output for one in healthy]


def health() -> Sequence[list[str]]:
    return [shlex.split(line) for line in re.findall(r"`(dispatcher health [^`]+)`", README)]


def answer(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=5) as page:  # noqa: S310 - our own
            return str(page.read().decode())
    except OSError:
        return ""


def test_no_command_stands_there_that_no_test_runs() -> None:
    found = {line for one in BLOCKS for line in commands(one)}

    assert found - {*commands(TRY), *commands(REAL)} <= set(ELSEWHERE)
    assert set(ELSEWHERE) <= found
