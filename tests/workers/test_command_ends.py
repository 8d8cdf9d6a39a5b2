"""Nothing of a command outlives its job: not when it ends well, nor when its worker is killed."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from dispatcher.sdk import JobFailed
from dispatcher.testing import MadeJob, make_job
from tests.harness import eventually
from workers.command import Config, command
from workers.command.allowed import Allowed
from workers.command.process import gated, released

ROOT = Path(__file__).parents[2]
WORKER = """
from dispatcher.testing import make_job
from workers.command import Config, command

command(make_job(Config("build")))
"""
SPAWN = {
    "in the background": "sleep 300 & echo $! >> {pids};",
    "deaf to TERM": "(trap '' TERM; while :; do sleep 300; done) & echo $! >> {pids};",
    "without its environment": "env -i sleep 300 & echo $! >> {pids};",
    "in a session of its own": "setsid sh -c 'echo $$ >> {pids}; exec sleep 300' & ",
    "as a daemon": "setsid sh -c 'sleep 300 >/dev/null 2>&1 </dev/null & echo $! >> {pids}';",
}


@pytest.fixture
def pids(tmp_path: Path) -> Iterator[Path]:
    """Where commands write the numbers of their processes; whoever is left is ended."""
    file = tmp_path / "pids"
    file.touch()
    yield file
    for process in alive(file):
        process.kill()


def alive(pids: Path) -> list[psutil.Process]:
    numbers = [int(line) for line in pids.read_text().split()]
    return [
        process
        for number in numbers
        if psutil.pid_exists(number)
        and (process := psutil.Process(number)).status() != psutil.STATUS_ZOMBIE
    ]


def ignores_term(pid: int) -> bool:
    ignored = re.findall(r"SigIgn:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(int(ignored[0], 16) & 1 << signal.SIGTERM - 1)


def allowed(folder: Path, script: str, *lines: str) -> str:
    file = folder / "commands.toml"
    run = json.dumps(["/bin/sh", "-c", script])
    file.write_text("\n".join(["[commands.build]", f"run = {run}", *lines]))
    return str(file)


def wait_for(pids: Path, number: int) -> list[psutil.Process]:
    def there() -> list[psutil.Process] | None:
        return alive(pids) if len(pids.read_text().split()) == number else None

    return eventually(there, f"{number} processes of the command")


@pytest.mark.parametrize("spawn", SPAWN.values(), ids=SPAWN)
@pytest.mark.parametrize("end", ["exit 0", "exit 1", "exec sleep 60"])
def test_what_a_command_leaves_running_is_ended_with_it_however_it_ends(
    tmp_path: Path, pids: Path, monkeypatch: pytest.MonkeyPatch, spawn: str, end: str
) -> None:
    waits = f"until [ -s {pids} ]; do sleep 0.01; done; "
    file = allowed(tmp_path, spawn.format(pids=pids) + waits + end, "timeout = 1")
    monkeypatch.setenv("COMMAND_FILE", file)

    if end == "exit 0":
        command(make_job(Config("build")))
    else:
        with pytest.raises(JobFailed):
            command(make_job(Config("build")))

    assert len(pids.read_text().split()) == 1
    if "env -i" in spawn:  # known by its group alone: it is killed, but not waited for
        eventually(lambda: not alive(pids), "the end of what was killed")
    assert alive(pids) == []


@pytest.mark.parametrize("spawn", SPAWN.values(), ids=SPAWN)
def test_nothing_of_a_command_outlives_a_worker_that_is_killed(
    tmp_path: Path, pids: Path, spawn: str
) -> None:
    script = f"echo $$ >> {pids}; {spawn.format(pids=pids)} sleep 300"
    file = allowed(tmp_path, script)
    own = {"COMMAND_FILE": file, "TMPDIR": str(tmp_path)}
    worker = subprocess.Popen([sys.executable, "-c", WORKER], cwd=ROOT, env={**os.environ, **own})
    try:
        assert len(wait_for(pids, 2)) == 2
        guard = next(p for p in psutil.Process(worker.pid).children() if "kill" in p.cmdline()[2])
        eventually(lambda: ignores_term(guard.pid), "a guard that does not mind a TERM to all")
        guard.terminate()

        worker.send_signal(signal.SIGKILL)

        eventually(lambda: not alive(pids), "the end of the command's processes")
        eventually(lambda: not guard.is_running(), "the end of the guard")
    finally:
        worker.kill()
        worker.wait()


def test_a_command_whose_guard_was_killed_is_still_ended_with_its_job(
    tmp_path: Path, pids: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = f"{SPAWN['in the background'].format(pids=pids)} read -r _ <{tmp_path}/go"
    os.mkfifo(tmp_path / "go")
    monkeypatch.setenv("COMMAND_FILE", allowed(tmp_path, script))
    running = threading.Thread(target=command, args=[make_job(Config("build"))])
    running.start()
    group = os.getpgid(wait_for(pids, 1)[0].pid)

    for child in psutil.Process().children():
        if child.cmdline()[-2:-1] == [str(group)]:
            child.kill()
    (tmp_path / "go").write_text("\n")
    running.join(30)

    assert not running.is_alive()
    assert alive(pids) == []


def test_two_commands_of_one_worker_do_not_keep_or_end_each_other(
    tmp_path: Path, pids: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.touch()
    os.mkfifo(tmp_path / "go")
    long = f"echo $$ >> {pids}; read -r _ <{tmp_path}/go; touch {tmp_path}/done"
    monkeypatch.setenv("COMMAND_FILE", allowed(tmp_path, long))
    running = threading.Thread(target=command, args=[make_job(Config("build"))])
    running.start()
    wait_for(pids, 1)
    allowed(tmp_path, SPAWN["in the background"].format(pids=other))

    command(make_job(Config("build")))

    assert alive(other) == []
    assert len(alive(pids)) == 1
    (tmp_path / "go").write_text("\n")
    running.join(30)
    assert (tmp_path / "done").exists()


def test_a_command_does_not_start_when_its_worker_dies_before_its_guard_stands(
    tmp_path: Path,
) -> None:
    with gated(["/usr/bin/touch", "started"], tmp_path, {}) as process:
        pass  # the pipe is closed, as the kernel does it for the dead

    assert process.returncode == 1
    assert not (tmp_path / "started").exists()


def test_a_stricter_limit_of_the_workers_own_stays(tmp_path: Path) -> None:
    strict = (8192, 8192)
    with gated(["/bin/sleep", "300"], tmp_path, {}) as process:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, strict)

        with released(process, "a job", Allowed(run=["sleep"])):
            limits = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)

    assert limits == strict
    assert process.returncode == -signal.SIGKILL


def test_a_handler_that_is_interrupted_leaves_nothing_behind(
    tmp_path: Path, pids: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = f"echo $$ >> {pids}; {SPAWN['in the background'].format(pids=pids)} exec sleep 300"
    monkeypatch.setenv("COMMAND_FILE", allowed(tmp_path, script))

    class Interrupted(MadeJob[Config]):
        @property
        def stopping(self) -> bool:
            if len(pids.read_text().split()) == 2:
                raise KeyboardInterrupt
            return False

    with pytest.raises(KeyboardInterrupt):
        command(Interrupted(**vars(make_job(Config("build")))))

    assert alive(pids) == []
