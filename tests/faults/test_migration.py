"""Beside another worker of the same action type: each job is one side's, and nobody fails it."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from redis import Redis

from dispatcher.redis_server import RedisServer
from tests.harness import AWS, Fleet, fleet

JOBS = 120


class Theirs(threading.Thread):
    """What people run today: poll, acknowledge, work, put; an InvalidNonce is another's job."""

    def __init__(self, url: str, action_type: dict[str, str]) -> None:
        super().__init__(daemon=True)
        self.action_type = action_type
        self.done: list[str] = []
        self.over = threading.Event()
        self.aws: Any = boto3.Session().client(
            "codepipeline",
            endpoint_url=url,
            region_name=AWS["AWS_REGION"],
            config=Config(retries={"total_max_attempts": 1}),
        )

    def run(self) -> None:
        while not self.over.wait(0.02):
            answer = self.aws.poll_for_jobs(actionTypeId=self.action_type, maxBatchSize=2)
            for job in answer["jobs"]:
                self.work(job)

    def work(self, job: dict[str, Any]) -> None:
        try:
            answer = self.aws.acknowledge_job(jobId=job["id"], nonce=job["nonce"])
        except self.aws.exceptions.InvalidNonceException:
            return
        if answer["status"] == "InProgress" and not self.over.wait(0.1):
            self.aws.put_job_success_result(jobId=job["id"])
            self.done.append(job["id"])


@pytest.fixture
def ours(redis_server: RedisServer, redis: Redis, tmp_path: Path) -> Iterator[Fleet]:
    with fleet(redis_server.url, tmp_path) as made:
        made.start_emulator("--ack-window", "3", "--batch-cap", "3")
        made.start_beat()
        made.start_worker("threads", slots=4)
        yield made


def test_each_job_is_done_once_by_one_side(ours: Fleet) -> None:
    jobs = ours.submit("Rerun", owner="Custom", count=JOBS, configuration={"Do": "ok"})
    theirs = Theirs(ours.emulator, ours.job(jobs[0])["actionTypeId"])

    theirs.start()
    ends = [ours.ended(job, within=60)["status"] for job in jobs]
    theirs.over.set()
    theirs.join()

    by_us = [job for job in jobs if ours.effects(job)]
    assert ends == ["Succeeded"] * JOBS
    assert min(len(by_us), len(theirs.done)) >= JOBS // 20  # both had their share
    assert sorted([*by_us, *theirs.done]) == sorted(jobs)
    puts = [call for call in ours.log() if call["operation"].startswith("Put")]
    assert sorted(call["jobId"] for call in puts) == sorted(jobs)
    assert all(call["applied"] for call in puts)


def test_a_job_that_the_other_side_dies_with_stays_its_own(ours: Fleet) -> None:
    """What it acknowledged nobody else may end: AWS times it out."""
    ours.aws.add_fault("foreign-acknowledge", operation="AcknowledgeJob", count=3)
    jobs = ours.submit("Rerun", owner="Custom", count=10, configuration={"Do": "ok"})

    lost = {call["jobId"] for call in ours.log() if call["fault"]}
    while len(lost) < 3:
        lost = {call["jobId"] for call in ours.log() if call["fault"]}
    ended = [job for job in jobs if job not in lost]

    assert [ours.ended(job)["status"] for job in ended] == ["Succeeded"] * 7
    for job in lost:
        assert ours.job(job)["status"] == "InProgress"
        assert not ours.effects(job)
        assert not ours.calls(job, "Put")
