"""The engine on real records and on AWS's state machine, in one time that only tests move.

Nobody sleeps: whoever waits moves the clock, and Redis's times, which the ledger compares with its
own clock, move by as much. A `Line` carries one process's calls of the outside, and a test says
what the next ones meet."""

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from tempfile import TemporaryDirectory
from typing import Any

from redis import Redis

from dispatcher.archives import Limits
from dispatcher.configuration import config_parser
from dispatcher.emulator import jobs as aws
from dispatcher.emulator.machine import Machine
from dispatcher.emulator.options import Options
from dispatcher.engine.acknowledge import Acknowledger
from dispatcher.engine.claim import Claims
from dispatcher.engine.delivery import Delivery
from dispatcher.engine.jobs import Jobs
from dispatcher.engine.leases import Leases
from dispatcher.engine.model import (
    Action,
    JobRef,
    LedgerDown,
    Verdict,
)
from dispatcher.engine.poller import Poller
from dispatcher.engine.ports import Event
from dispatcher.engine.report import Reporter
from dispatcher.engine.run import Runner
from dispatcher.engine.sweep import Sweeper
from dispatcher.engine.times import Times
from dispatcher.sdk import (
    ActionSpec,
    ActionType,
    Job,
    OnCrash,
    Outcome,
    Owner,
    Secret,
    Succeeded,
)
from dispatcher.store.fleet import RedisFleet
from dispatcher.store.ledger import RedisLedger
from tests.engine.clock import Clock, MovedRedis
from tests.engine.line import Died, Line, failing
from tests.engine.outside import (
    CLIENT,
    TOKEN,
    Asked,
    Aws,
    Broker,
    LinedLedger,
    Memory,
    Observer,
    Queues,
    Seen,
    Tokens,
    Vault,
    caller_of,
    their,
)

REGION = "eu-west-1"
PROVIDERS = {Owner.THIRD_PARTY: "Acme", Owner.CUSTOM: "Mine"}
LEDGER = ("offer", "begin", "heartbeat", "finish", "due", "nonce")
OVER = {aws.Status.SUCCEEDED, aws.Status.FAILED, aws.Status.TIMED_OUT}

SWEPT = """
redis.call('HSET', 'dispatcher:sweep', 'last', redis.call('TIME')[1] * 1000, 'blind', 0)
redis.call('EXPIRE', 'dispatcher:sweep', 86400)
"""

# Handlers.

Handler = Callable[[Job[Any]], Outcome]


def doing(step: Callable[[], object]) -> Handler:
    def handler(job: Job[Any]) -> Outcome:
        step()
        return Succeeded()

    return handler


def raising(error: BaseException) -> Handler:
    def handler(job: Job[Any]) -> Outcome:
        raise error

    return handler


class LookedAtLeases(Leases):
    """Its thread would spin on a clock that nobody moves: the world calls `look` instead."""

    def _ensure_thread(self) -> None:
        return


