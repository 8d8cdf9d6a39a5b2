"""What stands still, is cut off, refuses or forgets on our side: workers, Redis, messages, clocks,
tokens."""

import json
import time

from redis import Redis

from tests.faults.stage import OWNERS, Run, Stage
from tests.harness import TOKENS, eventually


def freeze_worker(stage: Stage) -> None:
    """For longer than its lease, while it works."""
    jobs = stage.load(20)
    stage.in_flight(jobs, 0.3)
    heir = stage.start_worker("heir")
    with stage.asleep(stage.worker, "worker frozen"):
        time.sleep(2 * float(stage.fleet.env["DISPATCHER_LEASE"]))
    assert heir.popen.poll() is None


def freeze_redis(seconds: float) -> Run:
    def run(stage: Stage) -> None:
        jobs = stage.load(30)
        stage.in_flight(jobs, 0.3)
        with stage.redis_asleep(f"Redis frozen {seconds:.0f} s"):
            time.sleep(seconds)

    return run


def half_open_redis(stage: Stage) -> None:
    """No packet passes and no connection closes; after a while the network is there again."""
    jobs = stage.load(20)
    stage.in_flight(jobs, 0.3)
    since = time.time()
    stage.relay.freeze()
    with stage.lasting("Redis half-open"):
        time.sleep(6)
    stage.relay.cut()  # what was open is dead, new connections work
    stage.relay.thaw()
    stage.everybody_cut_off(since)


def cut_redis(stage: Stage) -> None:
    jobs = stage.load(30)
    for share in (0.1, 0.2, 0.3, 0.5, 0.7):
        stage.in_flight(jobs, share)
        stage.relay.cut()
        stage.note("connections cut")


def restart_redis(stage: Stage) -> None:
    """Killed, with its append-only file."""
    jobs = stage.load(30)
    stage.in_flight(jobs, 0.3)
    since = time.time()
    stage.redis.kill()
    with stage.lasting("Redis killed and restarted"):
        stage.redis.start()
        time.sleep(0.5)
    stage.everybody_cut_off(since)


def empty_redis(stage: Stage) -> None:
    """All of it forgotten while the workers live. A Retry that waits then is known to nobody."""
    jobs = stage.load(30, without="retry")
    stage.in_flight(jobs, 0.3)
    with Redis(port=stage.redis.port) as client:
        client.flushall()
    stage.note("Redis emptied")


def refusing(what: str, refuse: dict[str, str], allow: dict[str, str]) -> Run:
    def run(stage: Stage) -> None:
        jobs = stage.load(20)
        stage.in_flight(jobs, 0.3)
        since = time.time()
        with Redis(port=stage.redis.port) as client:
            configure(client, refuse)
            with stage.lasting(what):
                time.sleep(3)
            configure(client, allow)
        stage.everybody_cut_off(since)

    return run


def configure(client: Redis, given: dict[str, str]) -> None:
    for name, value in given.items():
        client.config_set(name, value)


def revoked(stage: Stage) -> None:
    """The password changed; it is changed back."""
    jobs = stage.load(20)
    stage.in_flight(jobs, 0.3)
    since = time.time()
    with Redis(port=stage.redis.port) as client:
        client.config_set("requirepass", "other")
        client.auth("other")
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        with stage.lasting("auth revoked"):
            time.sleep(3)
        client.config_set("requirepass", "")
    stage.everybody_cut_off(since)


def lost_messages(stage: Stage) -> None:
    """All that wait are gone."""
    jobs = stage.load(30)
    with Redis(port=stage.redis.port) as client:
        for share in (0.1, 0.3, 0.5):
            stage.in_flight(jobs, share)
            gone = sum(int(client.llen(name)) for name in (f"provider.{one}" for one in OWNERS))
            client.delete(*(f"provider.{one}" for one in OWNERS), "dispatcher")
            if gone:
                stage.note("messages lost")


def doubled_messages(stage: Stage) -> None:
    """Each job's message comes three times, and once more long after."""
    seen: list[tuple[str, bytes]] = []
    with Redis(port=stage.redis.port) as client:
        jobs = [stage.submit("work", one, Seconds="0.5") for one in [*OWNERS] * 8]
        until = time.monotonic() + 4
        while time.monotonic() < until:
            for name in (f"provider.{one}" for one in OWNERS):
                for message in client.lrange(name, 0, -1):
                    if (name, message) not in seen:
                        seen.append((name, message))
                        client.lpush(name, message, message)
                        stage.note("message doubled")
        for job in jobs:
            stage.fleet.ended(job)
        for name, message in seen:
            client.lpush(name, message)
            stage.note("message late")
        eventually(lambda: not any(client.llen(name) for name, _ in seen), "all were read")


def two_of_each(stage: Stage) -> None:
    """Two beats, four pollers."""
    stage.fleet.start_beat()
    for number in range(3):
        stage.start_polls(f"polls{number}")
    stage.note("two beats, four pollers")
    stage.in_flight(stage.load(40), 1)


def workers_clocks(stage: Stage) -> None:
    """Steps of five minutes, forth and back, of all workers and beat."""
    jobs = stage.load(40)
    for share, ahead in ((0.1, 300), (0.3, -300), (0.5, 0), (0.7, 300)):
        stage.in_flight(jobs, share)
        stage.clocks.set("workers", ahead)
        stage.note("workers' clocks stepped")
    stage.in_flight(jobs, 1)
    stage.clocks.set("workers", 0)


def redis_clock(ahead: int) -> Run:
    """One step; to be late by it is all that may come of one backwards."""

    def run(stage: Stage) -> None:
        jobs = stage.load(30)
        stage.in_flight(jobs, 0.3)
        stage.clocks.set("redis", ahead)
        with stage.lasting("Redis's clock stepped"):
            time.sleep(max(-ahead, 0))

    return run


def no_tokens(stage: Stage) -> None:
    """The file of tokens is gone, then broken, then back."""
    tokens = stage.folder / "tokens.json"
    jobs = stage.load(10)
    stage.in_flight(jobs, 0.2)
    tokens.unlink()
    later = stage.load(10)
    with stage.lasting("token store down"):
        time.sleep(1.5)
        tokens.write_text("{")
        time.sleep(1.5)
    tokens.write_text(json.dumps(TOKENS))
    stage.in_flight(later, 1)
