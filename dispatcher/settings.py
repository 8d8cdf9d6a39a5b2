"""The settings, all from the environment, and its only reader. No value ever stands in an error."""

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_core import ErrorDetails

from dispatcher.archives import Limits
from dispatcher.aws.tokens import tokens
from dispatcher.engine.times import Times

PREFIX: Final = "DISPATCHER_"
Seconds = Annotated[float, Field(ge=0.05, le=86400, allow_inf_nan=False)]
# ActionProvider, ActionConfigurationKey, ActionConfigurationQueryableValue
QUERY: Final = re.compile(
    r"(?P<provider>[0-9A-Za-z_-]{1,35})\.(?P<key>[^=]{1,50})=(?P<value>[0-9A-Za-z_-]{1,50})"
)
Query = tuple[str, str]
Count = Annotated[int, Field(ge=1)]
REGION: Final = re.compile(r"[a-z]{2,}(-[a-z]+)+-[0-9]+")
REDIS_FORM: Final = (
    "write it as redis://HOST:PORT/DB, or rediss:// for TLS; a password in it stands "
    "percent-encoded after a colon, as in redis://:PASSWORD@HOST"
)


class SettingsError(Exception):
    """Every fault, one a line, each with the variable's name and a remedy."""


class Settings(BaseModel):
    """`DISPATCHER_<NAME>`; durations are seconds, decimals allowed."""

    model_config = ConfigDict(frozen=True)

    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    broker_url: SecretStr | None = None
    allow_insecure_redis: bool = False
    providers: tuple[str, ...] = ("workers",)
    regions: tuple[str, ...] = ()
    aws_region: str | None = None  # AWS_REGION: ECS sets it; boto3 does not read it
    client_tokens: SecretStr | None = None
    query_params: tuple[str, ...] = ()
    poll_interval: Seconds = 1
    poll_interval_max: Seconds = 5
    ack_window: Seconds = 30
    lease: Seconds = 60
    sweep_interval: Seconds = 10
    shutdown_grace: Seconds = 20
    stall_after: Annotated[float, Field(ge=0, le=86400, allow_inf_nan=False)] = 90
    artifact_max_bytes: Count = 10_000_000_000
    extract_max_bytes: Count = 10_000_000_000
    extract_max_entries: Count = 100_000
    extract_max_ratio: Count = 200

    @field_validator("providers", "regions", "query_params", mode="before")
    @classmethod
    def _comma_list(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))
        return value

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, value: SecretStr) -> SecretStr:
        url = value.get_secret_value()
        if not (url.startswith(("redis://", "rediss://")) and _has_host(url) and _has_number(url)):
            raise ValueError(REDIS_FORM)
        return value

    @field_validator("broker_url")
    @classmethod
    def _has_transport(cls, value: SecretStr) -> SecretStr:
        from kombu.transport import TRANSPORT_ALIASES  # noqa: PLC0415 - most fleets set no broker

        # Several, for a fail-over, stand with semicolons between.
        for url in value.get_secret_value().split(";"):
            transport, separator, _ = url.partition("://")
            if separator and transport.partition("+")[0] in TRANSPORT_ALIASES and _is_url(url):
                continue
            raise ValueError(
                "write it as TRANSPORT://HOST:PORT/NAME with a transport of Celery's, such as "
                "amqp, redis or sentinel; or leave it out, then Redis carries the messages"
            )
        return value

    @field_validator("regions")
    @classmethod
    def _are_regions(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(map(REGION.fullmatch, value)):
            raise ValueError("write region codes with commas between, such as eu-west-1,us-east-1")
        return value

    @field_validator("query_params")
    @classmethod
    def _are_queries(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(map(QUERY.fullmatch, value)):
            raise ValueError(
                "write Provider.Key=Value with commas between, such as Acme.ProjectName=shop; a "
                "value has 1 to 50 letters, digits, '_' and '-'"
            )
        return value

    @field_validator("client_tokens")
    @classmethod
    def _is_store(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            tokens(value.get_secret_value(), os.environ)
        return value

    @property
    def broker(self) -> str:
        """In Celery's form; over TLS with a check of certificates, which kombu alone leaves out."""
        if self.broker_url is not None:
            return ";".join(map(_certified, self.broker_url.get_secret_value().split(";")))
        address, _, options = self.redis_url.get_secret_value().partition("?")
        ours = [option for option in options.split("&") if option.startswith("ssl_")]
        query = f"?{'&'.join(ours)}" if ours else ""  # kombu refuses redis-py's other options
        return _certified(address + query)

    @property
    def times(self) -> Times:
        return Times(
            **{name: timedelta(seconds=getattr(self, name)) for name in Times.__dataclass_fields__}
        )

    @property
    def queries(self) -> Mapping[str, Sequence[Query]]:
        """By provider: the queryable key, and the values whose jobs this fleet takes."""
        found: dict[str, list[Query]] = {}
        for match in filter(None, map(QUERY.fullmatch, self.query_params)):
            found.setdefault(match["provider"], []).append((match["key"], match["value"]))
        return found

    @property
    def limits(self) -> Limits:
        """Of what an artifact may unpack to."""
        return Limits(self.extract_max_bytes, self.extract_max_entries, self.extract_max_ratio)

    def all_regions(self) -> tuple[str, ...]:
        """Raises SettingsError when neither our setting nor boto3's own names one."""
        import boto3  # noqa: PLC0415 - not every command asks for it
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415

        try:
            region = self.aws_region or boto3.Session().region_name
        except BotoCoreError as error:
            raise SettingsError(
                f"AWS_PROFILE, AWS_CONFIG_FILE: they cannot be used ({type(error).__name__}); "
                "correct or unset them."
            ) from None
        if not self.regions and region is None:
            raise SettingsError(
                "DISPATCHER_REGIONS: no region is known; set it, or AWS_REGION, as in eu-west-1."
            )
        return self.regions or (str(region),)


VARIABLES: Final = {
    name: "AWS_REGION" if name == "aws_region" else f"{PREFIX}{name.upper()}"
    for name in Settings.model_fields
}


@cache
def settings() -> Settings:
    """Read once a process. Raises SettingsError."""
    return read(os.environ)


def read(environ: Mapping[str, str]) -> Settings:
    """Raises SettingsError with all faults at once."""
    found = survey(environ)
    if found.faults:
        raise SettingsError("\n".join(found.faults.values()))
    return found.settings


@dataclass(frozen=True)
class Survey:
    """What could be read, with defaults where it could not, and what is wrong, by variable."""

    settings: Settings
    faults: Mapping[str, str]


def survey(environ: Mapping[str, str]) -> Survey:
    """Never raises, so that a look at the whole installation goes on beyond the settings."""
    given = {name: environ[var] for name, var in VARIABLES.items() if environ.get(var)}
    faults = _misspelt(environ)
    try:
        found = Settings.model_validate(given)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_context=False, include_input=False)
        faults |= dict(map(_fault, wrong))
        found = Settings.model_validate(
            {n: v for n, v in given.items() if VARIABLES[n] not in faults}
        )
    return Survey(found, faults | _disordered(found, faults))


def _certified(url: str) -> str:
    """Kombu checks no certificate of Redis's unless it is told to."""
    if not url.startswith("rediss://") or "ssl_cert_reqs=" in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}ssl_cert_reqs=required"


def _is_url(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:  # its text would quote the address
        return False


def _has_host(url: str) -> bool:
    return _is_url(url) and bool(urlsplit(url).hostname)


def _has_number(url: str) -> bool:
    """Of a database, or nothing: redis-py takes a name for the first, and kombu ends on it."""
    return re.fullmatch(r"(/[0-9]*)?", urlsplit(url).path) is not None


def _fault(detail: ErrorDetails) -> tuple[str, str]:
    name = str(detail["loc"][0])
    variable = VARIABLES[name]
    text = detail["msg"].removeprefix("Value error, ").removeprefix(f"{name.upper()} ").rstrip(".")
    default = Settings.model_fields[name].default
    if name in Times.__dataclass_fields__:
        text = f"give seconds, from 0.05 to 86400, decimals allowed, such as {default}"
    elif name == "stall_after":
        text = f"give seconds, up to 86400, such as {default}; 0 never ends a worker"
    elif isinstance(default, bool):
        text = "give true or false"
    elif isinstance(default, int):
        text = f"give a whole number of 1 or more, such as {default}"
    return variable, f"{variable}: {text}."


def _disordered(found: Settings, faults: Mapping[str, str]) -> dict[str, str]:
    least, most = VARIABLES["poll_interval"], VARIABLES["poll_interval_max"]
    if {least, most} & faults.keys() or found.poll_interval <= found.poll_interval_max:
        return {}
    text = f"{most}: it is below {least}; as the longest rest of an idle action type, raise it."
    return {most: text}


def _misspelt(environ: Mapping[str, str]) -> dict[str, str]:
    known = [variable for variable in VARIABLES.values() if variable.startswith(PREFIX)]
    unknown = sorted(name for name in environ if name.startswith(PREFIX) and name not in known)
    near = {name: difflib.get_close_matches(name, known, n=1, cutoff=0.85) for name in unknown}
    return {
        name: f"{name}: there is no such setting; {match[0]} is meant?"
        for name, match in near.items()
        if match
    }
