"""The rows of the fault matrix: what befalls a fleet, each on a stage of its own.

A row leaves the stage mended: what it broke works again, what it killed was started again."""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from redis import Redis

from tests.faults.points import POINTS, Point
from tests.faults.stage import FAIL, OWNERS, RERUN, Clocks, Stage
from tests.harness import TOKENS, eventually

Run = Callable[[Stage], None]
DETAILS = ("GetThirdPartyJobDetails", "GetJobDetails")
ACKS = ("AcknowledgeThirdPartyJob", "AcknowledgeJob")
PUTS = (
    "PutThirdPartyJobSuccessResult",
    "PutJobSuccessResult",
    "PutThirdPartyJobFailureResult",
    "PutJobFailureResult",
)
POLLS = ("PollForThirdPartyJobs", "PollForJobs")


@dataclass(frozen=True)
class Row:
    """`times`: in the long set. `pools`: one of them a run, in turns."""

    name: str
    run: Run
    times: int = 10
    pools: tuple[str, ...] = ("prefork", "threads")
    slots: int = 4
    emulator: tuple[str, ...] = ()
    settings: dict[str, str] = field(default_factory=dict, hash=False)
    long_only: bool = False
    clocks: bool = False  # it sets those of workers and Redis, which needs a C compiler


# Crashes at points


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


def crashes(who: str, numbers: range, some: int) -> Run:
    def run(stage: Stage) -> None:
        points = [point for point in POINTS if point.number in numbers]
        for point in stage.random.sample(points, some):
            crash(stage, point, who, stage.random.choice(list(OWNERS)))

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


# Things that stand still


def freeze_worker(stage: Stage) -> None:
    """For longer than its lease, while it works."""
    jobs = stage.load(20)
    stage.in_flight(jobs, 0.3)
    heir = stage.start_worker("heir")
    with stage.asleep(stage.worker, "worker frozen"):
        time.sleep(2 * float(stage.fleet.env["DISPATCHER_LEASE"]))
    assert heir.popen.poll() is None


def freeze_redis(seconds: float) -> Run:
    def run(stage: Stage) -> None:
        jobs = stage.load(30)
        stage.in_flight(jobs, 0.3)
        with stage.redis_asleep(f"Redis frozen {seconds:.0f} s"):
            time.sleep(seconds)

    return run


def half_open_redis(stage: Stage) -> None:
    """No packet passes and no connection closes; after a while the network is there again."""
    jobs = stage.load(20)
    stage.in_flight(jobs, 0.3)
    since = time.time()
    stage.relay.freeze()
    with stage.lasting("Redis half-open"):
        time.sleep(6)
    stage.relay.cut()  # what was open is dead, new connections work
    stage.relay.thaw()
    stage.everybody_cut_off(since)


def cut_redis(stage: Stage) -> None:
    jobs = stage.load(30)
    for share in (0.1, 0.2, 0.3, 0.5, 0.7):
        stage.in_flight(jobs, share)
        stage.relay.cut()
        stage.note("connections cut")


def half_open_aws(stage: Stage) -> None:
    """Calls that nobody answers, until the client gives up."""
    for operation in (*DETAILS, *ACKS):
        stage.fleet.aws.add_fault("hold", operation=operation, count=1)
    stage.load(20)
    time.sleep(5)
    stage.fleet.aws.remove_fault()


# Redis comes back, or refuses


def restart_redis(stage: Stage) -> None:
    """Killed, with its append-only file."""
    jobs = stage.load(30)
    stage.in_flight(jobs, 0.3)
    since = time.time()
    stage.redis.kill()
    with stage.lasting("Redis killed and restarted"):
        stage.redis.start()
        time.sleep(0.5)
    stage.everybody_cut_off(since)


def empty_redis(stage: Stage) -> None:
    """All of it forgotten while the workers live. A Retry that waits then is known to nobody."""
    jobs = stage.load(30, without="retry")
    stage.in_flight(jobs, 0.3)
    with Redis(port=stage.redis.port) as client:
        client.flushall()
    stage.note("Redis emptied")