class Worker:
    """One process. It dies at a call, and its like is another."""

    def __init__(self, world: "World", name: str) -> None:
        self.name = name
        self.line = Line()
        self.stops = False
        self.frozen = False
        self.fenced = 0
        clock, times, observer = world.clock, world.times, world.observer
        api = Aws(world.machine, world.asked, self.line)
        broker = Broker(world.queues, self.line)
        jobs = Jobs(api, Tokens(world.vault, self.line))
        self.ledger = LinedLedger(world.ledger, self.line, world.clock)
        self.leases = LookedAtLeases(
            self.ledger, observer, clock, times, lambda: self.stops, self._fence
        )
        acknowledger = Acknowledger(jobs, self.ledger, observer, clock, times)
        self.delivery = Delivery(
            world.actions,
            Claims(jobs, self.ledger, acknowledger, observer),
            self.leases,
            Runner(jobs, world.store, Limits(), self.leases, observer, clock, TemporaryDirectory),
            Reporter(jobs, self.ledger, observer, clock),
            lambda: self.stops,
        )
        self.poller = Poller(
            api, self.ledger, broker, world.fleet, observer, clock, times, lambda: 1.0
        )
        self.sweeper = Sweeper(world.actions, self.ledger, broker, observer)

    def job(self, ref: JobRef) -> None:
        self._until_it_dies(lambda: self.delivery.job(ref, self._actor(ref)))

    def settle(self, ref: JobRef) -> None:
        self._until_it_dies(lambda: self.delivery.settle(ref, self._actor(ref)))

    def turn(self, action: Action) -> None:
        self._until_it_dies(lambda: self.poller.turn(action.spec.type, REGION))

    def sweep(self) -> None:
        self._until_it_dies(self.sweeper.sweep)

    def look(self) -> None:
        if not self.line.dead and not self.frozen:
            self._until_it_dies(self.leases.look)

    def holds(self) -> bool:
        return not self.line.dead and bool(self.leases.holding())

    def lose_redis(self) -> None:
        self.line.always(failing(LedgerDown), *LEDGER)

    def _actor(self, ref: JobRef) -> str:
        """A message that comes twice has one task id."""
        return f"{self.name}/task-of-{ref.job_id}"

    def _fence(self) -> None:
        self.fenced += 1

    def _until_it_dies(self, step: Callable[[], object]) -> None:
        with suppress(Died):
            step()


