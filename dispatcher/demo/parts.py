"""What the demo is made of: its folder, Redis, tokens, environment, and its processes' commands."""

import importlib.util
import json
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dispatcher
from dispatcher.demo.database import borrowed, number
from dispatcher.demo.processes import DemoError, Processes
from dispatcher.demo.scenario import TENANTS
from dispatcher.redis_server import RedisServer

REDIS_URL = "DISPATCHER_REDIS_URL"
ALLOW_INSECURE = "DISPATCHER_ALLOW_INSECURE_REDIS"  # the user's word on a Redis of the user's
REGION = "eu-west-1"
MODULES = ("echo", "countdown")  # in the folder `workers`
# The user's own must not reach the demo's processes: they would call AWS, or another broker.
FOREIGN = ("AWS_", "DISPATCHER_", "CELERY_", "FLOWER_", "OTEL_")
TOKENS, ENVIRONMENT, JOBS = SECRET = ("tokens.json", "env", "jobs.json")  # files in its folder
CONTINUATION_DELAY = 2
ACK_WINDOW = 10
SETTINGS = {
    "PROVIDERS": ",".join(f"workers.{module}" for module in MODULES),
    "POLL_INTERVAL": "0.25",
    "POLL_INTERVAL_MAX": "0.5",
    "ACK_WINDOW": str(ACK_WINDOW),
    "LEASE": "10",
    "SWEEP_INTERVAL": "2",
    "SHUTDOWN_GRACE": "3",
}
EMULATOR = f"""
from datetime import timedelta
from dispatcher.emulator.options import Options
from dispatcher.emulator.server import serve
serve(port=0, options=Options(
    ack_window=timedelta(seconds={ACK_WINDOW}),
    continuation_delay=timedelta(seconds={CONTINUATION_DELAY}),
))
"""
WORKERS = {
    "dispatcher": ["-Q", "dispatcher", "-c", "8"],
    "providers": ["-Q", "provider.Echo,provider.Countdown", "-c", "16"],
}


@dataclass(frozen=True)
class Store:
    """The Redis in use. `server`: the demo's own, which it may start again."""

    url: str
    name: str
    server: RedisServer | None = None

    def __str__(self) -> str:
        return f"{self.name} on port {self.server.port}" if self.server else self.name


def check_extra() -> None:
    if importlib.util.find_spec("starlette") is None or importlib.util.find_spec("uvicorn") is None:
        raise DemoError("it needs more: pip install 'codepipeline-dispatcher[demo]'")


def new_folder() -> Path:
    """Only its owner may look in: it holds the tokens."""
    return Path(tempfile.mkdtemp(prefix="dispatcher-demo-"))


def providers_folder() -> Path:
    """Where `workers` is: the current folder, or the checkout that this package is run from."""
    for place in (Path.cwd(), Path(dispatcher.__file__).parent.parent):
        if all((place / "workers" / f"{module}.py").is_file() for module in MODULES):
            return place
    raise DemoError(
        "the demo needs the providers Echo and Countdown of the checkout's folder `workers` "
        f"(echo.py, countdown.py); {Path.cwd()} has no such folder: run it in a checkout."
    )


@contextmanager
def store(folder: Path, group: int) -> Iterator[Store]:
    """Raises DemoError or NoRedisError."""
    url = os.environ.get(REDIS_URL)
    if url:
        with borrowed(url) as found:
            yield Store(found, f"{REDIS_URL}, database {number(found)}")
        return
    with RedisServer(folder, durable=True, group=group) as server:
        yield Store(server.url, server.name, server)


def new_tokens(path: Path) -> dict[str, str]:
    """Random ones, in a file."""
    tokens = {tenant: secrets.token_urlsafe(24) for tenant in TENANTS}
    write_for_owner(path, json.dumps(tokens))
    return tokens


def write_for_owner(path: Path, text: str) -> None:
    """A new file that nobody else may read."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123
        file.write(text)


def environment(
    given: Mapping[str, str], *, redis: str, emulator: str, tokens: Path
) -> dict[str, str]:
    kept = {
        name: value
        for name, value in given.items()
        if name == ALLOW_INSECURE or not name.startswith(FOREIGN)
    }
    direct = ",".join(filter(None, (given.get("NO_PROXY") or given.get("no_proxy"), "127.0.0.1")))
    return {
        **kept,
        **{f"DISPATCHER_{name}": value for name, value in SETTINGS.items()},
        REDIS_URL: redis,
        "DISPATCHER_CLIENT_TOKENS": tokens.as_uri(),
        "AWS_ENDPOINT_URL_CODEPIPELINE": f"http://{emulator}",
        "AWS_ENDPOINT_URL_S3": f"http://{emulator}",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "demo",
        "AWS_SECRET_ACCESS_KEY": "demo",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "NO_PROXY": direct,
        "no_proxy": direct,
    }


def start_emulator(processes: Processes, place: Path) -> str:
    """Its host and port."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    child = processes.start("emulator", [sys.executable, "-c", EMULATOR], env, place)
    sign = "emulator listening on http://"

    def lines() -> list[str]:
        return [line for line in child.log.read_text().splitlines() if line.startswith(sign)]

    processes.wait(lambda: bool(lines()), within=20, what="the emulator's start")
    return lines()[0].removeprefix(sign)


def start_fleet(processes: Processes, env: Mapping[str, str], place: Path, flower: int) -> None:
    """`flower`: its port."""
    celery = [sys.executable, "-m", "celery", "-A", "dispatcher"]
    for name, options in WORKERS.items():
        command = [*celery, "worker", "-P", "threads", "-n", f"{name}@%h", *options]
        processes.start(f"worker-{name}", command, env, place)
    processes.start("beat", [*celery, "beat"], env, place)
    page = [f"--port={flower}", "--max-tasks=1000", "--persistent=false"]
    processes.start("flower", [*celery, "flower", *page], env, place)
