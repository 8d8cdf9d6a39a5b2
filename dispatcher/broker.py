"""The engine's Broker over Celery: what is published, and how long a queue is."""

import contextvars
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from celery import Celery
from kombu.exceptions import ChannelError, KombuError
from kombu.transport.redis import Channel, QoS
from redis.exceptions import ResponseError

from dispatcher.engine.model import BrokerDown, JobRef
from dispatcher.sdk import ActionType

T = TypeVar("T")

SETTLE = "dispatcher.settle"
POLL = "dispatcher.poll"
TICK = "dispatcher.tick"
QUEUE = "dispatcher"  # of polls, ticks and recovery


def transport_options(url: str, within: float) -> dict[str, Any]:
    """kombu hands options on to the broker's client: others than Redis's know none of these."""
    if not url.startswith(("redis", "sentinel")):
        return {}
    return {
        "visibility_timeout": 300,  # of messages not yet started: acknowledgement is early
        "socket_timeout": within,
        "socket_connect_timeout": within,
        "socket_keepalive": True,
        "health_check_interval": 10,
    }


class OpenChannelQoS(QoS):
    """kombu's, but nothing is acknowledged on a channel that is gone with its connection.

    Celery acknowledges from its loop, after the task was accepted: by then the connection may be
    lost. kombu 5.7 fails on such a channel with an AttributeError, and that ends the worker.
    """

    heard: Callable[[], None] = staticmethod(lambda: None)  # told of each message received

    def append(self, message: Any, delivery_tag: str) -> None:
        type(self).heard()
        super().append(message, delivery_tag)

    def restore_visible(self, *arguments: Any, **more: Any) -> None:
        """Asked while a connection is set up: an error here would lose it, and leave it open."""
        with suppress(ResponseError):  # of a Redis that is full or read-only
            super().restore_visible(*arguments, **more)

    def ack(self, delivery_tag: str) -> None:
        if not self.channel.closed:
            super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002
        if not self.channel.closed:
            super().reject(delivery_tag, requeue=requeue)


def survive_lost_connections() -> None:
    """A message is only a hint, so what a lost connection had not acknowledged need not go back.

    kombu 5.7 tries to put it back on the connection that is gone, and that can end the worker.
    """
    Channel.do_restore = False
    Channel.QoS = OpenChannelQoS


def message(ref: JobRef) -> dict[str, Any]:
    """All that a job's message says; the type is the task's name."""
    return {"job": ref.job_id, "client": ref.client_id, "region": ref.region}


class CeleryBroker:
    """No retry below, since a message is only a hint: the next offer or sweep repeats it.

    No expiry either: Celery compares it with the consumer's clock.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        transport: Any = app.connection_for_write()  # connects to nothing
        self._errors = (
            KombuError,
            OSError,
            *transport.connection_errors,
            *transport.channel_errors,
        )

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

        self._reach(send)

    def settle(self, ref: JobRef) -> None:
        self._send(SETTLE, {**message(ref), "type": ref.type.task_name})

    def ask_to_poll(self, action_type: ActionType, region: str) -> None:
        self._send(POLL, {"type": action_type.task_name, "region": region})

    def waiting(self, provider: str) -> int:
        return self.length(f"provider.{provider}")

    def length(self, queue: str) -> int:
        """Messages that no worker has received. Raises BrokerDown."""

        def ask() -> int:
            connections: Any = self._app.pool
            with connections.acquire(block=True) as connection:
                channel = connection.default_channel
                try:
                    return int(channel.queue_declare(queue, passive=True).message_count)
                except ChannelError:
                    return 0  # nobody declared it yet

        return self._reach(ask)

    def _send(self, name: str, kwargs: dict[str, Any]) -> None:
        self._reach(lambda: self._app.send_task(name, kwargs=kwargs, queue=QUEUE, retry=False))

    def _reach(self, send: Callable[[], T]) -> T:
        try:
            # A trace's span that an error leaves open ends with this context.
            return contextvars.copy_context().run(send)
        except self._errors as error:
            raise BrokerDown(type(error).__name__) from None
