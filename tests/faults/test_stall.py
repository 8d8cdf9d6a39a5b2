"""A worker whose consumption stands still ends itself, and its supervisor starts it again."""

import os
import time
from pathlib import Path

from tests.faults.commands import Command
from tests.faults.relay import Side
from tests.faults.stage import FAIL, staged

QUEUE = f"provider.{FAIL}".encode()


def test_a_worker_that_receives_nothing_while_messages_wait_ends_itself(tmp_path: Path) -> None:
    with staged(tmp_path, 0, slots=2, DISPATCHER_STALL_AFTER="2") as stage:
        swallowed = stage.relay.hold(Command(b"BRPOP", QUEUE), Side.REPLY, answer=QUEUE)
        first = stage.submit()
        swallowed.reached()
        swallowed.drop()  # the broker has answered, and the worker will never know
        since = time.monotonic()
        later = [stage.submit() for _ in range(3)]

        status = stage.worker.wait(8)

        assert status == os.EX_TEMPFAIL
        assert time.monotonic() - since >= 2
        assert "receives nothing" in stage.worker.output
        stage.note("stalled")
        stage.worker = stage.start_worker()
        assert [stage.fleet.ended(job)["status"] for job in [first, *later]] == ["Succeeded"] * 4
        assert stage.violations() == []


def test_a_worker_with_nothing_to_receive_stays(tmp_path: Path) -> None:
    with staged(tmp_path, 0, slots=1, DISPATCHER_STALL_AFTER="1") as stage:
        job = stage.submit("work", Seconds="2.5")
        waits = stage.submit()  # while the one slot is taken

        assert stage.fleet.ended(job)["status"] == "Succeeded"
        assert stage.fleet.ended(waits)["status"] == "Succeeded"
        time.sleep(1.5)  # idle for longer than a stall may last
        assert stage.worker.popen.poll() is None
        assert "receives nothing" not in stage.worker.output
