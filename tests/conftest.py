"""What all tests share: an environment without settings, and one Redis server of this run's."""

import os
from collections.abc import Iterator

import pytest
from redis import Redis

from dispatcher.redis_server import RedisServer
from tests.harness import AWS

OTHERS = ("DISPATCHER_", "AWS_", "CELERY_", "OTEL_")
for name in [name for name in os.environ if name.startswith(OTHERS)]:
    del os.environ[name]
os.environ.update(AWS)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis(redis_server: RedisServer) -> Iterator[Redis]:
    """A client of this run's server, emptied first: it is nobody else's."""
    with Redis.from_url(redis_server.url, decode_responses=True) as client:
        client.flushall()
        yield client