class World:
    def __init__(
        self, redis: Redis, times: Times | None = None, options: Options | None = None
    ) -> None:
        self.times = times or Times()
        self.clock = Clock(redis)
        self.redis = MovedRedis(redis, self.clock)
        self.machine = Machine(
            options or Options(ack_window=self.times.ack_window), self.clock.monotonic
        )
        self.ledger = RedisLedger(self.redis, self.times)
        self.fleet = RedisFleet(self.redis, self.times)
        self.observer = Observer()
        self.store = Memory()
        self.vault = Vault()
        self.queues = Queues()
        self.actions: dict[ActionType, Action] = {}
        self.handler: Handler = lambda job: Succeeded()
        self.runs: list[Job[Any]] = []
        self.untrue: list[AssertionError] = []
        self.asked = Asked()
        self.puts, self.accepted = self.asked.puts, self.asked.accepted
        self.workers: list[Worker] = []
        self.poller = self.worker()
        self._looking = False
        self._swept = self.redis.register_script(SWEPT)
        self.clock.watched = lambda: any(worker.holds() for worker in self.workers)
        self.clock.look = self._look

    def worker(self) -> Worker:
        worker = Worker(self, f"host-{len(self.workers)}")
        self.workers.append(worker)
        return worker

    def action(
        self,
        owner: Owner = Owner.THIRD_PARTY,
        on_crash: OnCrash = OnCrash.FAIL,
        **more: Any,
    ) -> Action:
        provider = more.pop("provider", PROVIDERS[owner])
        action_type = ActionType("Deploy", owner, provider, "1")
        spec = ActionSpec(action_type, on_crash=on_crash, **more)

        def handler(job: Job[Any]) -> Outcome:
            self.runs.append(job)
            try:
                return self.handler(job)
            except AssertionError as error:
                self.untrue.append(error)  # the engine takes it for the author's bug
                raise

        action = Action(spec, handler, config_parser(spec.config), __name__)
        self.actions[action_type] = action
        self.machine.define(their(action_type), aws.Rules())
        return action

    def submit(
        self, action: Action, configuration: Mapping[str, str] | None = None, client: str = CLIENT
    ) -> JobRef:
        """A job that AWS has, and nobody was offered."""
        third_party = action.spec.type.owner is Owner.THIRD_PARTY
        work = aws.Work(
            their(action.spec.type),
            configuration or {},
            "pipeline",
            "stage",
            "action",
            client_id=client if third_party else None,
            client_token=TOKEN if third_party else None,
        )
        job = self.machine.submit([work])[0]
        return JobRef(job.id, work.client_id, action.spec.type, REGION)

    def offered(
        self, action: Action, configuration: Mapping[str, str] | None = None, client: str = CLIENT
    ) -> JobRef:
        ref = self.submit(action, configuration, client)
        assert self.offer(action) == [ref]
        return ref

    def offer(self, action: Action) -> list[JobRef]:
        """One poll, noted; what is to be published."""
        offers = Aws(self.machine, self.asked, self.poller.line).poll(action.spec.type, REGION, 10)
        refs = {
            JobRef(offer.job_id, offer.client_id, action.spec.type, REGION): offer.nonce
            for offer in offers
        }
        poll = f"poll-{self.clock.monotonic()}"
        return list(self.ledger.offer(poll, self.ledger.now(), refs))

    def acknowledge_elsewhere(self, ref: JobRef) -> None:
        """Another fleet's worker, which was handed the job last."""
        job = self._job(ref)
        assert job.nonce is not None
        token = Secret(TOKEN) if ref.client_id else None
        self.machine.acknowledge(caller_of(ref, token), job.nonce)

    def sweep(self, worker: Worker | None = None) -> None:
        """A sweep of a fleet that has swept all the time, hence is not blind."""
        self._swept()
        (worker or self.poller).sweep()

    def forget(self) -> None:
        """Redis loses all that this fleet wrote there, but who is there to work."""
        for key in self._keys("dispatcher:*"):
            if not key.startswith("dispatcher:slots:"):
                self.redis.delete(key)

    def forgetting(self, call: Callable[[], Any]) -> Any:
        """Redis answers, and loses what it wrote."""
        for key in self._keys("dispatcher:*"):
            self.redis.copy(key, f"saved:{key}", replace=True)
        answer = call()
        self.forget()
        for key in self._keys("saved:*"):
            self.redis.copy(key, key.removeprefix("saved:"), replace=True)
            self.redis.delete(key)
        return answer

    def _keys(self, pattern: str) -> list[str]:
        return [str(key) for key in self.redis.keys(pattern)]

    def recover(self, after: float | None = None) -> Worker:
        """After a lease somebody sweeps, and a new worker takes what was published."""
        self.clock.advance(self.times.lease.total_seconds() + 1 if after is None else after)
        self.queues.jobs.clear()
        self.queues.settle.clear()
        self.sweep()
        worker = self.worker()
        self.deliver(worker)
        return worker

    def deliver(self, worker: Worker) -> None:
        for ref in _emptied(self.queues.settle):
            worker.settle(ref)
        for ref in _emptied(self.queues.jobs):
            worker.job(ref)

    def action_of(self, job: aws.Job) -> Action:
        known = job.work.action_type
        return next(one for own, one in self.actions.items() if their(own) == known)

    def verdict(self, ref: JobRef) -> Verdict | None:
        result = self._job(ref).result
        found: Verdict | None = result.request["verdict"] if result else None
        return found

    def status(self, ref: JobRef) -> aws.Status:
        return self._job(ref).status

    def record(self, ref: JobRef) -> dict[str, str]:
        found = self.redis.hgetall(f"dispatcher:job:{ref.job_id}")
        return {str(name): str(value) for name, value in found.items()}

    def saw(self, event: Event) -> list[Seen]:
        return self.observer.all(event)

    def _job(self, ref: JobRef) -> aws.Job:
        return self.machine.jobs(ref.job_id)[0]

    def _look(self) -> None:
        if self._looking:
            return
        self._looking = True
        try:
            for worker in self.workers:
                worker.look()
        finally:
            self._looking = False


def _emptied(queue: deque[JobRef]) -> list[JobRef]:
    refs = list(queue)
    queue.clear()
    return refs


def failure_type(verdict: Verdict | None) -> str | None:
    return verdict.failure_type if verdict else None
