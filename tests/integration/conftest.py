from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from dispatcher.redis_server import RedisServer
from tests.harness import Fleet, fleet


@pytest.fixture
def empty(redis: Redis, redis_server: RedisServer, tmp_path: Path) -> Iterator[Fleet]:
    """A fleet with its emulator and beat, and no worker yet."""
    with fleet(redis_server.url, tmp_path) as made:
        made.start_emulator("--ack-window", "3", "--continuation-delay", "0.3")
        made.start_beat()
        yield made


@pytest.fixture(params=["threads", "prefork"])
def pool(request: pytest.FixtureRequest) -> str:
    return str(request.param)
