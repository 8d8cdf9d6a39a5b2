"""Whatever stands in AWS's map: what was rendered is read again, and no value is ever told."""

import enum
import logging
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.configuration import config_parser
from dispatcher.sdk import ConfigurationError, Key, Secret


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


@dataclass(frozen=True)
class Config:
    app: str
    count: int
    ratio: float
    dry_run: bool
    api_key: Secret
    colour: Colour
    mode: Literal["fast", "slow"]
    app_url: Annotated[str | None, Key("AppURL")] = None
    size: int = 1


KEYS = {
    "app": "App",
    "count": "Count",
    "ratio": "Ratio",
    "dry_run": "DryRun",
    "api_key": "ApiKey",
    "colour": "Colour",
    "mode": "Mode",
    "app_url": "AppURL",
    "size": "Size",
}
parse = config_parser(Config)
texts = st.text(min_size=1, max_size=1_000)  # ActionConfigurationValue
configs = st.builds(
    Config,
    app=texts,
    count=st.integers(),
    ratio=st.floats(allow_nan=False),
    dry_run=st.booleans(),
    api_key=texts.map(Secret),
    colour=st.sampled_from(Colour),
    mode=st.sampled_from(["fast", "slow"]),
    app_url=st.none() | texts,
    size=st.integers(),
)


def as_text(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case Secret():
            return value.get_secret_value()
        case enum.Enum():
            return str(value.value)
    return str(value)


def render(config: Config) -> dict[str, str]:
    values = {KEYS[field.name]: getattr(config, field.name) for field in fields(config)}
    return {key: as_text(value) for key, value in values.items() if value is not None}


@settings(deadline=None)
@given(configs)
def test_a_rendered_configuration_is_read_again(config: Config) -> None:
    assert parse(render(config)) == config


@settings(deadline=None)
@given(configs, st.permutations(list(KEYS.values())))
def test_the_order_of_keys_does_not_matter(config: Config, order: list[str]) -> None:
    rendered = render(config)

    assert parse({key: rendered[key] for key in order if key in rendered}) == config


# The mark is in no key, no type's words and no choice; so where it shows, a value shows.
bad = st.text(max_size=40).map(lambda text: f"§{text}§")


@settings(deadline=None)
@given(
    values=st.dictionaries(st.sampled_from(list(KEYS.values())) | bad, bad, max_size=12),
)
def test_no_bad_value_shows_in_the_error(values: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(values)

    said = caught.value.message
    assert "§" not in said
    assert caught.value.__context__ is None
    for key in ("Count", "Ratio", "DryRun", "Colour", "Mode"):
        assert f"{key} {'must be' if key in values else 'is missing'}" in said
    assert ("Size must be a whole number" in said) == ("Size" in values)


class Seen(logging.Handler):
    """Keeps what was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@settings(deadline=None)
@given(values=st.dictionaries(st.sampled_from(["A", "B", "App"]), bad, min_size=1))
def test_no_value_shows_in_the_log(values: dict[str, str]) -> None:
    seen = Seen()
    logger = logging.getLogger("dispatcher.configuration")
    logger.addHandler(seen)
    try:
        with pytest.raises(ConfigurationError):
            parse(values)
    finally:
        logger.removeHandler(seen)

    assert "§" not in str([record.__dict__ for record in seen.records])
    assert bool(seen.records) == bool({"A", "B"} & values.keys())