def refusing(what: str, refuse: dict[str, str], allow: dict[str, str]) -> Run:
    def run(stage: Stage) -> None:
        jobs = stage.load(20)
        stage.in_flight(jobs, 0.3)
        since = time.time()
        with Redis(port=stage.redis.port) as client:
            configure(client, refuse)
            with stage.lasting(what):
                time.sleep(3)
            configure(client, allow)
        stage.everybody_cut_off(since)

    return run


def configure(client: Redis, given: dict[str, str]) -> None:
    for name, value in given.items():
        client.config_set(name, value)


def revoked(stage: Stage) -> None:
    """The password changed; it is changed back."""
    jobs = stage.load(20)
    stage.in_flight(jobs, 0.3)
    since = time.time()
    with Redis(port=stage.redis.port) as client:
        client.config_set("requirepass", "other")
        client.auth("other")
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        with stage.lasting("auth revoked"):
            time.sleep(3)
        client.config_set("requirepass", "")
    stage.everybody_cut_off(since)


# Messages


def lost_messages(stage: Stage) -> None:
    """All that wait are gone."""
    jobs = stage.load(30)
    with Redis(port=stage.redis.port) as client:
        for share in (0.1, 0.3, 0.5):
            stage.in_flight(jobs, share)
            gone = sum(int(client.llen(name)) for name in (f"provider.{one}" for one in OWNERS))
            client.delete(*(f"provider.{one}" for one in OWNERS), "dispatcher")
            if gone:
                stage.note("messages lost")


def doubled_messages(stage: Stage) -> None:
    """Each job's message comes three times, and once more long after."""
    seen: list[tuple[str, bytes]] = []
    with Redis(port=stage.redis.port) as client:
        jobs = [stage.submit("work", one, Seconds="0.5") for one in [*OWNERS] * 8]
        until = time.monotonic() + 4
        while time.monotonic() < until:
            for name in (f"provider.{one}" for one in OWNERS):
                for message in client.lrange(name, 0, -1):
                    if (name, message) not in seen:
                        seen.append((name, message))
                        client.lpush(name, message, message)
                        stage.note("message doubled")
        for job in jobs:
            stage.fleet.ended(job)
        for name, message in seen:
            client.lpush(name, message)
            stage.note("message late")
        eventually(lambda: not any(client.llen(name) for name, _ in seen), "all were read")


def two_of_each(stage: Stage) -> None:
    """Two beats, four pollers."""
    stage.fleet.start_beat()
    for number in range(3):
        stage.start_polls(f"polls{number}")
    stage.note("two beats, four pollers")
    stage.in_flight(stage.load(40), 1)


# AWS


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
        eventually(lambda: stage.faults().total() >= 30, "faults took effect", 60)
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


def workers_clocks(stage: Stage) -> None:
    """Steps of five minutes, forth and back, of all workers and beat."""
    jobs = stage.load(40)
    for share, ahead in ((0.1, 300), (0.3, -300), (0.5, 0), (0.7, 300)):
        stage.in_flight(jobs, share)
        stage.clocks.set("workers", ahead)
        stage.note("workers' clocks stepped")
    stage.in_flight(jobs, 1)
    stage.clocks.set("workers", 0)


def redis_clock(ahead: int) -> Run:
    """One step; to be late by it is all that may come of one backwards."""

    def run(stage: Stage) -> None:
        jobs = stage.load(30)
        stage.in_flight(jobs, 0.3)
        stage.clocks.set("redis", ahead)
        with stage.lasting("Redis's clock stepped"):
            time.sleep(max(-ahead, 0))

    return run


def throttled(stage: Stage) -> None:
    """AWS answers fewer calls than we would make."""
    jobs = stage.load(15)
    eventually(lambda: throttles(stage) >= 5, "calls were throttled", 30)
    stage.in_flight(jobs, 1)
    stage.struck["throttled"] += throttles(stage)


def throttles(stage: Stage) -> int:
    return sum(call["error"] == "ThrottlingException" for call in stage.fleet.log())


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


# The fleet's own


def no_tokens(stage: Stage) -> None:
    """The file of tokens is gone, then broken, then back."""
    tokens = stage.folder / "tokens.json"
    jobs = stage.load(10)
    stage.in_flight(jobs, 0.2)
    tokens.unlink()
    later = stage.load(10)
    with stage.lasting("token store down"):
        time.sleep(1.5)
        tokens.write_text("{")
        time.sleep(1.5)
    tokens.write_text(json.dumps(TOKENS))
    stage.in_flight(later, 1)


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


