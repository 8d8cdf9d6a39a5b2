"""Traces, as a collector gets them from real workers: whole, of jobs alone, and without secrets."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from dispatcher.redis_server import RedisServer
from tests.harness import TOKENS, Fleet, eventually, fleet
from tests.integration.collector import Collector, Span, collecting

CANARY = "canary-5a1f/of a customer's"
PROBE = "codepipeline.thirdparty.test.probe.1"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as made:
        yield made


@pytest.fixture
def traced(
    redis: Redis, redis_server: RedisServer, tmp_path: Path, collector: Collector
) -> Iterator[Fleet]:
    otel = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "20"}
    with fleet(redis_server.url, tmp_path, **otel) as made:
        made.start_emulator("--ack-window", "3", "--continuation-delay", "0.3")
        made.start_beat()
        yield made


def reported(collector: Collector, job_id: str) -> list[Span]:
    """The job's trace, once it is whole."""

    def find() -> list[Span] | None:
        spans = collector.trace(job_id)
        ids = {one.id for one in spans}
        whole = all(one.parent in ids or not one.parent for one in spans)
        return spans if spans and whole else None

    return eventually(find, f"the trace of {job_id} is whole")


def line(spans: list[Span], name: str) -> list[str]:
    """From a span of this name, of which a poll's turn may have several, up to its root."""
    span = next(one for one in spans if one.name == name)
    names = [span.name]
    while span.parent:
        [span] = [one for one in spans if one.id == span.parent]
        names.append(span.name)
    return names


def test_one_trace_leads_from_the_poll_over_the_message_to_the_put(
    traced: Fleet, collector: Collector, pool: str
) -> None:
    traced.start_worker(pool)

    [job] = traced.submit(client="tenant")
    traced.ended(job)
    spans = reported(collector, job)

    task = traced.job(job)["actionTypeId"]
    assert task["provider"] == "Probe"
    put = line(spans, "CodePipeline.PutThirdPartyJobSuccessResult")
    assert put[1].startswith("run/")
    assert put[2] == put[1].replace("run/", "apply_async/")
    assert put[3:] == ["run/dispatcher.poll"]
    assert line(spans, "CodePipeline.PollForThirdPartyJobs")[1:] == ["run/dispatcher.poll"]
    for call in ("GetThirdPartyJobDetails", "AcknowledgeThirdPartyJob"):
        assert line(spans, f"CodePipeline.{call}") == [f"CodePipeline.{call}", *put[1:]]
    [run] = [one for one in spans if one.name == put[1]]
    assert run.attributes.items() >= {
        "codepipeline.job_id": job, "codepipeline.provider": "Probe",
        "codepipeline.client": "tenant", "codepipeline.attempt": 1,
    }.items()  # fmt: skip
    assert [name for name, _ in run.events] == ["acknowledged", "started", "finished", "reported"]
    assert run.events[-1][1]["codepipeline.outcome"] == "success"
    assert run.resource["service.name"] == "codepipeline-dispatcher"
    assert run.resource["codepipeline.worker"] == "w@test"
    assert not any(one.failed for one in spans)


def test_polls_that_bring_nothing_leave_no_trace(
    traced: Fleet, collector: Collector, pool: str
) -> None:
    traced.start_worker(pool)
    first = traced.submit()[0]  # so that AWS knows the type
    traced.ended(first)

    def polls() -> bool:
        asked = [call for call in traced.log() if call["operation"].startswith("PollFor")]
        return len(asked) > 40

    eventually(polls, "the fleet has polled for a while")
    [job] = traced.submit()
    traced.ended(job)
    ours = reported(collector, first) + reported(collector, job)

    told = {one.trace for one in collector.spans()}
    failed = {one.trace for one in collector.spans() if one.failed}  # of types unknown to AWS
    assert told - failed == {one.trace for one in ours}


def test_no_text_of_an_error_and_no_secret_is_in_a_trace(
    traced: Fleet, collector: Collector, pool: str
) -> None:
    traced.start_worker(pool)
    wanted = ("trace", "raise", "continue", "retry")
    jobs = [
        traced.submit(configuration={"Do": do, "ApiKey": CANARY}, client="tenant")[0]
        for do in wanted
    ]
    jobs.append(str(traced.ended(traced.ended(jobs[2])["next"])["id"]))

    for job in jobs:
        traced.ended(job)
    traces = {job: reported(collector, job) for job in jobs}

    [asked] = [one for one in traces[jobs[0]] if one.name == "acme.ask"]
    assert asked.failed
    assert asked.events == [("exception", asked.events[0][1])]
    assert (
        asked.events[0][1].items()
        >= {"exception.type": "botocore.exceptions.ParamValidationError"}.items()
    )
    assert line(traces[jobs[0]], "S3.GetObject")[1] == "acme.ask"
    sent = b"".join(collector.bodies)
    assert b"ParamValidationError" in sent
    for secret in ("canary-5a1f", TOKENS["tenant"], "secret-continuation-token", "ASIA"):
        assert secret.encode() not in sent


