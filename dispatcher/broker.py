"""The engine's Broker over Celery: what is published, and how long a queue is."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from celery import Celery
from kombu.exceptions import ChannelError, KombuError

from dispatcher.engine.model import BrokerDown, JobRef
from dispatcher.sdk import ActionType

T = TypeVar("T")

SETTLE = "dispatcher.settle"
POLL = "dispatcher.poll"
TICK = "dispatcher.tick"
QUEUE = "dispatcher"  # of polls, ticks and recovery


def message(ref: JobRef) -> dict[str, Any]:
    """All that a job's message says; the type is the task's name."""
    return {"job": ref.job_id, "client": ref.client_id, "region": ref.region}


class CeleryBroker:
    """No retry below: a message is only a hint, and the next offer or sweep repeats it."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def publish(self, refs: Sequence[JobRef]) -> None:
        def send() -> None:
            producers: Any = self._app.producer_pool
            with producers.acquire(block=True) as producer, producer.batch():
                for ref in refs:
                    self._app.send_task(
                        ref.type.task_name,
                        kwargs=message(ref),
                        queue=ref.type.queue,
                        producer=producer,
                        retry=False,
                    )

        _published(send)

    def settle(self, ref: JobRef) -> None:
        self._send(SETTLE, {**message(ref), "type": ref.type.task_name})

    def ask_to_poll(self, action_type: ActionType, region: str, expires: timedelta) -> None:
        body = {"type": action_type.task_name, "region": region}
        self._send(POLL, body, expires=expires.total_seconds())

    def waiting(self, provider: str) -> int:
        def ask() -> int:
            connections: Any = self._app.pool
            with connections.acquire(block=True) as connection:
                channel = connection.default_channel
                try:
                    return int(
                        channel.queue_declare(f"provider.{provider}", passive=True).message_count
                    )
                except ChannelError:
                    return 0  # nobody declared it yet

        return _published(ask)

    def _send(self, name: str, kwargs: dict[str, Any], expires: float | None = None) -> None:
        _published(
            lambda: self._app.send_task(
                name, kwargs=kwargs, queue=QUEUE, expires=expires, retry=False
            )
        )


def _published(send: Callable[[], T]) -> T:
    try:
        return send()
    except (KombuError, OSError) as error:
        raise BrokerDown(type(error).__name__) from None
