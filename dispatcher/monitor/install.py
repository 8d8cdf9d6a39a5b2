"""Adds all of it to the Flower that is about to start in this process: defaults, pages, gauges.

Only lists and settings that Flower reads are added to; nothing of its code is replaced."""

import os
import sys
from functools import cache, partial

import click
from celery import Celery
from celery.signals import import_modules
from flower import urls
from flower.command import flower
from flower.options import default_options

from dispatcher.broker import QUEUE, CeleryBroker
from dispatcher.engine.model import BrokerDown
from dispatcher.monitor import defaults, gauges
from dispatcher.monitor.given import Given
from dispatcher.monitor.layout import Layout
from dispatcher.monitor.pages import Desk, handlers
from dispatcher.monitor.readings import Readings
from dispatcher.settings import settings
from dispatcher.store.connection import connect


def install(app: Celery) -> None:
    """While Celery loads `app` for `flower`: Flower has read no options and built nothing yet."""
    readings = cache(partial(_readings, app))
    defaults.offer(default_options, lambda: str(app.conf.broker_url))
    urls.handlers[-1:-1] = handlers(Desk(readings))  # the last one catches all
    urls.settings["template_loader"] = Layout(urls.settings["template_path"])

    def reading(
        context: click.Context, _: click.Parameter, arguments: tuple[str, ...]
    ) -> tuple[str, ...]:
        given = Given(default_options, arguments, os.environ)
        _refuse(given.misread(_before_flower(context)))

        def starting(**_: object) -> None:
            _refuse(given.unfit())
            defaults.check(default_options)
            gauges.install(readings())

        import_modules.connect(starting, weak=False)  # Flower sends it with its options read
        return arguments

    (argument,) = (one for one in flower.params if one.name == "tornado_argv")
    argument.callback = reading


def _refuse(fault: str) -> None:
    if fault:
        click.echo(fault, err=True)
        sys.exit(2)


def _before_flower(context: click.Context) -> set[str]:
    """Celery's options, and those of its worker that many write."""
    above = context.parent.command.params if context.parent else ()
    return {"-l", "--loglevel"} | {name for one in above for name in one.opts}


def _readings(app: Celery) -> Readings:
    given, broker = settings(), CeleryBroker(app)
    queues = (queue.name for queue in app.conf.task_queues if queue.name != QUEUE)

    def messages(provider: str) -> int | None:
        try:
            return broker.waiting(provider)
        except BrokerDown:
            return None

    return Readings(
        connect(given.redis_url.get_secret_value()),
        given.times,
        {name.removeprefix("provider.") for name in queues},
        messages,
    )
