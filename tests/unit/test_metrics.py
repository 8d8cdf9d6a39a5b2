"""What is counted, how it travels, and what Flower's /metrics says of it."""

import asyncio
import re
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

import dispatcher
from dispatcher.engine.model import (
    Claim,
    Dead,
    Done,
    JobRef,
    Kind,
    LedgerDown,
    Store,
    Verdict,
    action_type,
)
from dispatcher.engine.ports import Event
from dispatcher.engine.times import Times
from dispatcher.metrics import COUNTERS, GAUGES, LATENCY, PREFIX, UP, Counting, Tally, counted
from dispatcher.monitor.gauges import VALUES, WITHIN, install
from dispatcher.monitor.pages import Desk
from dispatcher.monitor.readings import Readings
from dispatcher.redis_server import RedisServer, free_port
from dispatcher.store.connection import connect
from dispatcher.store.fleet import RedisFleet
from dispatcher.store.ledger import RedisLedger

REF = JobRef("job-1", "client-1", action_type("ThirdParty.Deploy.Acme.1"), "eu-west-1")
DOCS = Path(dispatcher.__file__).parent / "docs"
ALERTS = DOCS / "samples" / "alerts.yaml"
KNOWN = {PREFIX + metric.name for metric in (*GAUGES, UP)}
KNOWN |= {f"{PREFIX}{metric.name}_total" for metric in COUNTERS}
KNOWN |= {f"{PREFIX}{LATENCY.name}_bucket"}


def sums(tally: Tally) -> dict[str, int]:
    return dict(tally.take())


@pytest.mark.parametrize(
    ("event", "fields", "counts"),
    [
        (Event.ACKNOWLEDGED, {}, {"acknowledgements|Acme|accepted": 1}),
        (Event.ACK_PARKED, {"why": "x"}, {"acknowledgements|Acme|refused": 1}),
        (Event.SWEPT, {"why": "its process is gone"}, {"recoveries|Acme|its_process_is_gone": 1}),
        (Event.CLOSED, {}, {"results|Acme|closed": 1}),
        (Event.DEAD, {}, {"results|Acme|dead": 1, "events|Acme|dead": 1}),
        (Event.REPORTED, {"outcome": "success", "type": None}, {"results|Acme|success": 1}),
        (
            Event.REPORTED,
            {"outcome": "failure", "type": "JobFailed"},
            {"results|Acme|failure": 1, "failures|Acme|JobFailed": 1},
        ),
    ],
)
def test_what_happens_to_a_job_is_counted(
    event: Event, fields: dict[str, object], counts: dict[str, int]
) -> None:
    tally = Tally()

    Counting(tally).saw(event, REF, **fields)

    assert sums(tally) == counts


def test_polls_are_counted_by_what_came_of_them() -> None:
    tally, kind = Tally(), "ThirdParty.Deploy.Acme.1"
    counting = Counting(tally)

    counting.saw(Event.POLLED, action_type=kind, offers=5, new=2)
    counting.saw(Event.POLLED, action_type=kind, offers=0, new=0)
    counting.saw(Event.POLL_THROTTLED, action_type=kind)

    assert sums(tally) == {
        "polls|Acme|jobs": 1,
        "offers|Acme|new": 2,
        "offers|Acme|known": 3,
        "polls|Acme|empty": 1,
        "polls|Acme|throttled": 1,
        "events|Acme|poll_throttled": 1,
    }


def test_what_another_release_counted_is_passed_over() -> None:
    found = counted({"results|Acme|success": "3", "later|x": "1", "results|Acme": "1", "polls": ""})

    assert [(one.name, one.values, one.sum) for one in found] == [
        ("results", ["Acme", "success"], 3)
    ]


