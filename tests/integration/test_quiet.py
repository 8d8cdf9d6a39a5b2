"""An idle fleet's logs: a line would be one of thousands a day that nobody needs."""

from typing import Literal

from redis import Redis

from tests.browser.flowers import start
from tests.harness import Fleet, eventually

TYPES: list[tuple[str, Literal["ThirdParty", "Custom"]]] = [
    ("Probe", "ThirdParty"),
    ("Short", "ThirdParty"),
    ("Rerun", "Custom"),
]
POLLS = 60  # of a type: as many as a fleet with the default settings makes in 5 minutes


def test_an_idle_fleet_is_silent(redis: Redis, empty: Fleet) -> None:
    for provider, owner in TYPES:
        empty.aws.define(provider, category="Test", owner=owner)
    flower = start(empty, "--log-to-stderr", "--logging=info")
    empty.start("beat", "celery", "-A", "dispatcher", "beat", "-l", "INFO", "-s", "second")
    for number, pool in enumerate(("threads", "prefork")):
        empty.start_worker(pool, name=f"w{number}")
    flower.ready()
    for provider, owner in TYPES:
        empty.ended(empty.submit(provider, owner=owner)[0])

    def reported() -> bool:
        lines = "".join(process.output for process in empty.processes)
        return lines.count('"action": "reported"') == len(TYPES)

    eventually(reported, "each job's last line is there")
    before = [process.output for process in empty.processes]

    def polls() -> int:
        log = empty.log()
        return sum(call["operation"] == "PollForJobs" for call in log)

    eventually(lambda: polls() > POLLS, "the fleet has nothing to do for a while", within=60)

    after = [process.output for process in empty.processes]
    said = [now.removeprefix(then) for then, now in zip(before, after, strict=True)]
    assert "".join(said).count("\n") <= 1, said
