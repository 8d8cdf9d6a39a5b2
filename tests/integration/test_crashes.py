"""What becomes of acknowledged jobs when the process that runs them dies, or is told to stop."""

import os
import signal
import time

import pytest
from kombu import Connection
from redis import Redis

from tests.harness import Fleet, eventually

PING = "from dispatcher.celery import app; print(app.control.ping(['w@test'], 10, limit=1))"


def failure_type(job: dict[str, object]) -> str:
    return str(job["result"]["request"]["failureDetails"]["type"])  # type: ignore[index]


def test_a_killed_child_fails_its_job_at_once_and_never_runs_it_again(empty: Fleet) -> None:
    empty.start_worker("prefork", slots=2)
    job = empty.submit(configuration={"Do": "kill"})[0]
    killed = empty.started(job)["at"]

    end = empty.ended(job)

    assert failure_type(end) == "SystemUnavailable"
    assert end["result"]["at"] - killed < 2.5
    assert len(empty.effects(job)) == 1


def test_a_killed_child_of_a_rerun_type_runs_again(empty: Fleet) -> None:
    empty.start_worker("prefork", slots=2)
    job = empty.submit("Rerun", owner="Custom", configuration={"Do": "kill once"})[0]

    end = empty.ended(job)

    assert end["status"] == "Succeeded"
    assert [start["attempt"] for start in empty.effects(job)] == [1, 2]


def test_a_rerun_type_that_always_kills_its_child_gives_up(empty: Fleet) -> None:
    empty.start_worker("prefork", slots=2)
    job = empty.submit("Rerun", owner="Custom", configuration={"Do": "kill"})[0]

    end = empty.ended(job)

    assert failure_type(end) == "SystemUnavailable"
    assert len(empty.effects(job)) == 3


def test_the_jobs_of_a_killed_worker_are_recovered_by_another(empty: Fleet, pool: str) -> None:
    victim = empty.start_worker(pool, slots=4, name="victim")
    fails = empty.submit(configuration={"Do": "hold"})[0]
    reruns = empty.submit("Rerun", owner="Custom", configuration={"Do": "hold"})[0]
    empty.started(fails)
    empty.started(reruns)
    empty.start_worker(pool, name="heir", queues="dispatcher,provider.Probe,provider.Rerun")

    victim.end()
    empty.release(reruns)
    ends = empty.ended(fails), empty.ended(reruns)

    assert failure_type(ends[0]) == "SystemUnavailable"
    assert ends[1]["status"] == "Succeeded"
    assert len(empty.effects(fails)) == 1
    assert len(empty.effects(reruns)) == 2


def test_a_stopping_worker_tells_its_handlers_and_lets_them_finish(empty: Fleet, pool: str) -> None:
    worker = empty.start_worker(pool)
    job = empty.submit(configuration={"Do": "heed"})[0]
    empty.started(job)

    stopped = time.time()
    worker.signal(signal.SIGTERM)
    worker.wait()

    assert empty.ended(job)["status"] == "Succeeded"
    assert empty.effects(job, "stopping")[0]["at"] - stopped < 0.3


def test_sigterm_to_the_whole_group_spares_the_handlers_of_the_pool(
    empty: Fleet, pool: str
) -> None:
    worker = empty.start_worker(pool)
    job = empty.submit(configuration={"Do": "heed"})[0]
    empty.started(job)

    os.killpg(worker.popen.pid, signal.SIGTERM)
    worker.wait()

    assert empty.ended(job)["status"] == "Succeeded"


def drains(redis: Redis) -> bool:
    slots = [str(value).split()[0] for value in redis.hgetall("dispatcher:slots:Probe").values()]
    return len(slots) == 2 and "0" in slots