def scrape(redis: Redis) -> dict[str, dict[tuple[str, ...], float]]:
    registry = CollectorRegistry()
    install(Readings(redis, Times(), {"Acme"}, lambda _provider: 7), registry)
    families = text_string_to_metric_families(generate_latest(registry).decode())
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in families:
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_a_scrape_tells_the_fleet_and_what_it_counted(redis: Redis) -> None:
    counts = Tally()
    counting = Counting(counts)
    counting.called("PollForJobs", "ok", 0.2)
    counting.called("PollForJobs", "Throttled", 7)
    ledger, fleet = RedisLedger(redis, Times(), counts=counts), RedisFleet(redis, Times())
    fleet.announce("w@host/1", {"Acme": 4})
    ledger.offer("poll-1", ledger.now(), {REF: None})

    told = scrape(redis)

    acme = ("Acme",)
    assert told["codepipeline_ledger_up"][()] == 1
    assert told["codepipeline_slots"][acme] == 4
    assert told["codepipeline_jobs_waiting"][acme] == 1
    assert told["codepipeline_oldest_waiting_seconds"][acme] < 5
    assert told["codepipeline_queue_messages"][acme] == 7
    assert told["codepipeline_paused"][acme] == 0
    assert told["codepipeline_aws_calls_total"][("PollForJobs", "Throttled")] == 1
    buckets = told["codepipeline_aws_seconds_bucket"]
    assert [buckets[le, "PollForJobs"] for le in ("0.1", "0.25", "5.0", "10.0", "+Inf")] == [
        0, 1, 1, 2, 2,
    ]  # fmt: skip
    assert told["codepipeline_aws_seconds_sum"][("PollForJobs",)] == pytest.approx(7.2)


def test_without_redis_a_scrape_says_so_and_does_not_fail() -> None:
    url = f"redis://127.0.0.1:{free_port()}/0"
    with Redis.from_url(url, decode_responses=True, retry=Retry(NoBackoff(), 0)) as away:
        assert scrape(away) == {"codepipeline_ledger_up": {(): 0}}


def test_no_label_names_a_job_or_a_client() -> None:
    labels = {label for metric in (*COUNTERS, *GAUGES, LATENCY) for label in metric.labels}

    assert labels == {
        "provider", "result", "kind", "outcome", "type", "cause", "event", "operation",
    }  # fmt: skip
    assert VALUES.keys() == {metric.name for metric in GAUGES}


def test_each_metric_of_the_alert_rules_exists() -> None:
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]

    for rule in group["rules"]:
        named = set(re.findall(r"codepipeline_\w+", rule["expr"]))
        assert named, rule["alert"]
        assert named <= KNOWN, rule["alert"]
        assert rule["annotations"]["summary"]


def test_each_metric_of_the_sample_for_scaling_exists() -> None:
    named = set(re.findall(r"codepipeline_\w+", (DOCS / "samples" / "keda.yaml").read_text()))

    assert named
    assert named <= KNOWN


def test_each_event_of_the_alert_rules_exists() -> None:
    named = set(re.findall(r'event="(\w+)"', ALERTS.read_text()))

    assert named
    assert named <= {event.name.lower() for event in Event}


# The board of the pages.


def test_the_board_has_what_lives_and_what_ended_each_job_once(redis: Redis) -> None:
    ledger = RedisLedger(redis, Times())
    RedisFleet(redis, Times()).announce("w@host/1", {"Acme": 4})
    ledger.offer("poll-1", ledger.now(), {REF: None})
    ledger.begin(REF, "w@host/task/1", "nonce", None)
    claim = Claim(REF, "w@host/task/1", attempt=1)
    told = Verdict(Kind.FAILURE, "the tests failed", failure_type="JobFailed")
    ledger.finish(claim, Store(told))
    ledger.finish(claim, Dead(told))
    readings = Readings(redis, Times(), set(), lambda _provider: 0)

    board = readings.board()
    story = readings.job(REF.job_id)

    assert [(job.job_id, job.state, job.message) for job in board.jobs] == [
        ("job-1", "dead", "the tests failed")
    ]
    assert [row.dead for row in board.providers] == [1]
    assert story
    assert story.verdict
    assert story.verdict["failure_type"] == "JobFailed"
    assert "token" not in story.verdict
    assert [step.event for step in story.steps][-1] == "dead letter"


