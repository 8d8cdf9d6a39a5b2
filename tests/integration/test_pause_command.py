"""`dispatcher pause`, `resume`, `workers` and `audit`, on a fleet at work."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from dispatcher.redis_server import RedisServer
from tests.harness import BIN, Fleet, eventually, fleet


@pytest.fixture
def staffed(redis_server: RedisServer, redis: Redis, tmp_path: Path) -> Iterator[Fleet]:
    with fleet(redis_server.url, tmp_path) as made:
        made.start_emulator("--ack-window", "3")
        made.aws.define("Rerun", owner="Custom")
        made.start_beat()
        made.start_worker("threads")
        yield made


def dispatcher(fleet: Fleet, *arguments: str, **settings: str) -> tuple[int, str, str]:
    ran = subprocess.run(
        [str(BIN / "dispatcher"), *arguments],
        env={**fleet.env, **settings},
        cwd=Path(__file__).parents[1] / "probes",
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.returncode, ran.stdout, ran.stderr


def crew(fleet: Fleet, provider: str) -> dict[str, object]:
    code, out, _ = dispatcher(fleet, "workers", "--json")
    assert code == 0
    found: dict[str, dict[str, object]] = {
        line["provider"]: line for line in map(json.loads, out.splitlines())
    }
    return found[provider]


def test_a_paused_providers_jobs_stay_at_aws_across_restarts_until_it_is_resumed(
    staffed: Fleet,
) -> None:
    (running,) = staffed.submit("Rerun", owner="Custom", configuration={"Do": "heed"})
    staffed.started(running)

    code, said, _ = dispatcher(staffed, "pause", "Rerun")
    assert (code, said.startswith("Rerun is paused")) == (0, True)
    staffed.processes[-1].end()
    staffed.start_worker("threads", name="next")
    (kept,) = staffed.submit("Rerun", owner="Custom")
    (other,) = staffed.submit()
    staffed.release(running)

    assert staffed.ended(other)["status"] == "Succeeded"
    assert staffed.ended(running)["status"] == "Succeeded"
    assert staffed.job(kept)["status"] == "Queued"
    assert crew(staffed, "Rerun")["state"] == "paused"

    code, said, _ = dispatcher(staffed, "resume", "Rerun")
    assert (code, said) == (0, "Rerun is polled again.\n")
    assert staffed.ended(kept)["status"] == "Succeeded"
    assert [line.split("  ")[2] for line in dispatcher(staffed, "audit")[1].splitlines()] == [
        "resume Rerun",
        "pause Rerun",
    ]


def test_workers_are_listed_by_provider_with_what_they_do(staffed: Fleet) -> None:
    (held,) = staffed.submit(configuration={"Do": "heed"})
    staffed.started(held)

    eventually(lambda: crew(staffed, "Probe")["workers"], "the worker announced itself")
    found = crew(staffed, "Probe")
    table = dispatcher(staffed, "workers")[1].splitlines()

    assert (found["state"], found["slots"], found["running"]) == ("working", 3, 1)
    assert table[0].split() == ["PROVIDER", "STATE", "SLOTS", "RUNNING", "WORKERS", "DRAINING"]
    assert table[1].split()[:4] == ["Probe", "working", "3", "1"]
    staffed.release(held)


def test_a_mistyped_provider_is_refused_and_nothing_is_noted(staffed: Fleet) -> None:
    code, _, words = dispatcher(staffed, "pause", "Porbe")

    assert code == 1
    assert words == "There is no provider Porbe; there are Probe, Rerun, Short.\n"
    code, _, words = dispatcher(staffed, "resume", "Probe")
    assert (code, words) == (1, "Probe is not paused; paused: none.\n")
    assert dispatcher(staffed, "audit") == (0, "", "")


def test_a_second_pause_says_so_and_without_redis_a_sentence_does(staffed: Fleet) -> None:
    dispatcher(staffed, "pause", "Probe")

    assert dispatcher(staffed, "pause", "Probe")[1] == "Probe was paused already.\n"
    code, _, words = dispatcher(
        staffed, "pause", "Probe", DISPATCHER_REDIS_URL="redis://127.0.0.1:1/0"
    )
    assert (code, words.startswith("DISPATCHER_REDIS_URL: no Redis answers")) == (1, True)
