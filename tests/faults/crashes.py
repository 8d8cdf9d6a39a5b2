"""What dies, at a point of a life or under load: a pool child, a worker, the poller, beat, all."""

import time
from collections.abc import Callable
from contextlib import suppress

from tests.faults.points import POINTS, Point
from tests.faults.stage import FAIL, OWNERS, Run, Stage


def crash(stage: Stage, point: Point, who: str, provider: str) -> None:
    """`who`: child, worker (with its children) or all. What dies is started again at once."""
    reached = point.arm(stage, provider)
    job = stage.submit(point.do, provider)
    pid = reached.pid()
    died, what = time.time(), f"{who} killed"
    if who == "child" and stage.pool == "prefork" and not (point.polls or point.parent):
        stage.kill(pid, what)
    elif who == "all":
        kill_everything(stage, what)
    elif point.polls:
        stage.kill_all([stage.polls], "poller killed")
    else:
        stage.kill_all([stage.worker], "worker killed")
    stage.died_at_its_point(pid)
    reached.release()
    revive(stage)
    stage.fleet.release(job)
    stage.fleet.ended(job, within=60)
    stage.recovery.append(time.time() - died)


def kill_everything(stage: Stage, what: str) -> None:
    """Beat and workers; the emulator is AWS."""
    stage.kill_all(
        [process for process in stage.alive() if "emulator" not in process.log.name], what
    )


def revive(stage: Stage) -> None:
    """As supervisors do."""
    names = {process.log.name.partition("-")[0] for process in stage.alive()}
    if "beat" not in names:
        stage.fleet.start_beat()
    if stage.polls not in stage.alive():
        stage.polls = stage.start_polls()
    if stage.worker not in stage.alive():
        stage.worker = stage.start_worker()


def crashes(who: str, numbers: range) -> Run:
    """At the seed's point: as many seeds as twice the points have each on both pools."""

    def run(stage: Stage) -> None:
        number = numbers[stage.seed // 2 % len(numbers)]
        crash(stage, POINTS[number - 1], who, stage.random.choice(list(OWNERS)))

    return run


def kill_under_load(stage: Stage) -> None:
    jobs = stage.load(40)
    for share in (0.2, 0.5):
        stage.in_flight(jobs, share)
        kill_everything(stage, "all killed")
        revive(stage)


def kill_beat(stage: Stage) -> None:
    jobs = stage.load(20)
    stage.in_flight(jobs, 0.3)
    (beat,) = [process for process in stage.alive() if process.log.name.startswith("beat")]
    stage.kill_all([beat], "beat killed")
    more = stage.load(10)
    revive(stage)
    stage.in_flight(more, 1)


def term_under_load(stage: Stage) -> None:
    """A deploy: the worker leaves within its grace, another takes over meanwhile."""
    jobs = stage.load(30)
    for share in (0.2, 0.5):
        stage.in_flight(jobs, share)
        old = stage.worker
        began = time.time()
        old.popen.terminate()
        stage.worker = stage.start_worker()
        status = old.wait(2 + 6)
        stage.note("worker told to leave", began)
        assert status == 0, status


def lost_machine(number: int, bound: Callable[[Stage], float]) -> Run:
    """A worker is gone for good; another takes over within the time that is promised."""

    def run(stage: Stage) -> None:
        (point,) = (point for point in POINTS if point.number == number)
        reached = point.arm(stage, FAIL)
        job = stage.submit(point.do, FAIL)
        reached.pid()
        stage.kill_all([stage.worker], "machine lost")
        died = time.time()
        reached.release()
        stage.worker = stage.start_worker("heir")
        end = stage.fleet.ended(job, within=bound(stage) + 10)["history"][-1]["at"]
        stage.recovery.append(end - died)
        assert end - died <= bound(stage), f"{end - died:.1f} s"
        stage.fleet.release(job)

    return run


def kill_worker(stage: Stage) -> None:
    stage.kill_all([stage.worker], "worker killed")


def kill_one_handler(stage: Stage) -> None:
    children = stage.worker.children() if stage.pool == "prefork" else []
    if children:
        stage.kill(stage.random.choice(children).pid, "child killed")
    else:
        kill_worker(stage)


def after_lease(stage: Stage) -> float:
    return stage.seconds("LEASE") + 15


def after_offers(stage: Stage) -> float:
    return 2 * (stage.seconds("ACK_WINDOW") + stage.seconds("POLL_INTERVAL_MAX"))


def poison(stage: Stage) -> None:
    """Handlers that exit, return nonsense, raise, and kill their own process."""
    doings = ["exit", "nonsense", "raise"] + ["kill"] * (stage.pool == "prefork")
    for do in doings:
        for provider in OWNERS:
            job = stage.submit(do, provider)
            stage.note(f"handler: {do}")
            with suppress(AssertionError):
                stage.fleet.ended(job, within=20)
            for line in stage.effects():
                if do == "kill" and line["job"] == job:
                    stage.deaths.setdefault(int(line["pid"]), float(line["at"]))
    stage.in_flight(stage.load(10), 1)


def pairs(stage: Stage) -> None:
    """Two faults at once: AWS flaky, and something of ours dies or is cut off."""
    for kind in ("unavailable", "drop-after", "throttle"):
        seed = stage.random.randrange(10**6)
        stage.fleet.aws.add_fault(kind, probability=0.07, seed=seed)
    jobs = stage.load(30)
    stage.in_flight(jobs, 0.3)
    stage.random.choice([kill_worker, lambda one: one.relay.cut(), kill_one_handler])(stage)
    stage.note("with AWS flaky: one of ours")
    revive(stage)
    stage.in_flight(jobs, 0.9)
    stage.fleet.aws.remove_fault()
