"""What a worker's parent does beside its pool: slots, sweeps, dead children, an end in time.

None of it waits for a handler's slot. It runs in the consumer's timer, so each step is short and
swallows what the outside does wrong; the next round repairs it."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import billiard.pool
from billiard import active_children
from billiard.exceptions import WorkerLostError
from celery import bootsteps
from celery.exceptions import InvalidTaskError, TimeLimitExceeded
from celery.signals import task_failure, worker_init, worker_shutting_down
from celery.worker import state
from celery.worker.strategy import default

from dispatcher.broker import QUEUE, CeleryBroker, OpenChannelQoS
from dispatcher.engine.model import LedgerDown, Release
from dispatcher.engine.ports import Event, Observer
from dispatcher.folders import clear_left_behind
from dispatcher.settings import settings
from dispatcher.stall import StallWatch
from dispatcher.store.fleet import ANNOUNCE
from dispatcher.telemetry import traces_wanted
from dispatcher.wiring import configure, process, stopping, wiring

CHILD_CHECK = 0.5  # seconds; the pool alone looks every 5
HEARD = 20  # tenths of a second that a child which goes waits to be heard; the pool alone has 300
LEAVE = timedelta(seconds=1)  # for this process to be gone
HAND_ON = timedelta(seconds=4)  # to do it within, when nothing runs any more

POOLS = frozenset({"prefork", "thread"})  # modules of Celery's

log = logging.getLogger("dispatcher")


class Attendant(bootsteps.StartStopStep):
    """Starts after the consumer's tasks: then the pool is there, and its queues are known."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._timers: list[Any] = []
        # Workers of one machine may share their Celery name.
        self._node = f"{consumer.hostname}/{os.getpid()}"
        self._served: dict[str, int] = {}
        self._queues: set[str] = set()
        broker = CeleryBroker(consumer.app)

        def wanting() -> bool:
            busy = len(state.reserved_requests) >= consumer.pool.num_processes
            queues = [queue.name for queue in consumer.task_consumer.queues]
            return not (stopping() or busy) and any(map(broker.length, queues))

        consumer.stalls = StallWatch(settings().stall_after, wanting, _stalled)
        OpenChannelQoS.heard = staticmethod(consumer.stalls.received)
        consumer.stalls.start()

    def start(self, consumer: Any) -> None:
        consumer.stalls.received()  # a connection that is being made is no stall
        self._queues = {queue.name for queue in consumer.task_consumer.queues}
        sweep = wiring().times.sweep_interval.total_seconds()
        self._every(consumer, ANNOUNCE.total_seconds(), lambda: self._announce(consumer))
        self._every(consumer, sweep, wiring().sweeper.sweep)
        if hasattr(consumer.pool, "maintain_pool"):
            self._every(consumer, CHILD_CHECK, consumer.pool.maintain_pool)
        self._announce(consumer)
        _clear(timedelta())

    def stop(self, consumer: Any) -> None:
        """Called twice at shutdown, and once when the broker is lost."""
        del consumer
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        finishes = stopping() and bool(state.active_requests)
        leaves = wiring().times.shutdown_grace + LEAVE + HAND_ON if finishes else timedelta()
        _swallow(lambda: wiring().fleet.withdraw(self._node, list(self._served), leaves))

    shutdown = stop

    def _every(self, consumer: Any, seconds: float, step: Callable[[], object]) -> None:
        self._timers.append(consumer.timer.call_repeatedly(seconds, step))

    def _announce(self, consumer: Any) -> None:
        if stopping():
            return
        pool, hung = consumer.pool.num_processes, wiring().leases.hung()
        if 2 * hung >= pool:
            # Only a new process has its threads back; the supervisor starts one.
            wiring().observer.saw(Event.HUNG, slots=hung)
            _give_up()
            return
        self._served = slots(pool - hung, self._queues)
        _swallow(lambda: wiring().fleet.announce(self._node, self._served))


def slots(concurrency: int, queues: set[str]) -> dict[str, int]:
    """By provider: all slots, less one where polls and recovery share the pool."""
    providers = [name.removeprefix("provider.") for name in queues if name != QUEUE]
    shared = QUEUE in queues
    return {provider: max(concurrency - shared, 1) for provider in providers}


def _swallow(tell: Callable[[], None]) -> None:
    """The next round tells it again."""
    try:
        tell()
    except LedgerDown as error:
        wiring().observer.saw(Event.LEDGER_DOWN, error=error)


def strategy(task: Any, app: Any, consumer: Any, **options: Any) -> Callable[..., None]:
    """Celery's own, but a message that it cannot read is refused.

    Otherwise its ValueError ends the worker, and the message goes back to end the next one.
    """
    receive = default(task, app, consumer, **options)

    def read(message: Any, *arguments: Any, **more: Any) -> None:
        consumer.stalls.received()
        try:
            receive(message, *arguments, **more)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InvalidTaskError(type(error).__name__) from None

    return read


