"""What is wrong with this installation, as sentences with remedies, and what was found.

Asks Redis, the broker and AWS. Knows nothing of how it is said, nor of running workers."""

import os
from collections.abc import Callable, Mapping, Sequence

from kombu import Connection
from kombu.exceptions import KombuError

from dispatcher import registry
from dispatcher.broker import transport_options
from dispatcher.checks import aws, redis
from dispatcher.checks.exposure import broker_exposed
from dispatcher.checks.report import Report, joined
from dispatcher.configuration import queryable_key
from dispatcher.engine.model import Action, TokensDown
from dispatcher.settings import PREFIX, Settings, SettingsError, survey
from dispatcher.wiring import client_tokens

__all__ = ["Report", "examine", "queries", "ready", "regions", "table"]

BROKER_WITHIN = 2.0  # seconds, for each of two tries


def examine(environ: Mapping[str, str] = os.environ, *, offline: bool = False) -> Report:
    """Everything at once: a part whose own setting is wrong is left out, the others are not.

    `offline`: AWS is not asked.
    """
    read = survey(environ)
    given = read.settings
    known = registry.survey(given.providers)
    parts: list[tuple[str, Callable[[], Report]]] = [
        ("REDIS_URL", lambda: redis.whole(given)),
        ("BROKER_URL", lambda: broker(given)),
        ("PROVIDERS", lambda: Report(tuple(table(known.actions)), known.faults)),
        ("REGIONS", lambda: regions(given)),
        ("CLIENT_TOKENS", lambda: tokens(given, known)),
        ("QUERY_PARAMS", lambda: queries(given, known.actions)),
    ]
    reports = {name: part() for name, part in parts if f"{PREFIX}{name}" not in read.faults}
    settings = Report(faults=tuple(read.faults.values()), wrong_settings=bool(read.faults))
    if offline or "REGIONS" not in reports:
        return joined([settings, *reports.values()])
    well = "REDIS_URL" in reports and not reports["REDIS_URL"].faults
    resting = aws.paused(given) if well else set()
    return joined([settings, *reports.values(), aws.asked(given, known.actions, resting)])


def ready(given: Settings) -> Report:
    """What a worker needs from outside before it can start. AWS is not asked: it may come later."""
    return joined([redis.needed(given), broker(given)])


def broker(given: Settings) -> Report:
    if given.broker_url is None:
        return Report()  # Redis, which was asked
    if exposed := broker_exposed(given):
        return Report(faults=exposed)
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


def tokens(given: Settings, known: registry.Survey) -> Report:
    if given.client_tokens is None:
        return _no_tokens(known)
    try:
        count = client_tokens(given).load()
    except TokensDown as error:
        return Report(faults=(f"{error}.",))
    if count is None:
        return Report(("Client tokens: Secrets Manager answers; it has one secret a client.",))
    return Report((f"Client tokens: {count} client{'' if count == 1 else 's'} known.",))


def _no_tokens(known: registry.Survey) -> Report:
    partners = [a.spec.type.task_name for a in known.actions if a.spec.type.owner == "ThirdParty"]
    if partners:
        text = f"not set, but {', '.join(partners)} cannot take a job without its client's token"
        remedy = "name a store, as in file:///path/tokens.json"
        return Report(faults=(f"{PREFIX}CLIENT_TOKENS: {text}; {remedy}.",))
    if known.faults:  # then there may be some
        return Report()
    return Report(("Client tokens: none set, and no third-party action needs one.",))


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
