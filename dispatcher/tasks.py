"""Celery's tasks: thin shells that turn a message into a call of the engine."""

import logging
import os
import signal
from collections.abc import Iterable
from functools import partial
from typing import Any

from celery import Celery, Task

from dispatcher.broker import POLL, SETTLE, TICK
from dispatcher.engine.model import Action, JobRef
from dispatcher.wiring import process, wiring

CeleryTask = Task[Any, Any]

log = logging.getLogger("dispatcher")

HARD_LIMIT_AFTER = 30.0  # seconds beyond a handler's own: its time-out was stored before
LONGEST_ID = 512  # AWS's limit of a job id


def actor(task: CeleryTask) -> str:
    """Host and task id: what the parent knows of a child that died, to release its job."""
    return f"{task.request.hostname}/{task.request.id}"


def register(app: Celery, actions: Iterable[Action]) -> None:
    # The stubs cannot say that one shell serves many names.
    task: Any = partial(app.task, typing=False, Strategy="dispatcher.worker:strategy")
    for action in actions:
        task(_job, **_options(action))
    task(_settle, name=SETTLE, bind=True)
    task(_poll, name=POLL)
    task(_tick, name=TICK)


def _options(action: Action) -> dict[str, Any]:
    limit = action.spec.time_limit.total_seconds() + HARD_LIMIT_AFTER
    return {"name": action.spec.type.task_name, "bind": True, "time_limit": limit}


def _job(task: CeleryTask, /, **kwargs: object) -> None:
    ref = _ref(kwargs, task.name)
    if ref is not None:
        _outlive_the_group()
        wiring().delivery.job(ref, actor(task))


def _settle(task: CeleryTask, /, **kwargs: object) -> None:
    ref = _ref(kwargs, str(kwargs.get("type")))
    if ref is not None:
        wiring().delivery.settle(ref, actor(task))


def _poll(**kwargs: object) -> None:
    wired = wiring()
    for action_type, region in wired.turns():
        if kwargs == {"type": action_type.task_name, "region": region}:
            wired.poller.turn(action_type, region)


def _tick() -> None:
    wired = wiring()
    wired.poller.tick(wired.turns())


def _ref(kwargs: dict[str, object], task_name: str) -> JobRef | None:
    """None: a message that is not ours, said so and dropped. Nothing of it is shown."""
    job, client, region = (kwargs.get(name) for name in ("job", "client", "region"))
    known = {one.task_name: one for one in process().actions}.get(task_name)
    if (
        known is None
        or not isinstance(job, str)
        or not 0 < len(job) <= LONGEST_ID
        or not isinstance(client, str | None)
        or not isinstance(region, str)
    ):
        log.warning("foreign message dropped", extra={"action": "foreign_message"})
        return None
    return JobRef(job, client, known, region)


def _outlive_the_group() -> None:
    """A SIGTERM to the whole process group must not kill a pool child's handler.

    Celery's pool sets its own signal handler after every hook that it offers: ours holds from the
    first job on.
    """
    child = process().parent not in {None, os.getpid()}
    if child and signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
