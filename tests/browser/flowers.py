"""Real Flower processes of one test module, and what they answer."""

import base64
import socket
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import psutil

from dispatcher.redis_server import free_port
from tests.harness import Fleet, Process, eventually

NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass
class Flower:
    process: Process
    port: int
    prefix: str = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.prefix}"

    def ready(self) -> "Flower":
        eventually(self._answers, "Flower answers")
        return self

    def _answers(self) -> bool:
        assert self.process.popen.poll() is None, self.process.output
        with socket.socket() as line:
            return line.connect_ex(("127.0.0.1", self.port)) == 0

    def listens(self) -> set[str]:
        """The addresses."""
        found = psutil.Process(self.process.popen.pid).net_connections(kind="tcp")
        return {one.laddr.ip for one in found if one.status == psutil.CONN_LISTEN}

    def ask(
        self, path: str, auth: str = "", method: str = "GET"
    ) -> tuple[int, str, dict[str, str]]:
        request = urllib.request.Request(self.url + path, method=method)  # noqa: S310 - our own
        if auth:
            token = base64.b64encode(auth.encode()).decode()
            request.add_header("Authorization", f"Basic {token}")
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
                return answer.status, answer.read().decode(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode(), dict(error.headers)


def start(
    made: Fleet, *flags: str, prefix: str = "", port: int = 0, env: Mapping[str, str] = NOTHING
) -> Flower:
    """Does not wait; several start at once in the time of one."""
    port = port or free_port()
    before = dict(made.env)
    made.env |= env
    command = ["celery", "-A", "dispatcher", "flower", f"--port={port}", *flags]
    process = made.start("flower", *command)
    made.env.clear()
    made.env.update(before)
    return Flower(process, port, prefix)
