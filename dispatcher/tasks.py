"""Celery's tasks: thin shells that turn a message into a call of the engine."""

import logging
import os
import signal
from collections.abc import Iterable
from functools import partial
from types import FrameType
from typing import Any

from celery import Celery, Task

from dispatcher.broker import POLL, SETTLE, TICK
from dispatcher.engine.model import JOB_ID, Action, JobRef
from dispatcher.engine.times import PUT_INLINE
from dispatcher.settings import settings
from dispatcher.wiring import process, regions, wiring

CeleryTask = Task[Any, Any]

log = logging.getLogger("dispatcher")


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
    """The pool's hard limit stands behind ours: what precedes and follows a handler fits in."""
    limit = action.spec.time_limit + 3 * settings().times.ack_window + 2 * PUT_INLINE
    name = action.spec.type.task_name
    return {"name": name, "bind": True, "time_limit": limit.total_seconds()}


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
    turns = {(one.task_name, region): (one, region) for one, region in wiring().turns()}
    asked = turns.get((str(kwargs.get("type")), str(kwargs.get("region"))))
    if asked is None:
        _foreign()
    else:
        wiring().poller.turn(*asked)


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
        or not JOB_ID.fullmatch(job)
        or not isinstance(client, str | None)
        or region not in regions()
    ):
        _foreign()
        return None
    return JobRef(job, client, known, str(region))


def _foreign() -> None:
    log.warning("foreign message dropped", extra={"action": "foreign_message"})


def _outlive_the_group() -> None:
    """A SIGTERM to the whole process group must not kill a pool child's handler.

    Celery's pool sets its own signal handler after every hook that it offers: ours holds from the
    first job on.
    """
    child = process().parent not in {None, os.getpid()}
    if child and signal.getsignal(signal.SIGTERM) is not _outlive:
        signal.signal(signal.SIGTERM, _outlive)


def _outlive(_number: int, _frame: FrameType | None) -> None:
    """Unlike SIG_IGN it is not inherited by what a handler starts."""
