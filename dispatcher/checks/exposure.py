"""Whether what goes to Redis or a broker could be read, or put in, by others on the network.

Told by the address alone, before anything is sent there."""

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from dispatcher.settings import PREFIX, Settings

REDIS: Final = frozenset({"redis", "rediss", "sentinel"})
AMQP: Final = frozenset({"amqp", "amqps", "pyamqp", "librabbitmq", "qpid"})
TLS: Final = frozenset({"rediss", "amqps"})
UNCHECKED: Final = frozenset({"none", "cert_none"})  # of ssl_cert_reqs, in redis-py and in kombu


def redis_exposed(given: Settings) -> tuple[str, ...]:
    return _faults("REDIS_URL", given.redis_url.get_secret_value(), given)


def broker_exposed(given: Settings) -> tuple[str, ...]:
    url = given.broker_url
    return () if url is None else _faults("BROKER_URL", url.get_secret_value(), given)


def _faults(name: str, urls: str, given: Settings) -> tuple[str, ...]:
    if given.allow_insecure_redis:
        return ()
    # Several brokers, for a fail-over, stand with semicolons between.
    return tuple(dict.fromkeys(text for url in urls.split(";") for text in _fault(name, url)))


def _fault(name: str, url: str) -> Iterator[str]:
    scheme, _, rest = url.partition("://")
    transport = scheme.partition("+")[0]
    if transport not in REDIS | AMQP:
        return
    parts = urlsplit(f"http://{rest}")  # as kombu reads it; urlsplit knows not every scheme
    if _is_here(unquote(parts.hostname or "")):
        return
    lacks = [] if scheme in TLS else ["TLS"]
    lacks += ["a check of its certificate"] if _unchecked(parts.query) else []
    lacks += ["a password"] if transport in REDIS and not parts.password else []
    if lacks:
        form = "rediss://:PASSWORD@HOST" if transport in REDIS else "amqps://USER:PASSWORD@HOST"
        yield (
            f"{PREFIX}{name}: it leads to another machine without {' and without '.join(lacks)}; "
            f"write it as {form}, or set {PREFIX}ALLOW_INSECURE_REDIS=true if only trusted "
            "machines reach it."
        )


def _unchecked(query: str) -> bool:
    return any(
        name == "ssl_cert_reqs" and value.lower() in UNCHECKED for name, value in parse_qsl(query)
    )


def _is_here(host: str) -> bool:
    """No host, as a socket's path has none, is this one. Names are not looked up: where one leads
    may change."""
    if host.lower() in {"", "localhost"}:
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
