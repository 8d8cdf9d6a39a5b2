"""What a Redis must be to hold the ledger, and how its client behaves."""

from collections.abc import Iterator

import pytest
from redis import Redis

from dispatcher.redis_server import RedisServer, free_port
from dispatcher.store.connection import _too_old, connect, faults


@pytest.fixture
def evicting(redis: Redis) -> Iterator[Redis]:
    before = str(redis.config_get("maxmemory-policy")["maxmemory-policy"])
    redis.config_set("maxmemory-policy", "allkeys-lru")
    yield redis
    redis.config_set("maxmemory-policy", before)


def test_a_redis_that_will_do_has_no_faults(redis: Redis) -> None:
    assert faults(redis) == []


def test_where_no_redis_answers_the_fault_names_the_setting_and_not_the_address() -> None:
    with connect(f"redis://:hush-1@127.0.0.1:{free_port()}/0") as client:
        said = faults(client)

    assert said == [
        "DISPATCHER_REDIS_URL: no Redis answers there (ConnectionError); "
        "start one, or correct the address."
    ]


def test_a_redis_that_may_evict_records_will_not_do(evicting: Redis) -> None:
    assert faults(evicting) == [
        "DISPATCHER_REDIS_URL: this Redis may evict records (maxmemory-policy allkeys-lru); "
        "set maxmemory-policy noeviction."
    ]


@pytest.mark.parametrize("version", ["6.2.14", "5.0", "6.0.0-rc1"])
def test_a_redis_before_7_is_too_old(version: str) -> None:
    assert _too_old({"redis_version": version}) == [
        f"DISPATCHER_REDIS_URL: this is Redis {version}; use Redis 7 or newer, or Valkey."
    ]


@pytest.mark.parametrize(
    "server",
    [
        {"redis_version": "7.0.0"},
        {"redis_version": "7.4"},
        {"redis_version": "10.0.1"},
        {"redis_version": "6.9.9", "valkey_version": "9.1.2"},
    ],
)
def test_redis_7_and_valkey_are_new_enough(server: dict[str, str]) -> None:
    assert _too_old(server) == []


def test_a_client_reads_texts_and_gives_up_well_within_a_lease(
    redis: Redis, redis_server: RedisServer
) -> None:
    with connect(redis_server.url) as client:
        client.set("key", "text")
        options = client.get_connection_kwargs()

        assert client.get("key") == "text"

    tries = options["retry"].get_retries() + 1
    assert tries * options["socket_timeout"] <= 5
    assert tries * options["socket_connect_timeout"] <= 5
