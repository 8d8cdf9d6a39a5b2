"""Whether a running worker or beat does its work, asked through the broker.

It loads no provider: a probe runs every few seconds beside the process that it asks."""

from dataclasses import dataclass
from typing import Any

from celery import Celery
from celery.utils import nodenames
from kombu.exceptions import KombuError

from dispatcher.broker import transport_options

ANSWER_WITHIN = 2.0  # seconds
NO_BROKER = (KombuError, OSError, TypeError, ValueError, KeyError)  # the last three: a wrong URL


@dataclass(frozen=True)
class Answer:
    well: bool
    text: str


def ask_worker(broker: str, node: str | None = None) -> Answer:
    """Well: it consumes a queue. After its broker was lost, a worker may answer and not do so."""
    name = _name(node, "celery")
    try:
        answer = _inspect(broker, name).active_queues()
    except NO_BROKER as error:
        return _no_broker(error)
    if not answer:
        return Answer(well=False, text=f"{name} does not answer; is it running under this name?")
    queues = sorted(queue["name"] for queue in answer[name])
    if not queues:
        return Answer(well=False, text=f"{name} answers, but consumes nothing; restart it.")
    return Answer(well=True, text=f"{name} consumes {', '.join(queues)}.")


def ask_beat(broker: str, node: str | None = None) -> Answer:
    name = _name(node, "celerybeat")
    try:
        answer = _inspect(broker, name).ping()
    except NO_BROKER as error:
        return _no_broker(error)
    if not answer:
        return Answer(well=False, text=f"{name} does not answer; does it run, and tick?")
    return Answer(well=True, text=f"{name} ticks.")


def _name(node: str | None, default: str) -> str:
    """As `-n` is read: with %h, or a host alone."""
    full: Any = nodenames.default_nodename  # its stubs know no default name
    return str(nodenames.host_format(full(node, default)))


def _inspect(broker: str, node: str) -> Any:
    app = Celery("health", broker=broker, set_as_current=False)
    app.conf.broker_transport_options = {
        **transport_options(broker, within=ANSWER_WITHIN),
        "max_retries": 1,  # without it kombu tries for ever
        "interval_start": 0.1,
    }
    return app.control.inspect(destination=[node], timeout=ANSWER_WITHIN)


def _no_broker(error: Exception) -> Answer:
    text = f"the broker does not answer ({type(error).__name__}); `dispatcher check` says more."
    return Answer(well=False, text=text)
