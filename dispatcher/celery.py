"""The Celery app: queues, routes, one tick, one task per registered action.

`celery -A dispatcher` finds `app` here. Providers are loaded when the app is configured; only a worker needs them,
so only a worker stops without."""

import sys
from typing import Any

from celery import Celery
from celery.signals import celeryd_init, setup_logging
from kombu import Queue

from dispatcher import registry, tasks, worker
from dispatcher.broker import QUEUE, TICK, CeleryBroker
from dispatcher.settings import Settings, SettingsError, settings
from dispatcher.telemetry import set_up_logging
from dispatcher.wiring import Process, configure, regions


def _configuration(given: Settings) -> dict[str, Any]:
    tick = given.poll_interval
    return {
        "broker_url": given.broker,
        "broker_connection_retry_on_startup": True,
        "broker_transport_options": {
            "visibility_timeout": 300,  # of messages reserved, not started: acknowledgement is early
            "socket_timeout": 5,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 10,
        },
        "task_default_queue": QUEUE,
        "task_create_missing_queues": False,
        "task_ignore_result": True,
        "task_serializer": "json",
        "event_serializer": "json",
        "accept_content": ["json"],
        "worker_prefetch_multiplier": 1,
        "worker_disable_prefetch": True,
        "worker_send_task_events": True,
        "worker_hijack_root_logger": False,
        "worker_proc_alive_timeout": 30,
        "control_queue_expires": 60,
        "event_queue_expires": 60,
        "beat_scheduler": "celery.beat:Scheduler",  # no schedule file: one entry, and it may be lost
        "beat_max_loop_interval": max(tick, 1),
        "beat_schedule": {
            "tick": {
                "task": TICK,
                "schedule": tick,
                "options": {"queue": QUEUE, "expires": 3 * tick},
            }
        },
    }


def _stop(text: object) -> None:
    """A sentence instead of a traceback; exit status 2: what was given is wrong."""
    print(text, file=sys.stderr)  # noqa: T201
    sys.exit(2)


def _load(app: Celery) -> Exception | None:
    """The fault that keeps a worker from starting."""
    try:
        actions = registry.load(settings().providers)
        regions()
    except (registry.ProviderError, SettingsError) as error:
        app.conf.task_queues = [Queue(QUEUE)]
        return error
    names = sorted({action.spec.type.queue for action in actions})
    app.conf.task_queues = [Queue(QUEUE), *map(Queue, names)]
    configure(Process({action.spec.type: action for action in actions}, CeleryBroker(app)))
    tasks.register(app, actions)
    return None


def _create() -> Celery:
    try:
        given = settings()
    except SettingsError as error:
        _stop(error)
        raise
    app = Celery("dispatcher", set_as_current=True)
    app.conf.update(_configuration(given))
    app.steps["consumer"].add(worker.Attendant)
    return app


app = _create()
_fault = _load(app)


@celeryd_init.connect
def _check(options: dict[str, Any] | None = None, **_: object) -> None:
    if _fault is not None:
        _stop(_fault)
    wanted = (options or {}).get("queues") or ()
    wanted = wanted.split(",") if isinstance(wanted, str) else wanted
    known = [queue.name for queue in app.conf.task_queues]
    if odd := [name for name in wanted if name not in known]:
        _stop(f"-Q {','.join(odd)}: no such queue; there are {', '.join(known)}.")


@setup_logging.connect
def _log(loglevel: int | str = "INFO", **_: object) -> None:
    set_up_logging(loglevel)