def test_what_outlasts_the_grace_is_handed_on(empty: Fleet, pool: str, redis: Redis) -> None:
    worker = empty.start_worker(pool)
    fails = empty.submit(configuration={"Do": "hold"})[0]
    reruns = empty.submit("Rerun", owner="Custom", configuration={"Do": "hold"})[0]
    empty.started(fails)
    empty.started(reruns)
    empty.start_worker(pool, name="heir")

    worker.signal(signal.SIGTERM)
    eventually(lambda: drains(redis), "slots withdrawn", 1)
    worker.wait(2 + 6)
    empty.started(reruns, times=2)
    empty.release(reruns)

    assert failure_type(empty.ended(fails)) == "SystemUnavailable"
    assert empty.ended(reruns)["status"] == "Succeeded"
    assert len(empty.effects(fails)) == 1


def test_a_stop_waits_seconds_for_a_child_that_was_just_given_a_message(
    empty: Fleet, redis: Redis
) -> None:
    empty.env["DISPATCHER_SHUTDOWN_GRACE"] = "15"
    empty.start_worker("threads", queues="dispatcher", name="poller")
    worker = empty.start_worker("prefork", slots=1, queues="provider.Probe")
    [child] = worker.children()
    child.suspend()
    [job] = empty.submit()
    took = "the worker has its message"
    eventually(lambda: any("provider.Probe" in str(one) for one in redis.hvals("unacked")), took)
    assert "pong" in empty.python(PING)  # so its loop has turned, and the child is given it

    worker.signal(signal.SIGTERM)
    eventually(lambda: not redis.exists("dispatcher:slots:Probe"), "Celery has forgotten it")
    child.resume()

    assert worker.wait(8) == 0
    empty.start_worker("prefork", name="heir")
    assert empty.ended(job)["status"] == "Succeeded"
    assert len(empty.effects(job)) == 1


def test_a_worker_with_too_many_hung_handlers_ends_itself(empty: Fleet) -> None:
    worker = empty.start_worker("threads", slots=2)
    job = empty.submit("Short", configuration={"Do": "hold"})[0]

    assert failure_type(empty.ended(job)) == "JobFailed"
    assert worker.wait(20) == os.EX_TEMPFAIL  # its supervisor starts it again
    assert "too many handlers" in worker.output


def test_a_pool_child_over_its_time_limit_is_ended_and_its_slot_serves_again(
    empty: Fleet,
) -> None:
    empty.start_worker("prefork", slots=1)
    hung = empty.submit("Short", configuration={"Do": "hold"})[0]

    assert failure_type(empty.ended(hung)) == "JobFailed"
    assert empty.ended(empty.submit("Short")[0])["status"] == "Succeeded"


def test_workers_of_one_name_are_counted_apart(empty: Fleet, redis: Redis) -> None:
    first = empty.start_worker("threads", name="same")
    empty.start_worker("threads", name="same")
    eventually(lambda: len(redis.hkeys("dispatcher:slots:Probe")) == 2, "both are counted")

    first.signal(signal.SIGTERM)
    first.wait()

    assert len(redis.hkeys("dispatcher:slots:Probe")) == 1


@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_foreign_messages_are_dropped_and_the_next_job_runs(empty: Fleet, serializer: str) -> None:
    worker = empty.start_worker("threads", slots=1)
    bodies: list[object] = [
        {"what": "ever"},
        [[], {"job": 7}, {}],
        [[], {"job": "x" * 9000, "client": None, "region": "eu-west-1"}, {}],
        [[], {"job": "unknown", "client": "client", "region": "eu-west-1"}, {}],
        [1, 2],
        "text",
    ]
    with Connection(empty.redis_url) as connection:
        queue = connection.SimpleQueue("provider.Probe")
        for task in ("ThirdParty.Test.Probe.1", "no.such.task", "dispatcher.settle"):
            for body in bodies:
                queue.put(body, serializer=serializer, headers={"id": "foreign", "task": task})
        queue.put(bodies[0], serializer=serializer)
        queue.close()

    job = empty.submit()[0]

    assert empty.ended(job)["status"] == "Succeeded"
    assert worker.popen.poll() is None
