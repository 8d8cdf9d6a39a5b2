"""Many jobs, many faults, in orders that nobody chose: what must hold whatever happens.

Deliveries nest: at any call of one process time may pass, others may be served, and it may die."""

from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from redis import Redis

from dispatcher.emulator import machine as aws
from dispatcher.engine.model import (
    Action,
    BrokerDown,
    Denied,
    JobRef,
    Kind,
    LedgerDown,
    PortError,
    Throttled,
    TokensDown,
    Unanswered,
)
from dispatcher.sdk import Continue, Job, JobFailed, OnCrash, Outcome, Owner, Retry, Succeeded
from tests.engine.line import Call, failing, losing, reply_lost, unanswered
from tests.engine.outside import their
from tests.engine.world import LEDGER, OVER, REGION, Worker, World

FOR_EVER = timedelta(days=30)
DEEPEST = 3
JOBS = 8
STEPS = 45
AFTERWARDS = 90  # rounds of ten seconds
ERRORS: dict[str, type[PortError]] = {
    **dict.fromkeys(LEDGER, LedgerDown),
    **dict.fromkeys(["token", "fresh token"], TokensDown),
    **dict.fromkeys(["publish", "settle", "waiting"], BrokerDown),
    **dict.fromkeys(["poll", "details", "acknowledge", "put"], Unanswered),
}


class Chaos:
    """Random steps and faults; `gentle` ones leave processes and their time alone."""

    def __init__(self, redis: Redis, seed: int, *, gentle: bool, foreign: bool) -> None:
        self.random = Random(seed)
        self.intensity = self.random.choice([0.5, 1, 2])
        self.gentle = gentle
        self.mended = False
        # Beside a foreign fleet a second acknowledgement must be an error: a status proves nothing.
        seconds = [aws.SecondAck.ERROR] if foreign else list(aws.SecondAck)
        options = aws.Options(
            job_timeout=FOR_EVER,
            continuation_delay=timedelta(),
            second_ack=self.random.choice(seconds),
        )
        self.world = world = World(redis, options=options)
        owners = [Owner.THIRD_PARTY] if foreign else list(Owner)
        # A custom job's nonce cannot be read again: beside a foreign fleet nothing proves whose.
        self.actions = [
            world.action(owner, on_crash, provider=f"{owner}-{on_crash}", max_attempts=3)
            for owner in owners
            for on_crash in OnCrash
        ]
        self.foreign = foreign
        self.prompt = {"heartbeat"}
        self.theirs: set[str] = set()
        self.running: defaultdict[str, list[Worker]] = defaultdict(list)
        self.starts: Counter[str] = Counter()
        self.retries: Counter[str] = Counter()
        self.stood_still: set[Worker] = set()
        self.ended: dict[str, Worker] = {}
        self.depth = 0
        world.fleet.announce("node", {one.spec.type.provider: 100 for one in self.actions})
        world.handler = self.handler
        for _ in range(3):
            self.start_worker()

    def start_worker(self) -> Worker:
        worker = self.world.worker()
        if not self.mended:
            worker.line.around = lambda name, call: self.around(worker, name, call)
        return worker

    def crew(self) -> list[Worker]:
        return [one for one in self.world.workers[1:] if not one.line.dead and not one.frozen]

    def worker(self) -> Worker:
        crew = self.crew()
        return self.random.choice(crew) if crew else self.start_worker()

    # What may happen at a call.

    def around(self, worker: Worker, name: str, call: Call) -> Any:
        dice = self.random.random() / self.intensity
        if dice < 0.06:
            return self.fault(name)(call)
        if self.gentle:
            return call()
        if dice < 0.08:
            worker.line.die()
        if dice < 0.14 and self.depth < DEEPEST and name not in self.prompt:
            self.meanwhile(worker)
        answer = call()
        if 0.14 <= dice < 0.16:
            worker.line.die()
        if 0.16 <= dice < 0.22 and self.depth < DEEPEST and name not in self.prompt:
            self.meanwhile(worker)
        return answer

    def fault(self, name: str) -> Callable[[Call], Any]:
        error = ERRORS.get(name, Unanswered)
        if name in {"details", "acknowledge", "put", "poll"}:
            choices = [unanswered, reply_lost, failing(Throttled), failing(Denied)]
            return self.random.choice(choices)
        return self.random.choice([failing(error), losing(error)])

    def meanwhile(self, worker: Worker) -> None:
        """Others go on; this one may stand still."""
        self.depth += 1
        worker.frozen = frozen = not self.gentle and self.random.random() < 0.5
        before = self.world.clock.monotonic()
        for _ in range(self.random.randrange(1, 4)):
            self.step()
        if frozen and self.world.clock.monotonic() - before >= 30:
            self.stood_still.add(worker)
        worker.frozen = False
        self.depth -= 1

    def step(self) -> None:
        queues = self.world.queues
        steps: list[Callable[[], object]] = [
            self.pass_time,
            lambda: self.worker().turn(self.random.choice(self.actions)),
            lambda: self.worker().sweep(),
            self.deliver,
            self.deliver,
            self.deliver,
        ]
        if self.foreign:
            steps.append(self.foreigner)
        if queues.jobs:
            steps += [self.double, self.lose]
        self.random.choice(steps)()

    def pass_time(self) -> None:
        longest = 5 if self.gentle else self.random.choice([1, 10, 35, 70])
        self.world.clock.advance(self.random.uniform(0.1, longest))

    def deliver(self) -> None:
        queues = self.world.queues
        if queues.settle and self.random.random() < 0.5:
            self.worker().settle(queues.settle.popleft())
        elif queues.jobs:
            self.worker().job(queues.jobs.popleft())

    def double(self) -> None:
        self.world.queues.jobs.append(self.world.queues.jobs[0])

    def lose(self) -> None:
        self.world.queues.jobs.popleft()

    def foreigner(self) -> None:
        """Another fleet polls and acknowledges what it is handed."""
        action = self.random.choice(self.actions)
        owner = aws.Owner(action.spec.type.owner)
        for job in self.world.machine.poll(owner, their(action.spec.type), 1, {}):
            if self.random.random() < 0.5:
                ref = JobRef(job.id, job.work.client_id, action.spec.type, REGION)
                self.world.acknowledge_elsewhere(ref)
                self.theirs.add(job.id)

    # A handler, and what holds when it starts.

    def handler(self, job: Job[Any]) -> Outcome:
        worker = next(one for one in self.world.workers if job.control in one.leases.holding())
        self.check_start(job)
        self.running[job.id].append(worker)
        self.starts[job.id] += 1
        try:
            self.work(job, worker)
        finally:
            self.running[job.id].remove(worker)
        self.ended[job.id] = worker
        return self.outcome(job)

    def check_start(self, job: Job[Any]) -> None:
        ours = job.id in self.world.asked.acknowledged
        # A custom job's nonce cannot be read again: a hand-out that no poll heard of is overlooked.
        known = self.world.redis.hget(f"dispatcher:job:{job.id}", "ack")
        presumed = job.client_id is None and known == "presumed"
        assert ours or presumed, "started without an acknowledgement"
        for other in self.running[job.id]:
            assert other.line.dead or other in self.stood_still or other.frozen, "two at once"

    def work(self, job: Job[Any], worker: Worker) -> None:
        job.wait(self.random.uniform(0, 3 if self.gentle else 40))
        if self.depth < DEEPEST and self.random.random() < 0.5:
            self.meanwhile(worker)
        if not self.gentle and self.random.random() < 0.1:
            worker.line.die()
        if not self.gentle and self.random.random() < 0.1 and not self.retries[job.id]:
            self.retries[job.id] += 1
            raise Retry

    def outcome(self, job: Job[Any]) -> Outcome:
        dice = self.random.random()
        if dice < 0.1 and not job.continuation:
            return Continue("more")
        if dice < 0.2:
            raise JobFailed(f"{job.id} broke")
        return Succeeded(job.id)

    # The end of it all.

    def run(self) -> None:
        for _ in range(JOBS):
            self.world.submit(self.random.choice(self.actions))
        for _ in range(STEPS):
            self.step()
        self.mend()
        for _ in range(AFTERWARDS):
            self.world.clock.advance(10)
            for action in self.actions:
                self.worker().turn(action)
            self.worker().sweep()
            self.world.deliver(self.worker())
            if self.over():
                break

    def mend(self) -> None:
        self.mended = True
        self.gentle = True
        for worker in self.world.workers:
            worker.line.around = None

    def over(self) -> bool:
        return all(job.status in OVER for job in self.ours()) and not self.indexed()

    def ours(self) -> list[aws.Job]:
        return [job for job in self.world.machine.jobs() if job.id not in self.theirs]

    def indexed(self) -> list[str]:
        keys = [
            f"dispatcher:{zset}:{action.spec.type.provider}"
            for action in self.actions
            for zset in ("index", "resting")
        ]
        return [str(job) for key in keys for job in self.world.redis.zrange(key, 0, -1)]

    def action_of(self, job: aws.Job) -> Action:
        provider = job.work.action_type.provider
        return next(one for one in self.actions if one.spec.type.provider == provider)


