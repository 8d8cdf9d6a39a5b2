from collections.abc import Iterator

import pytest
from redis import Redis

from tests.engine.world import World


@pytest.fixture
def world(redis: Redis) -> Iterator[World]:
    world = World(redis)
    yield world
    for untrue in world.untrue:
        raise untrue
