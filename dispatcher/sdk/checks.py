"""Checks of the values that an author writes down; each says what is wrong, and what to give."""

import re
from datetime import timedelta
from typing import Final

NAME: Final = re.compile(r"[0-9A-Za-z_-]+")  # ActionProvider and Version
SUMMARY: Final = 2_048


def check_text(name: str, value: object, longest: int) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}.")
    if not 1 <= len(value) <= longest:
        raise ValueError(f"{name} has {len(value)} characters; give 1 to {longest}.")


def cut(name: str, value: object, longest: int) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}.")
    return value if len(value) <= longest else value[: longest - 1] + "…"


def check_external_id(value: object) -> None:
    if value is not None:
        check_text("external_id", value, 1_500)


def whole(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}.")
    return value


def check_percent(value: object) -> None:
    if value is not None and not 0 <= whole("percent", value) <= 100:
        raise ValueError(f"percent is {value}; give 0 to 100, or None.")


def check_duration(name: str, value: object, *, zero: bool) -> None:
    if not isinstance(value, timedelta):
        raise TypeError(f"{name} must be a timedelta, not {type(value).__name__}.")
    if value < timedelta(0) or (not zero and not value):
        raise ValueError(f"{name} is {value}; give a time {'of 0 or more' if zero else 'above 0'}.")


def check_name(name: str, value: object, longest: int) -> None:
    check_text(name, value, longest)
    if not NAME.fullmatch(str(value)):
        raise ValueError(f"{name} is {value!r}; use letters, digits, '_' and '-' alone.")


def check_one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; give one of {', '.join(choices)}.")
