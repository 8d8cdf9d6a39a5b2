"""Redis away and back again under load: the same workers go on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher.redis_server import RedisServer
from tests.harness import Fleet, fleet


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    folder = tmp_path / "redis"
    folder.mkdir()
    with RedisServer(folder, durable=True) as started:
        yield started


@pytest.fixture
def busy(server: RedisServer, tmp_path: Path, pool: str) -> Iterator[Fleet]:
    with fleet(server.url, tmp_path) as made:
        made.start_emulator("--ack-window", "3")
        made.start_beat()
        made.start_worker(pool, slots=4)
        yield made


def test_workers_survive_a_redis_that_is_killed_under_load(
    busy: Fleet, server: RedisServer
) -> None:
    jobs = busy.submit(count=200) + busy.submit("Rerun", owner="Custom", count=100)
    busy.started(jobs[40])

    server.kill()
    server.start()
    ends = [busy.ended(job, within=60)["status"] for job in jobs]

    assert ends.count("Succeeded") >= 290  # what ran in that second may have been lost with it
    assert all(process.popen.poll() is None for process in busy.processes)
    assert all(len(busy.effects(job)) <= 1 for job in jobs[:200])
