"""The sample of a Redis user for Flower, on a real server: enough for Flower, and no more."""

import base64
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import NoPermissionError

from dispatcher.monitor.readings import Readings
from dispatcher.redis_server import RedisServer, free_port
from dispatcher.settings import read
from tests.harness import Fleet, eventually, fleet

ROOT = Path(__file__).parents[2]
RULES = (ROOT / "dispatcher/docs/samples/flower.acl").read_text()
FORBIDDEN = (
    ["SET", "dispatcher:job:x", "1"],
    ["SADD", "dispatcher:paused", "Echo"],
    ["DEL", "dispatcher:history"],
    ["LPUSH", "provider.Echo", "x"],
    ["LPUSH", "dispatcher", "x"],
    ["EVAL", "return 1", "0"],
    ["FLUSHALL"],
    ["KEYS", "*"],
    ["CONFIG", "GET", "*"],
)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[tuple[Fleet, str]]:
    """A fleet, and the URL of the sample's user on its Redis."""
    rules = RULES.replace("CHANGE-THIS", "secret").split()
    with RedisServer(tmp_path) as server:
        with Redis.from_url(server.url) as admin:
            admin.execute_command("ACL", "SETUSER", *rules[1:])
        settings = {"DISPATCHER_PROVIDERS": "workers.echo", "PYTHONPATH": str(ROOT)}
        with fleet(server.url, tmp_path, **settings) as made:
            yield made, f"redis://flower:secret@127.0.0.1:{server.port}/0"


def test_flower_works_as_the_user_of_the_sample(guarded: tuple[Fleet, str]) -> None:
    made, url = guarded
    port = free_port()
    given = dict(made.env)
    made.env |= {"DISPATCHER_REDIS_URL": url, "FLOWER_BASIC_AUTH": "operator:secret"}
    made.start("flower", "celery", "-A", "dispatcher", "flower", f"--port={port}",
               "--address=127.0.0.1", f"--db={made.folder / 'flower'}")  # fmt: skip
    made.env = given
    eventually(lambda: asked(port, "/healthcheck"), "Flower answers")

    made.start_emulator()
    made.start_beat()
    made.start_worker("threads")
    job = made.submit("Echo", configuration={"Message": "hello"})[0]

    made.ended(job)
    eventually(lambda: "ThirdParty.Test.Echo.1" in asked(port, "/api/tasks"), "it hears events")
    eventually(lambda: "w@test" in asked(port, "/api/workers?refresh=1"), "a worker answers")
    assert "provider.Echo" in asked(port, "/api/queues/length")
    assert job in asked(port, "/jobs")
    assert "codepipeline_ledger_up 1" in asked(port, "/metrics")


def asked(port: int, path: str) -> str:
    word = base64.b64encode(b"operator:secret").decode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", headers={"Authorization": f"Basic {word}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        error.close()
    except OSError:
        pass
    return ""


def test_that_user_reads_the_ledger_and_writes_nothing_of_it(
    guarded: tuple[Fleet, str],
) -> None:
    _, url = guarded
    with Redis.from_url(url, decode_responses=True) as client:
        readings = Readings(
            client, read({}).times, ["Echo"], lambda _: client.llen("provider.Echo")
        )

        assert [row.name for row in readings.board().providers] == ["Echo"]
        assert readings.counts() == {}
        assert readings.job("none") is None
        for forbidden in FORBIDDEN:
            with pytest.raises(NoPermissionError):
                client.execute_command(*forbidden)
