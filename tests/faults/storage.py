"""What S3 does while artifacts move, and what becomes of them when processes die then."""

import time

from tests.faults.crashes import kill_everything, revive
from tests.faults.stage import OWNERS, Stage
from tests.harness import eventually

MOVES = ("GetObject", "PutObject")
KINDS = ("unavailable", "throttle", "drop-before", "expired-credentials")


def carry(stage: Stage, count: int) -> list[str]:
    """Jobs that read an input artifact and write it out again."""
    return [stage.carry(stage.random.choice(list(OWNERS))) for _ in range(count)]


def flaky_storage(stage: Stage) -> None:
    for operation in MOVES:
        for kind in KINDS:
            seed = stage.random.randrange(10**6)
            stage.fleet.aws.add_fault(kind, operation=operation, probability=0.08, seed=seed)
    carry(stage, 25)
    eventually(lambda: stage.faults().total() >= 8, "faults took effect", 60)
    stage.fleet.aws.remove_fault()


def storage_away(stage: Stage) -> None:
    for operation in MOVES:
        stage.fleet.aws.add_fault("unavailable", operation=operation, probability=1)
    jobs = carry(stage, 10) + stage.load(10)
    eventually(lambda: stage.faults()["unavailable"] >= 10, "S3 was asked in vain", 30)
    time.sleep(2)
    stage.fleet.aws.remove_fault()
    stage.in_flight(jobs, 1)


def keys_end(stage: Stage) -> None:
    """Far sooner than they do at AWS."""
    carry(stage, 20)
    eventually(
        lambda: any(call.error == "ExpiredToken" for call in stage.fleet.aws.s3_calls()),
        "session keys have ended",
        60,
    )
    stage.note("session keys ended")


def killed_while_uploading(stage: Stage) -> None:
    """Held once before S3 takes the artifact, and once when it has and its answer is missing."""
    for when in ("before", "after"):
        fault = stage.fleet.aws.add_fault("hold", operation="PutObject", when=when, count=100)
        carry(stage, 8)
        eventually(
            lambda: any(one.held for one in stage.fleet.aws.faults()), "an upload is held", 30
        )
        kill_everything(stage, "all killed while uploading")
        stage.fleet.aws.remove_fault(fault)
        revive(stage)
