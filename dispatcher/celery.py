"""The Celery app: queues, routes, one tick, one task per registered action.

`celery -A dispatcher` finds `app` here. Only a worker needs providers, so only a worker stops
without."""

import sys
from collections.abc import Iterable
from typing import Any, NoReturn

import click
from celery import Celery
from celery.signals import beat_init, celeryd_init, setup_logging
from kombu import Queue

from dispatcher import registry, tasks, worker
from dispatcher.broker import (
    QUEUE,
    TICK,
    CeleryBroker,
    survive_lost_connections,
    transport_options,
)
from dispatcher.checks import Report, queries, ready, regions
from dispatcher.settings import Settings, SettingsError, settings
from dispatcher.telemetry import set_up_logging
from dispatcher.wiring import Process, configure


def _configuration(given: Settings) -> dict[str, Any]:
    tick = given.poll_interval
    return {
        "broker_url": given.broker,
        "broker_connection_retry_on_startup": True,
        "broker_channel_error_retry": True,  # a Redis that is full or read-only ends no worker
        "broker_transport_options": transport_options(given.broker, within=5),
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
        "beat_scheduler": "dispatcher.ticker:Ticker",
        "beat_max_loop_interval": max(tick, 1),
        "beat_enable_remote_control": True,  # for `dispatcher health beat`
        # No expiry: Celery compares it with the worker's clock, and a late tick is harmless.
        "beat_schedule": {"tick": {"task": TICK, "schedule": tick, "options": {"queue": QUEUE}}},
    }


def _stop(faults: Iterable[str], exit_code: int) -> NoReturn:
    """Sentences, not a traceback. Exit status 2: what was given is wrong; 1: what is there."""
    print(*faults, sep="\n", file=sys.stderr, flush=True)  # noqa: T201
    sys.exit(exit_code)


def _configure() -> dict[str, Any]:
    """When the app is first used. A script gets the error, a command of Celery's its sentences."""
    try:
        return _configuration(settings())
    except SettingsError as error:
        if click.get_current_context(silent=True) is None:
            raise
        _stop(str(error).splitlines(), 2)


def _load(app: Celery) -> Report:
    """The faults that keep a worker from starting, and no other process."""
    app.conf.task_queues = [Queue(QUEUE, routing_key=QUEUE)]
    where = regions(settings())
    try:
        actions = registry.load(settings().providers)
    except registry.ProviderError as error:
        return Report((), where.faults + error.faults, where.wrong_settings)
    asked = queries(settings(), actions)
    names = sorted({action.spec.type.queue for action in actions})
    app.conf.task_queues = [Queue(name, routing_key=name) for name in (QUEUE, *names)]
    configure(Process({action.spec.type: action for action in actions}, CeleryBroker(app)))
    tasks.register(app, actions)
    wrong = where.wrong_settings or asked.wrong_settings
    return Report((), where.faults + asked.faults, wrong)


def _prepare_flower(app: Celery) -> None:
    """Where `flower` is the command: what it needs to know before it reads its options."""
    context = click.get_current_context(silent=True)
    if context is not None and context.invoked_subcommand == "flower":
        from dispatcher.monitor.install import install  # noqa: PLC0415 - Flower's alone

        install(app)


survive_lost_connections()
app = Celery("dispatcher", set_as_current=True)
app.add_defaults(_configure)
app.steps["consumer"].add(worker.Attendant)
_prepare_flower(app)
_loaded = Report()


@app.on_after_configure.connect
def _load_providers(**_: object) -> None:
    global _loaded  # noqa: PLW0603 - one process, one app
    _loaded = _load(app)


@celeryd_init.connect
def _check_worker(options: dict[str, Any] | None = None, **_: object) -> None:
    """All that keeps it from working, at once; its supervisor starts it again."""
    asked = _asked(options or {})  # configures the app, if nothing else did
    reports = [_loaded, ready(settings()), asked]
    faults = [fault for report in reports for fault in report.faults]
    if faults:
        _stop(faults, max(report.exit_code for report in reports))


@beat_init.connect
def _check_beat(**_: object) -> None:
    """Without Redis a beat would log a traceback each tick; it needs no provider."""
    outside = ready(settings())
    if outside.faults:
        _stop(outside.faults, outside.exit_code)


def _asked(options: dict[str, Any]) -> Report:
    wanted = options.get("queues") or ()
    wanted = wanted.split(",") if isinstance(wanted, str) else wanted
    known = [queue.name for queue in app.conf.task_queues]
    odd = [name for name in wanted if name not in known]
    if not odd or len(known) == 1:  # without providers no queue of theirs is known
        return Report()
    text = f"-Q {','.join(odd)}: no such queue; there are {', '.join(known)}."
    return Report(faults=(text,), wrong_settings=True)


@setup_logging.connect
def _log(loglevel: int | str = "INFO", **_: object) -> None:
    set_up_logging(loglevel)
