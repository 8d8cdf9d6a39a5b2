"""What AWS does: answers that are lost, late, wrong or refused, and jobs that end elsewhere."""

import time

from tests.faults.stage import OWNERS, RERUN, Run, Stage
from tests.harness import eventually

DETAILS = ("GetThirdPartyJobDetails", "GetJobDetails")
ACKS = ("AcknowledgeThirdPartyJob", "AcknowledgeJob")
PUTS = (
    "PutThirdPartyJobSuccessResult",
    "PutJobSuccessResult",
    "PutThirdPartyJobFailureResult",
    "PutJobFailureResult",
)
POLLS = ("PollForThirdPartyJobs", "PollForJobs")


def unanswered(stage: Stage) -> None:
    """Applied, and the answer lost, once and again for every call."""
    for operation in (*POLLS, *DETAILS, *ACKS, *PUTS):
        stage.fleet.aws.add_fault("drop-after", operation=operation, count=3)
    stage.load(25)
    for provider in OWNERS:
        stage.submit("fail", provider)


def flaky(probability: float) -> Run:
    kinds = ("unavailable", "throttle", "drop-before", "drop-after", "truncate")

    def run(stage: Stage) -> None:
        for kind in kinds:
            seed = stage.random.randrange(10**6)
            stage.fleet.aws.add_fault(kind, probability=probability / len(kinds), seed=seed)
        stage.load(30)
        wanted = max(150 * probability, 2)
        eventually(lambda: stage.faults().total() >= wanted, "faults took effect", 60)
        stage.fleet.aws.remove_fault()

    return run


def away(seconds: float) -> Run:
    """AWS answers nothing but 503, while verdicts wait."""

    def run(stage: Stage) -> None:
        jobs = stage.load(20)
        stage.in_flight(jobs, 0.4)
        stage.fleet.aws.add_fault("unavailable", probability=1)
        time.sleep(seconds)
        stage.fleet.aws.remove_fault()

    return run


def slow(stage: Stage) -> None:
    for operation in (*DETAILS, *ACKS, *PUTS):
        for when in ("before", "after"):
            stage.fleet.aws.add_fault("delay", operation=operation, seconds=2.5, when=when, count=2)
    stage.load(20)


def half_open_aws(stage: Stage) -> None:
    """Calls that nobody answers, until the client gives up."""
    for operation in (*DETAILS, *ACKS):
        stage.fleet.aws.add_fault("hold", operation=operation, count=1)
    stage.load(20)
    time.sleep(5)
    stage.fleet.aws.remove_fault()


def offered_twice(stage: Stage) -> None:
    stage.fleet.aws.add_fault("duplicate-offer", probability=0.9, seed=stage.random.randrange(999))
    stage.load(40)
    eventually(lambda: stage.faults()["duplicate-offer"] >= 3, "jobs were offered twice", 30)
    stage.fleet.aws.remove_fault()


def stale_nonces(stage: Stage) -> None:
    for operation in ("PollForJobs", "GetThirdPartyJobDetails"):
        stage.fleet.aws.add_fault("stale-nonce", operation=operation, count=3)
    stage.load(20)


def foreign_acknowledgement(stage: Stage) -> None:
    """Another worker is quicker, and never puts a result."""
    for operation in ACKS:
        stage.fleet.aws.add_fault("foreign-acknowledge", operation=operation, count=2)
    stage.load(20)


def closed_while_running(stage: Stage) -> None:
    """Abandoned, or timed out, while a handler works."""
    for end in (stage.fleet.aws.abandon, stage.fleet.aws.time_out):
        for provider in OWNERS:
            job = stage.submit("heed", provider)
            stage.fleet.started(job)
            end(job)
            stage.note("closed while running")
            stage.fleet.release(job)


def late_handlers(stage: Stage) -> None:
    """More work than slots for longer than the window."""
    for _ in range(4 * stage.slots):
        stage.submit("work", Seconds="2")
        stage.submit("work", RERUN, Seconds="2")
    stage.note("queue longer than the window")


def wrong_credentials(stage: Stage) -> None:
    jobs = stage.load(20)
    stage.in_flight(jobs, 0.3)
    stage.fleet.aws.add_fault("expired-credentials", probability=1)
    eventually(lambda: stage.faults()["expired-credentials"] >= 5, "calls were refused", 20)
    time.sleep(2)
    stage.fleet.aws.remove_fault()


def clock_off(stage: Stage) -> None:
    """AWS's clock steps by five minutes either way, and by ten: then nobody is let in."""
    jobs = stage.load(30)
    for share, offset in ((0.1, 295), (0.3, -295), (0.5, 600)):
        stage.in_flight(jobs, share)
        stage.fleet.aws.set_clock(offset)
        stage.note("AWS's clock off")
    with stage.lasting("AWS's clock off"):
        time.sleep(2)
    stage.fleet.aws.set_clock(0)


def throttled(stage: Stage) -> None:
    """AWS answers fewer calls than we would make."""
    jobs = stage.load(15)
    eventually(lambda: throttles(stage) >= 5, "calls were throttled", 30)
    stage.in_flight(jobs, 1)
    stage.struck["throttled"] += throttles(stage)


def throttles(stage: Stage) -> int:
    return sum(call["error"] == "ThrottlingException" for call in stage.fleet.log())
