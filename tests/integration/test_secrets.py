"""No secret leaves the process that uses it, and nothing is left behind when all is done."""

import json
import re
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis

from dispatcher.redis_server import RedisServer
from tests.harness import TOKENS, Fleet, eventually

API_KEY = 'canary-"key"-5a1f'
SESSION_KEY = re.compile("ASIA[0-9A-Z]+")
CONTINUATION = "secret-continuation-token"  # as the probe returns it


class Monitor:
    """Every command that this run's Redis gets."""

    def __init__(self, url: str) -> None:
        self.lines: list[str] = []
        self._redis = Redis.from_url(url, decode_responses=True)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()
        self._ready.wait(10)

    def _listen(self) -> None:
        with self._redis.monitor() as monitor:  # type: ignore[no-untyped-call]
            self._ready.set()
            for command in monitor.listen():
                self.lines.append(command["command"])
                if command["command"] == "ECHO the end":
                    return

    def end(self, redis: Redis) -> None:
        redis.echo("the end")
        self._thread.join(10)
        self._redis.close()


@pytest.fixture
def monitor(redis: Redis, redis_server: RedisServer) -> Iterator[Monitor]:
    started = Monitor(redis_server.url)
    yield started
    started.end(redis)


def test_secrets_stand_in_no_command_message_log_or_failure(
    redis: Redis, monitor: Monitor, empty: Fleet, pool: str
) -> None:
    empty.start_worker(pool)
    secret = {"ApiKey": API_KEY}
    jobs = [
        empty.submit(configuration={"Do": do, **secret}, client="tenant")[0]
        for do in ("ok", "raise", "fail", "retry", "continue")
    ]
    jobs += empty.submit("Rerun", owner="Custom", configuration={"Do": "ok", **secret})
    artifacts: dict[str, Any] = {"inputs": {"In": b"x"}, "outputs": ["Out"]}
    for owner, provider in (("ThirdParty", "Probe"), ("Custom", "Rerun")):
        given: dict[str, Any] = {
            "owner": owner,
            "client_id": "tenant",
            "client_token": TOKENS["tenant"],
        }
        jobs.append(empty.aws.submit(provider, {"Do": "carry"}, **given, **artifacts))
    ends = [empty.ended(job) for job in jobs]
    last = empty.ended(ends[4]["next"])

    seen = "\n".join(monitor.lines) + "".join(process.output for process in empty.processes)
    told = json.dumps([end["result"] for end in [*ends, last]])
    kept = "".join(str(value) for value in everything(redis).values())

    for canary in (API_KEY, API_KEY.replace('"', '\\"'), json.dumps(API_KEY)[1:-1], "canary-"):
        assert canary not in seen + told + kept
    assert TOKENS["tenant"] not in seen + told + kept
    assert CONTINUATION not in kept
    assert [end["status"] for end in ends[-2:]] == ["Succeeded"] * 2
    assert SESSION_KEY.findall(seen + told + kept) == []
    messages = [line for line in monitor.lines if line.startswith(("LPUSH", "PUBLISH"))]
    assert messages
    assert not [line for line in messages if CONTINUATION in line or "nonce" in line]


def test_nothing_is_left_without_an_end_and_no_job_stays_in_an_index(
    redis: Redis, empty: Fleet, pool: str
) -> None:
    empty.start_worker(pool)

    for job in empty.submit(count=30) + empty.submit("Rerun", owner="Custom", count=30):
        empty.ended(job)
    eventually(lambda: not redis.zcard("dispatcher:index:Probe"), "nobody works on a job")

    endless = [key for key in redis.scan_iter() if redis.pttl(key) == -1]
    assert [key for key in endless if not key.startswith(("_kombu", "unacked", "celery"))] == []
    assert redis.keys("dispatcher:index:*") + redis.keys("dispatcher:resting:*") == []


def test_emulated_admin_calls_are_the_only_ones_that_show_a_continuation(empty: Fleet) -> None:
    empty.start_worker("threads")
    job = empty.submit(configuration={"Do": "continue"})[0]
    empty.ended(job)

    with urllib.request.urlopen(empty.emulator + "/_admin/log") as answer:  # noqa: S310
        assert CONTINUATION not in answer.read().decode()


def everything(redis: Redis) -> dict[str, object]:
    found: dict[str, object] = {}
    for key in redis.scan_iter():
        match redis.type(key):
            case "hash":
                found[key] = redis.hgetall(key)
            case "list":
                found[key] = redis.lrange(key, 0, -1)
            case "zset":
                found[key] = redis.zrange(key, 0, -1)
            case "set":
                found[key] = redis.smembers(key)
            case _:
                found[key] = redis.get(key)
    return found