def test_a_child_that_replaces_a_dead_one_traces_too(traced: Fleet, collector: Collector) -> None:
    traced.start_worker("prefork", slots=1)
    [first] = traced.submit()
    traced.ended(first)
    reported(collector, first)
    traced.ended(traced.submit(configuration={"Do": "kill"})[0])

    [job] = traced.submit()
    traced.ended(job)
    spans = reported(collector, job)

    assert line(spans, "CodePipeline.PutThirdPartyJobSuccessResult")[-1] == "run/dispatcher.poll"


def test_what_was_done_last_is_sent_before_the_worker_is_gone(
    traced: Fleet, collector: Collector, pool: str
) -> None:
    # A child takes a second to go, and a worker that is stopped waits no longer than its grace.
    traced.env |= {"OTEL_BSP_SCHEDULE_DELAY": "60000", "DISPATCHER_SHUTDOWN_GRACE": "15"}
    worker = traced.start_worker(pool)
    [job] = traced.submit()
    traced.ended(job)

    worker.signal(signal.SIGTERM)

    assert worker.wait() == 0
    reported(collector, job)


def test_a_collector_that_is_gone_costs_no_job_and_holds_no_worker_back(
    redis: Redis, redis_server: RedisServer, tmp_path: Path, pool: str
) -> None:
    with collecting() as gone:
        nowhere = {"OTEL_EXPORTER_OTLP_ENDPOINT": gone.url, "OTEL_BSP_SCHEDULE_DELAY": "20"}
    with fleet(redis_server.url, tmp_path, DISPATCHER_SHUTDOWN_GRACE="15", **nowhere) as made:
        made.start_emulator()
        made.start_beat()
        worker = made.start_worker(pool)

        ends = [made.ended(job) for job in made.submit(count=10)]
        worker.signal(signal.SIGTERM)

        assert worker.wait(10) == 0
        assert {end["status"] for end in ends} == {"Succeeded"}
        assert "Traceback" not in worker.output


def test_without_a_collector_nothing_of_it_is_imported(empty: Fleet) -> None:
    empty.env["PYTHONPROFILEIMPORTTIME"] = "1"
    worker = empty.start_worker("threads")

    empty.ended(empty.submit()[0])

    assert "dispatcher.telemetry" in worker.output
    assert "dispatcher.tracing" not in worker.output
    assert "opentelemetry.instrumentation" not in worker.output  # redis-py asks for the SDK


def test_traces_without_the_extra_are_named_and_the_worker_works(
    empty: Fleet, tmp_path: Path
) -> None:
    (tmp_path / "opentelemetry").mkdir()
    (tmp_path / "opentelemetry" / "__init__.py").touch()  # hides what is installed
    empty.env |= {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "PYTHONPATH": str(tmp_path)}

    worker = empty.start_worker("threads")

    assert empty.ended(empty.submit()[0])["status"] == "Succeeded"
    assert "install codepipeline-dispatcher[otel]" in worker.output


def test_a_message_that_comes_twice_at_once_is_in_no_other_jobs_trace(
    traced: Fleet, collector: Collector, redis: Redis
) -> None:
    traced.start_worker("threads")
    [twice] = traced.submit(configuration={"Do": "hold"})
    traced.started(twice)
    traced.python(AGAIN, twice, str(redis.hget(f"dispatcher:job:{twice}", "owner")).split("/")[1])
    eventually(lambda: "message dropped" in traced.processes[-1].output, "the second is dropped")
    traced.release(twice)
    traced.ended(twice)

    jobs = traced.submit(count=12)
    for job in jobs:
        traced.ended(job)
    of_first, *of_others = [
        {one.trace for one in reported(collector, one)} for one in (twice, *jobs)
    ]

    assert not any(of_first & others for others in of_others)


def test_publishes_that_fail_leave_little_behind(traced: Fleet, redis: Redis) -> None:
    redis.config_set("maxmemory", "1")  # full: each fails at once
    try:
        left = traced.python(UNSENT)
    finally:
        redis.config_set("maxmemory", "0")

    assert left == "40 failed, 16 kept\n"


AGAIN = """
import sys
from dispatcher.celery import app
kwargs = {"job": sys.argv[1], "client": "client", "region": "eu-west-1"}
app.send_task(
    "ThirdParty.Test.Probe.1", kwargs=kwargs, queue="provider.Probe", task_id=sys.argv[2]
)
"""
UNSENT = """
from dispatcher import tracing
from dispatcher.broker import CeleryBroker
from dispatcher.celery import app
from dispatcher.engine.model import BrokerDown, JobRef, action_type
from dispatcher.engine.ports import Event
observer = tracing.start("n")
ref = JobRef("j", "c", action_type("ThirdParty.Test.Probe.1"), "eu-west-1")
failed = 0
for _ in range(40):
    try:
        CeleryBroker(app).publish([ref])
    except BrokerDown as error:
        failed += 1
        observer.saw(Event.BROKER_DOWN, ref, error=error)
kept = getattr(app.tasks["ThirdParty.Test.Probe.1"], tracing.CTX_KEY)
print(f"{failed} failed, {len(kept)} kept")
"""
