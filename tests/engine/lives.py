"""Jobs, processes, another fleet, an operator and faults, in an order that a seed chose.

A call may take its time before it is carried out and before its answer is read: others go on
meanwhile. A life is told by who went on when, and by what befell it."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from random import Random
from typing import Any
from unittest.mock import patch
from uuid import UUID

from redis import Redis

from dispatcher.emulator import jobs as aws
from dispatcher.emulator.options import Options
from dispatcher.sdk import Continue, Job, JobFailed, Outcome, Retry, Succeeded
from tests.engine.foreign import Foreigners
from tests.engine.judge import Judge, Run
from tests.engine.line import Call, Fault, first, then
from tests.engine.outside import their
from tests.engine.settings import Setting
from tests.engine.stage import Actor, Stage
from tests.engine.troubles import (
    AWS,
    HANDLER,
    WRITES,
    Few,
    Trouble,
    Where,
    answers,
    chosen,
    messages,
)
from tests.engine.world import Worker, World

FOR_EVER = timedelta(days=30)
WORKERS = 2
STANDSTILL = 30.0  # seconds, after which others may go on in a process's place
FREEZES = (5, 25, 40, 70, 100)
SLOW = {**dict.fromkeys(AWS, (0.1, 5, 10)), **dict.fromkeys(WRITES, (0.1,)), HANDLER: (0.1,)}
AFTERWARDS = 90  # rounds of ten seconds


class Life:
    def __init__(
        self, redis: Redis, seed: int, setting: Setting, faults: Sequence[Where] | None = None
    ) -> None:
        self.random = random = Random(seed)
        self.seed = seed
        self.setting = setting
        self.story: list[str] = []
        options = Options(
            job_timeout=FOR_EVER,
            action_timeout=FOR_EVER,
            continuation_delay=timedelta(),
            second_ack=random.choice(setting.second_ack),
            late_ack=random.choice(setting.late_ack),
        )
        self.world = world = World(redis, options=options)
        self.stage = Stage(world.clock)
        self.foreigners = Foreigners(world.machine, random, polls=2 * setting.jobs)
        self.judge = Judge(world, self.foreigners.acknowledged, self.stood_still)
        self.troubles = (
            Few(faults)
            if faults is not None
            else chosen(random, setting.troubles, setting.points, setting.faults)
        )
        self.slow = 0 if setting.gentle else random.choice([0.05, 0.1, 0.2])
        self.promptness = random.choice([0.3, 1, 4])
        self.frozen: dict[Worker, tuple[float, float]] = {}  # since when, until when
        self.stills: dict[Worker, float] = {}  # until when it last stood still
        self.beats: dict[Actor | None, float] = {}  # when each sent its last heartbeat
        self.ends: dict[Actor | None, Run] = {}
        self.next_poll = self.next_sweep = 0.0
        self.over = False  # no fault any more
        self.befell: list[tuple[str, Trouble, bool]] = []  # a call's name, what, and if before it
        self.raised: list[Exception] = []
        self.actions = [
            world.action(owner, policy, provider=f"{owner}-{policy}", max_attempts=3)
            for owner in setting.owners
            for policy in setting.on_crash
        ]
        world.handler = self.handler
        world.clock.wait = self.stage.sleep
        world.fleet.announce("node", {one.spec.type.provider: 100 for one in self.actions})

    # Who goes on.

    def run(self) -> None:
        """Ids are the seed's too: Redis orders by them what is due at the same time."""
        ids = Random(self.seed)
        with patch("uuid.uuid4", lambda: UUID(int=ids.getrandbits(128), version=4)):
            self.live()

    def live(self) -> None:
        for _ in range(self.setting.jobs):
            self.world.submit(self.random.choice(self.actions))
        for _ in range(self.setting.steps):
            self.step()
            if not self.stage.actors and not self.judge.open():
                break
        self.settle_down()
        for _ in range(AFTERWARDS):
            if not self.judge.open() and not self.indexed():
                break
            self.world.clock.advance(10)
            for action in self.actions if self.on_offer() else []:
                self.worker().turn(action)
            self.sweep()
            self.attempt(lambda: self.world.deliver(self.worker()))

    def step(self) -> None:
        self.look_at_processes()
        awake = self.stage.awake()
        if awake and self.random.random() < 0.9:
            self.stage.go_on(self.random.choice(awake))
        else:
            others = self.others(busy=bool(awake))
            self.random.choices(*zip(*others, strict=True))[0]()

    def others(self, *, busy: bool) -> list[tuple[Callable[[], None], float]]:
        """What may happen besides, and how readily."""
        others: list[tuple[Callable[[], None], float]] = [(self.look_at_processes, 0.1)]
        now, queues = self.world.clock.monotonic(), self.world.queues
        room = len(self.stage.actors) < self.setting.jobs + WORKERS
        messages = room and bool(queues.jobs or queues.settle)
        if messages:
            others.append((self.deliver, self.promptness))
        if not busy and not (messages and self.setting.punctual):
            others.append((self.pass_time, 1))
        if now >= self.next_sweep:
            others.append((self.sweep, 1))
        if room and self.on_offer() and now >= self.next_poll:
            others.append((self.poll, 1))
        if self.setting.foreign:
            others.append((self.foreign, 1))
        if self.setting.pause:
            others.append((self.pause, 0.1))
        return others

    def on_offer(self) -> bool:
        return any(job.status is aws.Status.QUEUED for job in self.world.machine.jobs())

    def look_at_processes(self) -> None:
        now = self.world.clock.monotonic()
        for worker, (since, until) in list(self.frozen.items()):
            if now - since >= STANDSTILL:
                self.stills[worker] = now
            if now >= until or self.over:
                worker.frozen = False
                del self.frozen[worker]
        self.stage.bury()

    def stood_still(self, worker: Worker, since: float) -> bool:
        return self.stills.get(worker, -1) > since

    def settle_down(self) -> None:
        """No fault any more, and whoever is at work ends it."""
        self.over = True
        self.look_at_processes()
        self.world.redis.delete("dispatcher:paused")
        while self.stage.actors:
            awake = self.stage.awake()
            if awake:
                self.stage.go_on(awake[0])
            else:
                self.world.clock.advance(self.stage.idle() or 0)

    def worker(self) -> Worker:
        crew = [one for one in self.world.workers[1:] if not one.line.dead and not one.frozen]
        return self.random.choice(crew) if len(crew) >= WORKERS else self.start_worker()

    def start_worker(self) -> Worker:
        worker = self.world.worker()
        worker.line.around = lambda name, call: self.around(worker, name, call)
        return worker

    def enter(self, worker: Worker, task: str, act: Callable[[], None]) -> None:
        self.story.append(f"{worker.name} takes a {task}")
        self.stage.enter(worker, lambda: self.attempt(act))

    def attempt(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # noqa: BLE001 - a task that fails does not end its process
            self.raised.append(error)

    def poll(self) -> None:
        self.next_poll = self.world.clock.monotonic() + 1
        worker, action = self.worker(), self.random.choice(self.actions)
        self.enter(worker, "poll", lambda: worker.turn(action))

    def sweep(self) -> None:
        self.next_sweep = self.world.clock.monotonic() + 5
        self.attempt(lambda: self.world.sweep(self.worker()))

    def deliver(self) -> None:
        worker, queues = self.worker(), self.world.queues
        queue = self.random.choice([one for one in (queues.jobs, queues.settle) if one])
        queue.rotate(self.random.randrange(len(queue)))
        ref = queue.popleft()
        if queue is queues.jobs:
            self.enter(worker, "job", lambda: worker.job(ref))
        else:
            self.enter(worker, "settle", lambda: worker.settle(ref))

    def pass_time(self) -> None:
        idle = self.stage.idle()
        if idle is None:
            idle = self.random.choice([1, 5] if self.setting.gentle else [1, 10, 35, 70])
        seconds = idle * (self.random.random() if self.random.random() < 0.3 else 1)
        self.story.append(f"{seconds:.1f} s pass")
        self.world.clock.advance(seconds)

    def foreign(self) -> None:
        action_type = self.random.choice(self.actions).spec.type
        self.story.append(f"others {self.foreigners.step(their(action_type))}")

    def pause(self) -> None:
        """An operator's, or its end."""
        provider = self.random.choice(self.actions).spec.type.provider
        paused = self.world.redis.sadd("dispatcher:paused", provider)
        if not paused:
            self.world.redis.srem("dispatcher:paused", provider)
        self.story.append(f"an operator {'pauses' if paused else 'resumes'} {provider}")

    # What befalls a call.

    def around(self, worker: Worker, name: str, call: Call) -> Any:
        acting = self.stage.acting
        self.take_time(name)
        if name == "heartbeat":
            self.beats[acting] = self.world.clock.monotonic()
        trouble = None if self.over else self.troubles.next(name)
        self.story.append(f"{worker.name} {name} {trouble.name if trouble else ''}".rstrip())
        answer = call() if trouble is None else self.fault(trouble, worker, name)(call)
        self.take_time(name)
        if acting in self.ends:
            self.ends[acting].heard = True
        return answer

    def take_time(self, name: str) -> None:
        if self.stage.acting and not self.over and self.random.random() < self.slow:
            self.stage.sleep(self.random.choice(SLOW.get(name, (0.1,))))

    def fault(self, trouble: Trouble, worker: Worker, name: str) -> Fault:
        when = self.random.choice([first, then])
        self.befell.append((name, trouble, when is first))
        match trouble:
            case Trouble.CRASH:
                return when(worker.line.die)
            case Trouble.FREEZE:
                return when(lambda: self.freeze(worker))
            case Trouble.MESSAGE:
                return self.random.choice(messages())
            case Trouble.WRITE:
                return self.world.forgetting
            case Trouble.WIPE:
                return then(self.world.forget)
        return self.random.choice(answers(name))

    def freeze(self, worker: Worker) -> None:
        now = self.world.clock.monotonic()
        self.frozen[worker] = (now, now + self.random.choice(FREEZES))
        worker.frozen = True
        if self.stage.acting:
            self.stage.sleep(0)

    # A handler.

    def handler(self, job: Job[Any]) -> Outcome:
        worker = next(one for one in self.world.workers if job.control in one.leases.holding())
        since = self.beats.get(self.stage.acting, self.world.clock.monotonic())
        run = self.judge.starts(job.id, worker, since, presumed=self.setting.presumes)
        self.story.append(f"{worker.name} starts the handler")
        try:
            for _ in range(self.random.randrange(1, 3)):
                if job.stopping:
                    break
                self.stage.sleep(self.random.choice([0.1, 10, 40]))
                self.around(worker, HANDLER, lambda: None)
            return self.outcome(job, run)
        finally:
            run.over = True

    def outcome(self, job: Job[Any], run: Run) -> Outcome:
        dice = self.random.random()
        if self.setting.retry and dice > 0.6:
            run.asked_again = True
            raise Retry(after=timedelta(seconds=20))
        run.said = f"{job.id} {len(self.judge.runs)}"
        if self.stage.acting:
            self.ends[self.stage.acting] = run
        if dice < 0.1 and not job.continuation:
            return Continue("more", summary=run.said)
        if dice < 0.2:
            raise JobFailed(run.said)
        return Succeeded(run.said)

    def indexed(self) -> list[str]:
        """Whom the ledger still has to look at."""
        keys = [
            f"dispatcher:{zset}:{action.spec.type.provider}"
            for action in self.actions
            for zset in ("index", "resting")
        ]
        return [str(job) for key in keys for job in self.world.redis.zrange(key, 0, -1)]