DEFAULTS = {
    f"DISPATCHER_{name}": value
    for name, value in {
        "POLL_INTERVAL": "1",
        "POLL_INTERVAL_MAX": "5",
        "ACK_WINDOW": "30",
        "LEASE": "60",
        "SWEEP_INTERVAL": "10",
        "SHUTDOWN_GRACE": "20",
    }.items()
}
FULL = {"maxmemory": "1"}
NOT_FULL = {"maxmemory": "0"}
REAL_LEASE = {"DISPATCHER_LEASE": "60"}
READ_ONLY = {"min-replicas-to-write": "1"}  # as a primary that lost its replicas: it refuses writes
WRITABLE = {"min-replicas-to-write": "0"}

ROWS = [
    Row("child killed at a point", crashes("child", range(4, 17), 1), 26, ("prefork",), slots=1),
    Row("worker killed at a point", crashes("worker", range(4, 17), 1), 26, slots=1),
    Row("poller killed at a point", crashes("worker", range(1, 4), 1), 6, slots=1),
    Row("all killed at a point", crashes("all", range(1, 17), 1), 16, slots=1),
    Row("all killed under load", kill_under_load),
    Row("beat killed", kill_beat, 4),
    Row("SIGTERM under load", term_under_load),
    Row("worker frozen beyond its lease", freeze_worker),
    Row("Redis frozen 5 s", freeze_redis(5), 4, settings={"DISPATCHER_LEASE": "15"}),
    Row("Redis frozen 20 s", freeze_redis(20), 4, settings=REAL_LEASE, long_only=True),
    Row("Redis frozen 120 s", freeze_redis(120), 2, long_only=True),
    Row("Redis half-open", half_open_redis),
    Row("connections to Redis cut", cut_redis),
    Row("AWS half-open", half_open_aws, 4),
    Row("Redis killed, restarted", restart_redis),
    Row("Redis emptied", empty_redis),
    Row("Redis full", refusing("Redis full", FULL, NOT_FULL)),
    Row("Redis read-only", refusing("Redis read-only", READ_ONLY, WRITABLE)),
    Row("Redis's password changed", revoked),
    Row("messages lost", lost_messages),
    Row("messages doubled, and late", doubled_messages),
    Row("two beats, four pollers", two_of_each, 4),
    Row("answers lost after applying", unanswered),
    Row("AWS flaky, 1 % of calls", flaky(0.01), 4, long_only=True),
    Row("AWS flaky, 20 % of calls", flaky(0.2)),
    Row("AWS away", away(10), 4),
    Row("AWS away 10 minutes", away(600), 1, long_only=True),
    Row("AWS slow", slow, 4),
    Row("jobs offered twice", offered_twice),
    Row("stale nonces", stale_nonces),
    Row("another worker acknowledges first", foreign_acknowledgement),
    Row("closed while running", closed_while_running),
    Row("queue longer than the window", late_handlers, 2),
    Row("AWS credentials refused", wrong_credentials, 4),
    Row("AWS's clock off", clock_off, 4),
    Row("workers' clocks step by 5 minutes", workers_clocks, 4, clocks=True),
    Row("Redis's clock steps ahead", redis_clock(300), 4, clocks=True),
    Row("Redis's clock steps back", redis_clock(-8), 4, clocks=True),
    Row("AWS throttles", throttled, 4, emulator=("--rate", "12")),
    Row("machine lost in a handler", lost_machine(11, after_lease), 2),
    Row("machine lost unacknowledged", lost_machine(6, after_offers), 2),
    Row("machine lost in a handler, default times", lost_machine(11, after_lease), 2,
        settings=DEFAULTS, long_only=True),
    Row("machine lost unacknowledged, default times", lost_machine(6, after_offers), 2,
        settings=DEFAULTS, long_only=True),
    Row("token store down", no_tokens, 4),
    Row("handlers that misbehave", poison, 4),
    Row("two faults at once", pairs, 20),
]  # fmt: skip
ROWS = [row for row in ROWS if Clocks.COMPILER is not None or not row.clocks]
BY_NAME = {row.name: row for row in ROWS}
