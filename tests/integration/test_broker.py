"""kombu's channels as the app sets them up, on this run's Redis."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from kombu import Connection, Consumer, Message, Producer, Queue
from redis import Redis
from redis.exceptions import ResponseError

import dispatcher.celery  # noqa: F401 - sets kombu up
from dispatcher.redis_server import RedisServer


@pytest.fixture
def connection(redis_server: RedisServer, redis: Redis) -> Iterator[Connection]:
    with Connection(redis_server.url) as opened:
        yield opened


def delivered(connection: Connection) -> tuple[Any, Message]:
    """A channel, and a message that it has received and not answered."""
    queue = Queue("some", routing_key="some")
    received: list[Message] = []
    channel: Any = connection.channel()
    with Consumer(channel, queue, on_message=received.append, accept=["json"]):
        Producer(channel).publish({}, routing_key="some", declare=[queue])
        connection.drain_events(timeout=5)
    return channel, received[0]


@pytest.mark.parametrize("answer", ["ack_log_error", "reject_log_error"])
def test_what_a_lost_connection_had_delivered_can_still_be_answered(
    connection: Connection, answer: str
) -> None:
    channel, message = delivered(connection)

    channel.close()  # as Celery's consumer does when it lost the connection

    getattr(message, answer)(logging.getLogger(), connection.connection_errors)


def test_a_redis_that_takes_no_writes_leaves_the_channel_alone(
    connection: Connection, redis: Redis
) -> None:
    """kombu asks this while a connection is made; an error there would leave it open, for ever."""
    channel: Any = connection.channel()
    redis.config_set("min-replicas-to-write", "1")
    try:
        channel.qos.restore_visible(interval=1)
        with pytest.raises(ResponseError):
            redis.set("any", "thing")
    finally:
        redis.config_set("min-replicas-to-write", "0")


def test_on_an_open_channel_an_answered_message_is_gone(
    connection: Connection, redis: Redis
) -> None:
    _, message = delivered(connection)
    assert redis.hlen("unacked") == 1

    message.ack()

    assert redis.hlen("unacked") == 0