def test_a_dead_letter_that_is_failed_shows_the_failure_that_aws_is_to_be_told(
    redis: Redis,
) -> None:
    ledger = RedisLedger(redis, Times())
    ledger.offer("poll-1", ledger.now(), {REF: None})
    ledger.begin(REF, "w@host/task/1", "nonce", None)
    claim = Claim(REF, "w@host/task/1", attempt=1)
    refused = Verdict(Kind.SUCCESS, "well")
    ledger.finish(claim, Store(refused))
    ledger.finish(claim, Dead(refused))
    ledger.overrule(REF, Store(Verdict(Kind.FAILURE, "ended", failure_type="JobFailed")))

    story = Readings(redis, Times(), set(), lambda _provider: 0).job("job-1")

    assert story
    assert story.record.message == "ended"
    assert story.verdict
    assert story.verdict["message"] == "ended"


@pytest.mark.parametrize("verdict", ["no JSON", "[1]", b"\xff\xfe"])
def test_a_damaged_record_has_a_page_all_the_same(redis: Redis, verdict: bytes | str) -> None:
    ledger = RedisLedger(redis, Times())
    ledger.offer("poll-1", ledger.now(), {REF: None})
    redis.hset("dispatcher:job:job-1", "verdict", verdict)
    redis.rpush("dispatcher:job:job-1:timeline", verdict)

    story = Readings(redis, Times(), set(), lambda _provider: 0).job("job-1")

    assert story
    assert story.record.state == "damaged"
    assert (story.verdict, story.steps) == (None, [])


def test_a_job_whose_record_is_gone_is_told_from_the_history(redis: Redis) -> None:
    ledger = RedisLedger(redis, Times())
    ledger.offer("poll-1", ledger.now(), {REF: None})
    ledger.begin(REF, "w@host/task/1", "nonce", None)
    ledger.finish(
        Claim(REF, "w@host/task/1", attempt=1), Done(accepted=True, outcome="success", told=None)
    )
    redis.delete("dispatcher:job:job-1", "dispatcher:job:job-1:timeline")

    story = Readings(redis, Times(), set(), lambda _provider: 0).job("job-1")

    assert story
    assert (story.record.outcome, story.record.worker) == ("success", "w@host")
    assert list(story.steps) == []


def test_what_aws_has_ceased_to_offer_waits_no_more(redis: Redis) -> None:
    ledger = RedisLedger(redis, Times())
    ledger.offer("poll-1", ledger.now(), {REF: None})
    redis.zincrby("dispatcher:waiting:Acme", -91_000, "job-1")
    ours = Readings(redis, Times(), {"Acme"}, lambda _provider: 0)
    queued = Readings(redis, Times(), {"Acme"}, lambda _provider: 1)

    assert (ours.board().jobs, ours.board().providers[0].waiting) == ([], 0)
    (row,) = queued.providers()
    assert row.waiting == 1
    assert row.oldest
    assert row.oldest < timedelta(seconds=5)


@pytest.fixture
def hanging(redis: Redis, redis_server: RedisServer) -> Iterator[Readings]:
    """Of a Redis that takes every question and answers none for a while."""
    client = connect(redis_server.url)
    client.ping()
    redis.execute_command("CLIENT", "PAUSE", "6000", "ALL")  # type: ignore[no-untyped-call]
    yield Readings(client, Times(), {"Acme"}, lambda _provider: 0)
    client.close()
    with Redis.from_url(redis_server.url, socket_timeout=20) as patient:
        patient.ping()


def test_a_redis_that_hangs_holds_up_no_scrape_for_long(hanging: Readings) -> None:
    registry = CollectorRegistry()
    install(hanging, registry)
    began = time.monotonic()

    pages = [generate_latest(registry).decode() for _ in range(20)]

    assert time.monotonic() - began < 2 * WITHIN
    assert all("ledger_up 0.0" in page for page in pages)
    assert not any("codepipeline_slots" in page for page in pages)


def test_who_waits_behind_a_redis_that_hangs_is_told_with_the_first(hanging: Readings) -> None:
    desk = Desk(lambda: hanging)

    async def ask() -> list[object]:
        return await asyncio.gather(
            *(desk.job(f"job-{number}") for number in range(40)), return_exceptions=True
        )

    began = time.monotonic()
    answers = asyncio.run(ask())

    assert {type(answer) for answer in answers} == {LedgerDown}
    assert time.monotonic() - began < 10  # each alone takes 4, and 4 are asked at a time
