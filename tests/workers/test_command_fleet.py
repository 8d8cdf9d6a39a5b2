"""The provider behind the engine: artifacts in an emulated S3, real workers that are stopped."""

import json
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals

import psutil
import pytest
from redis import Redis

from dispatcher.redis_server import RedisServer
from dispatcher.rehearsal import Rehearsal
from tests.harness import Fleet, eventually, fleet
from workers.command import command

ROOT = Path(__file__).parents[2]


def test_a_pipeline_gets_its_artifacts_and_variables_of_a_command(
    rehearse: Rehearsal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = 'tr a-z A-Z <in >out; echo "Size=$(wc -c <out)" >>"$CODEPIPELINE_VARIABLES_FILE"'
    run = f"run = {json.dumps(['/bin/sh', '-c', script])}"
    (tmp_path / "commands.toml").write_text(f'[commands.upper]\n{run}\noutputs = ["out"]')
    monkeypatch.setenv("COMMAND_FILE", str(tmp_path / "commands.toml"))

    done = rehearse(
        command, {"Command": "upper"}, inputs={"App": {"in": "hello"}}, outputs=["Out", "Log"]
    )

    assert done.succeeded, done.failure
    assert done.outputs == {"Out": b"HELLO", "Log": b""}
    assert done.variables == {"Size": "5"}


def submitted(fleet: Fleet) -> str:
    body = {
        "actionTypeId": {
            "category": "Build",
            "owner": "Custom",
            "provider": "Command",
            "version": "1",
        },
        "configuration": {"Command": "long"},
    }
    return str(fleet.aws.ask("/_admin/jobs", body)["jobIds"][0])


@pytest.mark.parametrize(
    ("pool", "number", "told"),
    [
        ("threads", SIGTERM, "The worker was stopped while the command long ran"),
        ("prefork", SIGKILL, "The worker that ran the job died"),
    ],
)
def test_a_worker_that_is_stopped_or_killed_ends_its_command_and_the_pipeline_learns_of_it(
    redis_server: RedisServer, redis: Redis, tmp_path: Path, pool: str, number: Signals, told: str
) -> None:
    pids = tmp_path / "pids"
    run = json.dumps(["/bin/sh", "-c", f"sleep 300 & echo $! > {pids}; wait"])
    (tmp_path / "commands.toml").write_text(f"[commands.long]\nrun = {run}\ngrace = 0.2")
    settings = {
        "PYTHONPATH": str(ROOT),
        "DISPATCHER_PROVIDERS": "workers.command",
        "COMMAND_FILE": str(tmp_path / "commands.toml"),
        "DISPATCHER_SHUTDOWN_GRACE": "8",
    }
    with fleet(redis_server.url, tmp_path, **settings) as made:
        made.start_emulator()
        made.start_beat()
        worker = made.start_worker(pool, slots=2)
        job_id = submitted(made)
        eventually(lambda: pids.exists() and pids.read_text().endswith("\n"), "the command runs")
        pid = int(pids.read_text())

        worker.signal(number)

        eventually(lambda: not psutil.pid_exists(pid), "the end of the command")
        if number is SIGKILL:
            made.start_worker(pool, slots=2, name="heir")
        failure = made.ended(job_id)["result"]["request"]["failureDetails"]

    assert failure["type"] == "SystemUnavailable"
    assert failure["message"].startswith(told)
