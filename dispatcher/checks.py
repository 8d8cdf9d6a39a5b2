"""What is wrong with this installation, as sentences with remedies, and what was found.

Asks Redis and the broker; never AWS. Knows nothing of how it is said, nor of running workers."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kombu import Connection
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from dispatcher import registry
from dispatcher.broker import transport_options
from dispatcher.configuration import queryable_key
from dispatcher.engine.model import Action, TokensDown
from dispatcher.registry import ProviderError, load
from dispatcher.settings import PREFIX, Settings, SettingsError, survey
from dispatcher.store.connection import connect
from dispatcher.store.connection import faults as redis_faults
from dispatcher.wiring import client_tokens

BROKER_WITHIN = 2.0  # seconds, for each of two tries


@dataclass(frozen=True)
class Report:
    """Sentences; `wrong_settings` says whether a setting is among the faults."""

    found: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    wrong_settings: bool = False

    @property
    def exit_code(self) -> int:
        if self.wrong_settings:
            return 2
        return 1 if self.faults else 0


def examine(environ: Mapping[str, str] = os.environ) -> Report:
    """Everything at once: a part whose own setting is wrong is left out, the others are not."""
    read = survey(environ)
    parts: list[tuple[str, Callable[[Settings], Report]]] = [
        ("REDIS_URL", redis),
        ("BROKER_URL", broker),
        ("PROVIDERS", providers),
        ("REGIONS", regions),
        ("CLIENT_TOKENS", tokens),
        ("QUERY_PARAMS", lambda given: queries(given, registry.survey(given.providers).actions)),
    ]
    reports = [Report((), tuple(read.faults.values()), bool(read.faults))]
    reports += [part(read.settings) for name, part in parts if f"{PREFIX}{name}" not in read.faults]
    return Report(
        tuple(line for report in reports for line in report.found),
        tuple(dict.fromkeys(line for report in reports for line in report.faults)),
        any(report.wrong_settings for report in reports),
    )


def ready(given: Settings) -> Report:
    """What a worker needs from outside before it can start."""
    both = redis(given), broker(given)
    return Report(faults=both[0].faults + both[1].faults)


def redis(given: Settings) -> Report:
    try:
        client = connect(given.redis_url.get_secret_value())
        if wrong := redis_faults(client):
            return Report(faults=tuple(wrong))
        server = client.info("server")
    except (TypeError, ValueError):  # of an option after the address's question mark
        text = "its options are none that the client knows; correct what stands after the ?"
        return Report(faults=(f"{PREFIX}REDIS_URL: {text}.",))
    except RedisError as error:
        text = f"Redis answered at first, then no more ({type(error).__name__}); look at its log"
        return Report(faults=(f"{PREFIX}REDIS_URL: {text}.",))
    name = "Valkey" if "valkey_version" in server else "Redis"
    version = server.get("valkey_version", server["redis_version"])
    return Report((f"{name} {version} answers, and evicts nothing.",))


def broker(given: Settings) -> Report:
    if given.broker_url is None:
        return Report()  # Redis, which was asked
    try:
        options = transport_options(given.broker, within=BROKER_WITHIN)
        with Connection(
            given.broker, connect_timeout=BROKER_WITHIN, transport_options=options
        ) as connection:
            connection.ensure_connection(max_retries=1, interval_start=0)
            name = connection.transport.driver_name
    except (KombuError, OSError, ValueError, TypeError, KeyError, ImportError) as error:
        text = (
            f"no broker answers there ({type(error).__name__}); start one, or correct the address"
        )
        return Report(faults=(f"{PREFIX}BROKER_URL: {text}.",))
    return Report((f"The broker ({name}) answers.",))


def providers(given: Settings) -> Report:
    found = registry.survey(given.providers)
    return Report(tuple(table(found.actions)), found.faults)


def regions(given: Settings) -> Report:
    try:
        return Report((f"Regions: {', '.join(given.all_regions())}.",))
    except SettingsError as error:
        return Report(faults=(str(error),), wrong_settings=True)


def queries(given: Settings, actions: Sequence[Action]) -> Report:
    """AWS refuses a poll that does not name a value of its type's queryable key, or of another."""
    variable, faults, known = f"{PREFIX}QUERY_PARAMS", [], set()
    for action in actions:
        key, provider = queryable_key(action.spec), action.spec.type.provider
        if key is None:
            continue
        known.add(provider)
        if {named for named, _ in given.queries.get(provider, ())} != {key}:
            faults.append(
                f"{variable}: {action.spec.type.task_name} is polled by its queryable key {key}; "
                f"name the values to take, as in {provider}.{key}=value."
            )
    faults += [
        f"{variable}: no custom action of a provider {provider} has a queryable key here; correct "
        "the name, or take it out."
        for provider in given.queries
        if provider not in known
    ]
    return Report(faults=tuple(faults), wrong_settings=bool(faults))


def tokens(given: Settings) -> Report:
    if given.client_tokens is None:
        return _no_tokens(given)
    try:
        known = client_tokens(given).load()
    except TokensDown as error:
        return Report(faults=(f"{error}.",))
    return Report((f"Client tokens: {known} client{'' if known == 1 else 's'} known.",))


def _no_tokens(given: Settings) -> Report:
    try:
        partners = [a for a in load(given.providers) if a.spec.type.owner == "ThirdParty"]
    except ProviderError:  # said where providers are looked at
        return Report()
    if not partners:
        return Report(("Client tokens: none set, and no third-party action needs one.",))
    names = ", ".join(action.spec.type.task_name for action in partners)
    text = f"not set, but {names} cannot take a job without its client's token"
    remedy = "name a store, as in file:///path/tokens.json"
    return Report(faults=(f"{PREFIX}CLIENT_TOKENS: {text}; {remedy}.",))


def table(actions: Sequence[Action]) -> list[str]:
    """Action type, queue, task and module, a line each; no line without actions."""
    if not actions:
        return []
    rows = [("ACTION TYPE", "QUEUE", "TASK", "MODULE")]
    for action in actions:
        kind = action.spec.type
        said = f"{kind.owner} {kind.category} {kind.provider} {kind.version}"
        rows.append((said, kind.queue, kind.task_name, action.module))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
