"""Lives that nobody wrote down: what must hold in any order, whatever befalls."""

from dataclasses import replace

import pytest
from redis import Redis

from dispatcher.sdk import Owner
from tests.engine.lives import Life
from tests.engine.search import lives, violation
from tests.engine.settings import SETTINGS, Setting
from tests.engine.troubles import POINTS, USUAL, Trouble

CROWD = Setting(
    owners=tuple(Owner),
    faults=None,
    second_ack=("error", "status"),
    retry=True,
    pause=True,
    jobs=5,
    steps=300,
)
MIGRATION = replace(CROWD, owners=(Owner.THIRD_PARTY,), second_ack=("error",), foreign=True)
EITHER = Setting(faults=1, second_ack=("error", "status"))
PEACE = replace(
    CROWD, troubles=(Trouble.ANSWER,), retry=False, pause=False, punctual=True, gentle=True
)


def check(life: Life) -> None:
    broken = violation(life)
    assert broken is None, broken.told()
    assert life.raised == []
    assert life.indexed() == []
    keys = life.world.redis.keys("dispatcher:*")
    assert [key for key in keys if life.world.redis.pttl(key) == -1] == []


@pytest.mark.parametrize("name", SETTINGS)
def test_what_must_hold_holds_in_every_small_life(redis: Redis, name: str) -> None:
    for life in lives(redis, SETTINGS[name], SETTINGS[name].seeds):
        check(life)


@pytest.mark.parametrize("kind", [*USUAL, Trouble.WRITE])
def test_one_fault_at_any_call_breaks_nothing(redis: Redis, kind: Trouble) -> None:
    points = [name for name in POINTS if kind.befalls(name) and name != "settle"]
    befell = set()
    for name in points:
        for life in lives(redis, EITHER, range(8), at=(name, 1, kind)):
            check(life)
            befell |= set(life.befell)

    both = {(name, before) for name, trouble, before in befell}
    assert {name for name, _ in both} == set(points)
    if kind in {Trouble.CRASH, Trouble.FREEZE}:
        assert both == {(name, before) for name in points for before in (True, False)}


@pytest.mark.parametrize("seed", range(40))
def test_every_job_of_a_crowd_has_one_result(redis: Redis, seed: int) -> None:
    [life] = lives(redis, CROWD, [seed])
    check(life)


@pytest.mark.parametrize("seed", range(20))
def test_beside_another_fleet_nothing_is_put_on_its_jobs(redis: Redis, seed: int) -> None:
    [life] = lives(redis, MIGRATION, [seed])
    check(life)


@pytest.mark.parametrize("seed", range(20))
def test_while_processes_live_each_handler_runs_once_and_its_verdict_is_the_result(
    redis: Redis, seed: int
) -> None:
    [life] = lives(redis, PEACE, [seed])

    check(life)
    for job in life.world.machine.jobs():
        assert job.result is not None
        verdict = job.result.request["verdict"]
        assert (life.judge.starts_of(job.id), verdict.ours) == (1, False)