def live(redis: Redis, seed: int, *, gentle: bool = False, foreign: bool = False) -> Chaos:
    print(f"{seed=} {gentle=} {foreign=}")  # noqa: T201 - pytest shows it with a failure
    chaos = Chaos(redis, seed, gentle=gentle, foreign=foreign)
    chaos.run()
    for untrue in chaos.world.untrue:
        raise untrue
    return chaos


def check(chaos: Chaos) -> None:
    world = chaos.world
    assert max(world.accepted.values(), default=0) <= 1
    for job in world.machine.jobs():
        rerun = chaos.action_of(job).spec.on_crash is OnCrash.RERUN
        assert chaos.starts[job.id] - chaos.retries[job.id] <= (3 if rerun else 1), job.id
    assert not chaos.theirs & world.accepted.keys()
    for job_id, worker in chaos.ended.items():
        [job] = world.machine.jobs(job_id)
        if not worker.line.dead and worker not in chaos.stood_still:
            assert job.result is not None
            assert not job.result.request["verdict"].ours, "a living handler's end was not told"
    unended = [job.id for job in chaos.ours() if job.status not in OVER]
    assert unended == []
    assert chaos.indexed() == []
    assert [key for key in world.redis.keys("dispatcher:*") if world.redis.pttl(key) == -1] == []


@pytest.mark.parametrize("seed", range(60))
def test_every_job_has_one_result_and_no_handler_a_start_too_many(redis: Redis, seed: int) -> None:
    check(live(redis, seed))


@pytest.mark.parametrize("seed", range(30))
def test_beside_another_fleet_nothing_is_put_on_its_jobs(redis: Redis, seed: int) -> None:
    check(live(redis, 1000 + seed, foreign=True))


@pytest.mark.parametrize("seed", range(20))
def test_while_processes_live_each_handler_runs_once_and_its_verdict_is_the_result(
    redis: Redis, seed: int
) -> None:
    chaos = live(redis, 2000 + seed, gentle=True)

    check(chaos)
    for job in chaos.ours():
        assert job.result is not None
        verdict = job.result.request["verdict"]
        assert (chaos.starts[job.id], verdict.ours) == (1, False)
        assert verdict.kind is Kind.CONTINUE or job.id in verdict.message
