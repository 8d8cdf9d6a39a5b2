"""`dispatcher jobs`: what an operator sees of a fleet's jobs, and does about dead letters."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from dispatcher.cli import STATES
from dispatcher.redis_server import RedisServer
from dispatcher.store.records import FAILED, State
from tests.harness import BIN, Fleet, eventually, fleet

PUT = "PutThirdPartyJobSuccessResult"


@pytest.fixture
def busy(redis_server: RedisServer, redis: Redis, tmp_path: Path) -> Iterator[Fleet]:
    with fleet(redis_server.url, tmp_path) as made:
        made.start_emulator("--ack-window", "3")
        made.start_beat()
        made.start_worker("threads")
        yield made


def command(busy: Fleet, *arguments: str, **settings: str) -> tuple[int, str, str]:
    ran = subprocess.run(
        [str(BIN / "dispatcher"), "jobs", *arguments],
        env={**busy.env, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.returncode, ran.stdout, ran.stderr


def listed(busy: Fleet, *filters: str) -> dict[str, dict[str, object]]:
    code, out, _ = command(busy, "--json", *filters)
    assert code == 0
    return {line["job"]: line for line in map(json.loads, out.splitlines())}


def test_a_result_that_aws_refuses_for_good_is_seen_and_sent_again(busy: Fleet) -> None:
    busy.aws.add_fault("error", error="ValidationException", operation=PUT)
    (job,) = busy.submit()

    eventually(lambda: listed(busy, "--state", "dead"), "a dead letter stands")
    code, table, _ = command(busy, "--state", "dead")
    shown = command(busy, "show", job)[1]
    assert code == 0
    assert [line.split()[:4] for line in table.splitlines()[1:]] == [
        [job, "dead", "Probe", "client"]
    ]
    assert "success: did ok" in table
    assert "dead letter: " in shown.splitlines()[-1]
    assert "ValidationException" in shown.splitlines()[-1]
    assert busy.job(job)["status"] == "InProgress"

    code, said, _ = command(busy, "resend", job)

    assert (code, "put again" in said) == (0, True)
    assert busy.ended(job)["status"] == "Succeeded"
    assert len(busy.effects(job)) == 1
    eventually(lambda: listed(busy, "--state", "reported"), "the ledger knows")
    assert "sent again by" in command(busy, "show", job)[1]


def test_jobs_are_listed_by_state_and_provider(busy: Fleet, redis: Redis) -> None:
    (held,) = busy.submit(configuration={"Do": "heed"})
    (done,) = busy.submit("Rerun", owner="Custom")
    busy.started(held)
    busy.ended(done)
    redis.set("dispatcher:job:broken", "text")
    eventually(lambda: listed(busy, "--state", "reported"), "the ledger knows")

    assert [line["state"] for line in listed(busy).values()] == ["running", "reported", "damaged"]
    assert set(listed(busy, "--provider", "Probe")) == {held, "broken"}
    assert listed(busy)[held]["worker"] == "w@test"
    busy.release(held)


def test_what_cannot_be_sent_is_said(busy: Fleet, redis: Redis) -> None:
    (held,) = busy.submit(configuration={"Do": "heed"})
    busy.started(held)

    assert command(busy, "resend", held)[0::2] == (
        1,
        f"{held} is running: it has no result yet; `jobs fail` ends it.\n",
    )
    assert "no such job" in command(busy, "resend", "unknown")[2]
    assert "no such job" in command(busy, "show", "not/an/id")[2]
    code, _, words = command(busy, DISPATCHER_REDIS_URL="redis://127.0.0.1:1/0")
    assert (code, words.startswith("DISPATCHER_REDIS_URL: no Redis answers")) == (1, True)
    code, _, words = command(busy, DISPATCHER_REDIS_URL=f"{busy.redis_url.removesuffix('/0')}/99")
    assert (code, "the database's number" in words) == (1, True)
    busy.release(held)


def test_a_job_that_runs_is_failed_and_its_handler_is_told_to_stop(busy: Fleet) -> None:
    (job,) = busy.submit(configuration={"Do": "heed"})
    busy.started(job)

    assert command(busy, "release", job)[0] == 1, "a living worker holds it"
    code, said, _ = command(busy, "fail", job, "--reason", "the host is gone")

    assert (code, said) == (0, f"{job}: AWS is told by the next sweep that it failed.\n")
    details = busy.ended(job)["result"]["request"]["failureDetails"]
    assert details["type"] == "JobFailed"
    assert details["message"] == "An operator ended the job: the host is gone"
    eventually(lambda: busy.effects(job, "end"), "the handler stopped")
    assert "AWS has its result" in command(busy, "fail", job)[2]


def test_jobs_are_filtered_by_client_id_and_text(busy: Fleet) -> None:
    (one,) = busy.submit(configuration={"Do": "heed"})
    (other,) = busy.submit(client="tenant", configuration={"Do": "heed"})
    busy.started(one)
    busy.started(other)

    assert set(listed(busy, "--client", "tenant")) == {other}
    assert set(listed(busy, "--job", one[:13])) == {one}
    assert set(listed(busy, "--text", "TENANT")) == {other}
    assert listed(busy)[one]["pipeline"], "whose it is"
    busy.release(one)
    busy.release(other)


def test_a_failed_job_is_found_by_how_its_id_begins_also_when_its_record_is_gone(
    busy: Fleet, redis: Redis
) -> None:
    (failed,) = busy.submit(configuration={"Do": "fail"})
    (well,) = busy.submit()
    busy.ended(failed)
    busy.ended(well)
    eventually(lambda: len(listed(busy, "--state", "reported")) == 2, "the ledger knows")

    assert set(listed(busy, "--state", FAILED)) == {failed}
    shown = command(busy, "show", failed[:8])[1]
    assert "as asked" in shown
    assert "JobFailed" in shown
    assert "no such job" in command(busy, "show", failed[:3])[2]

    redis.delete(f"dispatcher:job:{failed}", f"dispatcher:job:{failed}:timeline")

    assert set(listed(busy, "--state", FAILED)) == {failed}
    assert "as asked" in command(busy, "show", failed[:8])[1]
    assert failed not in listed(busy)


def test_an_id_that_several_begin_with_is_not_acted_on(busy: Fleet, redis: Redis) -> None:
    for job in ("twin-1", "twin-2"):
        redis.set(f"dispatcher:job:{job}", "text")

    code, _, said = command(busy, "fail", "twin")

    assert (code, said) == (1, "twin: 2 jobs begin so, as twin-1, twin-2.\n")


def test_no_list_shows_what_a_job_is_begun_or_continued_with(busy: Fleet, redis: Redis) -> None:
    busy.aws.add_fault("error", error="ValidationException", operation=PUT)
    (job,) = busy.submit(configuration={"Do": "continue", "ApiKey": "secret-api-key"})
    eventually(lambda: listed(busy, "--state", "dead"), "a dead letter stands")

    seen = "".join(command(busy, *arguments)[1] for arguments in ([], ["--json"], ["show", job]))

    assert job in seen
    assert "secret" not in seen


def test_the_states_to_choose_from_are_those_that_there_are() -> None:
    assert (*State, FAILED) == STATES
