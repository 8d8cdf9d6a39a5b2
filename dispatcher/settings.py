"""The settings, all from the environment, and the only reader of it. No value ever stands in an error."""

import difflib
import os
from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from typing import Annotated

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from dispatcher.aws.tokens import tokens
from dispatcher.engine.times import Times

PREFIX = "DISPATCHER_"
Seconds = Annotated[float, Field(gt=0, le=86400, allow_inf_nan=False)]
Names = Annotated[tuple[str, ...], NoDecode]


class SettingsError(Exception):
    """Every fault, one a line, each with the variable's name and a remedy."""


class Settings(BaseSettings):
    """`DISPATCHER_<NAME>`; durations are seconds, decimals allowed."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, env_ignore_empty=True)

    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    broker_url: SecretStr | None = None
    providers: Names = ("workers",)
    regions: Names = ()
    aws_region: str | None = Field(
        None, validation_alias="AWS_REGION"
    )  # ECS sets it; boto3 does not read it
    client_tokens: SecretStr | None = None
    poll_interval: Seconds = 1
    poll_interval_max: Seconds = 5
    ack_window: Seconds = 30
    lease: Seconds = 60
    sweep_interval: Seconds = 10
    shutdown_grace: Seconds = 20

    @field_validator("providers", "regions", mode="before")
    @classmethod
    def _comma_list(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis_scheme(cls, value: SecretStr) -> SecretStr:
        scheme = value.get_secret_value().partition("://")[0]
        if scheme not in {"redis", "rediss", "unix"}:
            raise ValueError("write it as redis://HOST:PORT/DB, or rediss:// for TLS")
        return value

    @field_validator("client_tokens")
    @classmethod
    def _known_store(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            tokens(value.get_secret_value(), os.environ)
        return value

    @model_validator(mode="after")
    def _ordered(self) -> "Settings":
        if self.poll_interval > self.poll_interval_max:
            raise ValueError(
                "DISPATCHER_POLL_INTERVAL_MAX is below DISPATCHER_POLL_INTERVAL; "
                "it is the longest rest of an idle action type"
            )
        return self

    @property
    def broker(self) -> str:
        return (self.broker_url or self.redis_url).get_secret_value()

    @property
    def times(self) -> Times:
        return Times(
            **{name: timedelta(seconds=getattr(self, name)) for name in Times.__dataclass_fields__}
        )


@cache
def settings() -> Settings:
    """Read once a process. Raises SettingsError."""
    return read(os.environ)


def read(environ: Mapping[str, str]) -> Settings:
    """Raises SettingsError with all faults at once."""
    faults = _misspelt(environ)
    try:
        found = Settings()
    except ValidationError as error:
        faults += [
            _fault(*part["loc"], text=part["msg"])
            for part in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        raise SettingsError("\n".join(faults)) from None
    if faults:
        raise SettingsError("\n".join(faults))
    return found


def _fault(*where: object, text: str) -> str:
    name = f"{PREFIX}{str(where[0]).upper()}: " if where else ""
    return f"{name}{text.removeprefix('Value error, ')}."


def _misspelt(environ: Mapping[str, str]) -> list[str]:
    known = [f"{PREFIX}{name.upper()}" for name in Settings.model_fields if name != "aws_region"]
    unknown = sorted(name for name in environ if name.startswith(PREFIX) and name not in known)
    near = {name: difflib.get_close_matches(name, known, n=1, cutoff=0.85) for name in unknown}
    return [
        f"{name}: no such setting; {match[0]} is meant?" for name, match in near.items() if match
    ]