@worker_init.connect
def _set_up(sender: Any = None, **_: object) -> None:
    """Before the pool forks. Gossip and mingle cost chatter, and serve nothing here."""
    configure(
        replace(
            process(),
            parent=os.getpid(),
            concurrency=sender.concurrency,
            node=sender.hostname,
            observers=_tracing(sender.hostname),
        )
    )
    sender.options.update(without_gossip=True, without_mingle=True)
    # Celery 5.7 forgets at a stop what a child has not confirmed yet. The child runs it all the
    # same, and its parent, which waits for it to go, never reads how that ended.
    billiard.pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = HEARD
    pool = sender.pool_cls.__module__.rpartition(".")[2]
    if pool not in POOLS:
        log.warning(
            "-P %s holds up sweeps and stops while a handler runs; use -P prefork or threads", pool
        )


def _tracing(node: str) -> Sequence[Observer]:
    if not traces_wanted(os.environ):
        return ()
    try:
        from dispatcher import tracing  # noqa: PLC0415 - unasked nothing of it is imported

        return (tracing.start(node),)
    except ImportError:
        log.warning("no traces: install codepipeline-dispatcher[otel], or unset OTEL_EXPORTER_...")
    except Exception as error:  # noqa: BLE001 - what OpenTelemetry makes of its variables
        log.warning("no traces: correct the variables OTEL_... (%s)", type(error).__name__)
    return ()


@task_failure.connect
def _child_died(
    task_id: str = "",
    exception: BaseException | None = None,
    kwargs: dict[str, object] | None = None,
    **_: object,
) -> None:
    """In the parent: the pool lost the child that ran this task, or is about to end it."""
    if os.getpid() != process().parent:
        return
    if isinstance(exception, WorkerLostError):
        hand_on((kwargs or {}).get("job"), task_id, timedelta())
        _clear(timedelta())
    elif isinstance(exception, TimeLimitExceeded):
        hand_on((kwargs or {}).get("job"), task_id, LEAVE)  # the signals come after this one
        _clear(2 * LEAVE)


def _clear(after: timedelta) -> None:
    """Of folders that dead processes left; it may take as long as they are large."""
    timer = threading.Timer(after.total_seconds(), clear_left_behind)
    timer.daemon = True
    timer.start()


@worker_shutting_down.connect
def _leave(**_: object) -> None:
    """In the parent's signal handler: handlers are told by the flag, the rest is the guard's."""
    _stop_within_grace(os.EX_OK)


def _stalled() -> None:
    wiring().observer.saw(Event.STALLED)
    _give_up()


def _give_up() -> None:
    """As at a signal, but its supervisor is to start it again. Its loop may not see this any more;
    the guard does without it."""
    state.should_stop = os.EX_TEMPFAIL  # type: ignore[assignment] # Celery's own, untyped
    _stop_within_grace(os.EX_TEMPFAIL)


def _stop_within_grace(status: int) -> None:
    if not stopping():
        stopping.set()
        threading.Thread(target=_end_in_time, args=(status,), name="grace", daemon=True).start()


def _end_in_time(status: int) -> None:
    """After the grace whatever still runs is ended, and handed on at once."""
    time.sleep(wiring().times.shutdown_grace.total_seconds())
    try:
        wiring().leases.end()
        after = LEAVE
        for child in active_children():
            if child.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)
            after = timedelta()  # what runs in threads ends only with this process
        # Who begins after `after` must not find this process alive: a sweep does what is left.
        until = time.monotonic() + (after / 2 if after else HAND_ON).total_seconds()
        for request in list(state.active_requests):
            told = hand_on(request.kwargs.get("job"), request.id, after)
            if not told or time.monotonic() > until:
                break
    finally:
        os._exit(status)


def hand_on(job: object, task_id: str, after: timedelta) -> bool:
    """Ends the lease of a delivery of this worker that is over, and publishes what is to follow.

    False: the ledger or the broker did not answer. What is not over yet is left to a sweep.
    """
    if not isinstance(job, str):
        return True
    wired = wiring()
    owner = f"{process().node}/{task_id}/"
    try:
        overdue = wired.ledger.release(job, owner, Release(after, "its process is gone"))
    except LedgerDown as error:
        wired.observer.saw(Event.LEDGER_DOWN, error=error)
        return False
    if overdue is None:
        return True
    if after:  # it may still write, until this process is gone
        wired.observer.saw(Event.UNFINISHED, overdue.ref)
        return True
    return wired.sweeper.hand_on(overdue, "its process is gone")
