"""Which addresses lead to another machine in clear, or without a password."""

import pytest

from dispatcher.checks.exposure import broker_exposed, redis_exposed
from dispatcher.settings import Settings, read

CANARY = "canary-51be"
HOSTS = ("10.0.0.1", "cache", "localhost.example", "127.evil.example", "[2001:db8::1]", "8.8")


def settings(name: str, url: str, **more: str) -> Settings:
    given = {name: url} | more
    return read({f"DISPATCHER_{key}": value for key, value in given.items()})


def of_redis(url: str, **more: str) -> tuple[str, ...]:
    return redis_exposed(settings("REDIS_URL", url, **more))


def of_broker(url: str, **more: str) -> tuple[str, ...]:
    return broker_exposed(settings("BROKER_URL", url, **more))


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.9.10:1234", "localhost", "LocalHost:6379", "[::1]:6379"]
)
def test_this_machine_is_reached_by_nobody_else(host: str) -> None:
    assert of_redis(f"redis://{host}/0") == ()
    assert of_broker(f"amqp://{host}//") == ()


@pytest.mark.parametrize("host", HOSTS)
def test_another_machine_needs_tls_and_a_password(host: str) -> None:
    (bare,) = of_redis(f"redis://{host}/0")
    (clear,) = of_redis(f"redis://:{CANARY}@{host}/0")
    (open_,) = of_redis(f"rediss://{CANARY}@{host}/0")

    assert "without TLS and without a password;" in bare
    assert "without TLS;" in clear
    assert "without a password;" in open_
    assert of_redis(f"rediss://:{CANARY}@{host}/0") == ()
    for text in (bare, clear, open_):
        assert text.startswith("DISPATCHER_REDIS_URL: ")
        assert "DISPATCHER_ALLOW_INSECURE_REDIS=true" in text
        assert CANARY not in text
        assert host not in text


@pytest.mark.parametrize("said", ["none", "None", "CERT_NONE"])
def test_a_certificate_that_nobody_checks_is_no_tls(said: str) -> None:
    url = f"rediss://:{CANARY}@cache/0?health_check_interval=5&ssl_cert_reqs={said}"

    for text in (*of_redis(url), *of_broker(url)):
        assert "without a check of its certificate; write it as rediss://:PASSWORD@HOST" in text
        assert CANARY not in text
    assert len(of_redis(url)) == len(of_broker(url)) == 1
    assert of_redis(url.replace(said, "required")) == ()
    assert of_redis(url.replace("cache", "localhost")) == ()
    assert of_redis(url, ALLOW_INSECURE_REDIS="true") == ()


@pytest.mark.parametrize("host", HOSTS)
def test_an_operator_may_know_better(host: str) -> None:
    assert of_redis(f"redis://{host}/0", ALLOW_INSECURE_REDIS="true") == ()
    assert of_broker(f"amqp://{host}//", ALLOW_INSECURE_REDIS="1") == ()
    assert of_redis(f"redis://{host}/0", ALLOW_INSECURE_REDIS="false") != ()


@pytest.mark.parametrize(
    "url",
    [
        "amqp://user:pw@rabbit//",
        "pyamqp://rabbit",
        "amqp://127.0.0.1;amqp://rabbit",
        "amqps://user:pw@one;amqp://user:pw@two",
        "redis://:pw@redis/0",
        "sentinel://:pw@one:26379;sentinel://:pw@two:26379",
        "redis+redis://:pw@redis/0",
    ],
)
def test_a_broker_elsewhere_without_tls_is_one_fault(url: str) -> None:
    (text,) = of_broker(url)

    assert text.startswith("DISPATCHER_BROKER_URL: it leads to another machine without TLS;")


@pytest.mark.parametrize(
    "url",
    [
        "amqps://user:pw@rabbit//",
        "rediss://:pw@redis/0",
        "redis+socket:///run/redis.sock",
        "sqs://",
        "memory://",
        "amqp://",
        "amqp://127.0.0.1;amqp://localhost",
    ],
)
def test_brokers_over_tls_on_this_machine_or_of_another_kind_are_well(url: str) -> None:
    assert of_broker(url) == ()


def test_the_broker_is_not_told_of_twice_where_it_is_redis() -> None:
    assert broker_exposed(settings("REDIS_URL", "redis://10.0.0.1/0")) == ()
