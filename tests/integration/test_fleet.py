"""The main job, through real beat, Redis and worker processes and the emulator over HTTP."""

from contextlib import closing
from pathlib import Path
from typing import Any

import boto3
import pytest
from redis import Redis

from dispatcher.redis_server import RedisServer
from tests.harness import TOKENS, Fleet, fleet


@pytest.fixture
def running(empty: Fleet, pool: str) -> Fleet:
    empty.start_worker(pool, slots=2)
    return empty


def test_jobs_of_both_owners_succeed(running: Fleet) -> None:
    third_party = running.submit(count=5)
    custom = running.submit("Rerun", owner="Custom", count=5)

    ends = [running.ended(job) for job in third_party + custom]

    assert {end["status"] for end in ends} == {"Succeeded"}
    assert all(len(running.effects(job)) == 1 for job in third_party + custom)


def test_a_continuation_comes_back_as_a_new_job_with_its_token(running: Fleet) -> None:
    first = running.submit(configuration={"Do": "continue"})[0]

    next_id = running.ended(first)["next"]
    last = running.ended(next_id)

    assert last["status"] == "Succeeded"
    assert running.job(first)["result"]["request"]["executionDetails"]["percentComplete"] == 50


@pytest.mark.parametrize("do", ["exit", "nonsense", "raise"])
def test_a_handler_that_breaks_the_rules_fails_its_job_and_the_next_one_runs(
    running: Fleet, do: str
) -> None:
    canary = "canary-5a1f"
    broken = running.submit(configuration={"Do": do, "ApiKey": canary}, count=4)
    good = running.submit(count=4)

    failures = [running.ended(job)["result"]["request"]["failureDetails"] for job in broken]
    ends = [running.ended(job)["status"] for job in good]

    assert {failure["type"] for failure in failures} == {"JobFailed"}
    assert all("under" in failure["message"] for failure in failures)
    assert ends == ["Succeeded"] * 4
    assert not any(canary in process.output for process in running.processes)


def test_a_failure_is_reported_as_its_author_said(running: Fleet) -> None:
    job = running.submit(configuration={"Do": "fail"})[0]

    failure = running.ended(job)["result"]["request"]["failureDetails"]

    assert failure == {"type": "JobFailed", "message": "as asked", "externalExecutionId": "run-7"}


def test_a_wrong_configuration_names_its_key(running: Fleet) -> None:
    job = running.submit(configuration={"Must": "canary-77"})[0]

    failure = running.ended(job)["result"]["request"]["failureDetails"]

    assert failure["type"] == "ConfigurationError"
    assert "Must" in failure["message"]
    assert "canary-77" not in failure["message"]
    assert running.effects(job) == []


def test_a_retry_runs_the_same_job_again_until_it_succeeds(running: Fleet) -> None:
    job = running.submit(configuration={"Do": "retry"})[0]

    assert running.ended(job)["status"] == "Succeeded"
    assert [start["attempt"] for start in running.effects(job)] == [1, 2, 3]


def test_a_handler_over_its_time_limit_is_reported_as_timed_out(running: Fleet) -> None:
    job = running.submit("Short", configuration={"Do": "hold"})[0]

    failure = running.ended(job)["result"]["request"]["failureDetails"]
    running.release(job)

    assert failure["type"] == "JobFailed"
    assert "time limit" in failure["message"]


def test_a_second_beat_and_a_second_poller_do_no_harm(empty: Fleet) -> None:
    empty.start_beat()
    for name in ("one", "two"):
        empty.start_worker("threads", name=name)
    jobs = empty.submit(count=60)

    ends = [empty.ended(job) for job in jobs]

    assert {end["status"] for end in ends} == {"Succeeded"}
    assert all(len(empty.effects(job)) == 1 for job in jobs)
    assert [call for call in empty.log() if call["error"] == "InvalidNonceException"] == []


def test_where_a_second_acknowledgement_answers_the_status_all_is_the_same(
    redis_server: RedisServer, redis: Redis, tmp_path: Path
) -> None:
    with fleet(redis_server.url, tmp_path) as made:
        made.start_emulator("--ack-window", "3", "--second-ack", "status", "--batch-cap", "3")
        made.start_beat()
        made.start_worker("prefork", slots=2)
        good, killed = made.submit(count=8), made.submit(configuration={"Do": "kill"})[0]

        assert {made.ended(job)["status"] for job in good} == {"Succeeded"}
        assert made.ended(killed)["status"] == "Failed"
        assert len(made.effects(killed)) == 1


def test_an_unknown_client_costs_no_other_job_and_stays_on_offer(running: Fleet) -> None:
    stranger = running.submit(client="stranger", token="not ours")[0]
    good = running.submit(count=3)

    ends = [running.ended(job)["status"] for job in good]

    assert ends == ["Succeeded"] * 3
    assert running.job(stranger)["status"] in {"Queued", "Dispatched"}
    assert running.calls(stranger, "Put") == []


def test_tokens_may_stand_in_secrets_manager_and_a_rotated_one_is_taken(
    empty: Fleet, pool: str
) -> None:
    place: Any = {"endpoint_url": empty.emulator, "region_name": "eu-west-1"}
    with closing(boto3.client("secretsmanager", **place)) as secrets:
        secrets.create_secret(Name="acme/client", SecretString=TOKENS["client"])
        empty.env["DISPATCHER_CLIENT_TOKENS"] = "secretsmanager:acme/{client_id}"
        empty.env["AWS_ENDPOINT_URL_SECRETS_MANAGER"] = empty.emulator
        empty.start_worker(pool, slots=2)
        stranger, before = empty.submit(client="tenant")[0], empty.submit()[0]
        assert empty.ended(before)["status"] == "Succeeded"

        secrets.put_secret_value(SecretId="acme/client", SecretString="rotated")
        after = empty.submit(token="rotated")[0]

        assert empty.ended(after)["status"] == "Succeeded"
        assert empty.job(stranger)["status"] in {"Queued", "Dispatched"}


def test_a_pool_that_holds_up_the_rest_does_the_jobs_and_is_warned_of(empty: Fleet) -> None:
    worker = empty.start_worker("solo", slots=1)

    assert empty.ended(empty.submit()[0])["status"] == "Succeeded"
    assert "use -P prefork or threads" in worker.output
