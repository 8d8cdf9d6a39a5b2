"""Adds all of it to the Flower that is about to start in this process: defaults, pages, gauges.

Only lists and settings that Flower reads are added to; nothing of its code is replaced."""

from functools import cache, partial

from celery import Celery
from celery.signals import import_modules
from flower import urls
from flower.options import default_options

from dispatcher.broker import QUEUE, CeleryBroker
from dispatcher.engine.model import BrokerDown
from dispatcher.monitor import defaults, gauges
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

    def starting(**_: object) -> None:
        defaults.check(default_options)
        gauges.install(readings())

    import_modules.connect(starting, weak=False)  # Flower sends it with its options read


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
