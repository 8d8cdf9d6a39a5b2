"""What a handler returns. AWS's limits are checked where the value is made, and texts are cut."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from dispatcher.sdk.checks import SUMMARY, check_external_id, check_percent, check_text, cut

_VARIABLE: Final = re.compile(r"[A-Za-z0-9@\-_]+")  # OutputVariablesKey
_VARIABLES_BYTES: Final = 122_880  # CodePipeline quotas: all output variables of one action


@dataclass(frozen=True, slots=True)
class Revision:
    """AWS's CurrentRevision: revision 1..1500, change_identifier 1..100 characters.

    `created` is an aware instant; the summary, when given, is not empty and is cut to 2048.
    """

    revision: str
    change_identifier: str
    created: datetime | None = None
    summary: str | None = None

    def __post_init__(self) -> None:
        check_text("revision", self.revision, 1_500)
        check_text("change_identifier", self.change_identifier, 100)
        _check_created(self.created)
        if self.summary is not None:
            object.__setattr__(self, "summary", cut("summary", self.summary, SUMMARY))
            check_text("summary", self.summary, SUMMARY)


def _check_created(created: object) -> None:
    if created is None:
        return
    if not isinstance(created, datetime):
        raise TypeError(f"created must be a datetime, not {type(created).__name__}.")
    if created.utcoffset() is None:
        raise ValueError("created has no time zone; give an aware datetime, as datetime.now(UTC).")


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The action succeeded. The summary is cut to 2048 characters, external_id has 1..1500.

    `variables` are output variables of a custom action: keys of letters, digits, `@`, `-`, `_`,
    122,880 bytes in all. AWS has no place for those of a third-party action.
    """

    summary: str = ""
    external_id: str | None = None
    revision: Revision | None = None
    variables: Mapping[str, str] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "summary", cut("summary", self.summary, SUMMARY))
        check_external_id(self.external_id)
        if self.revision is not None and not isinstance(self.revision, Revision):
            raise TypeError(f"revision must be a Revision, not {type(self.revision).__name__}.")
        if self.variables is not None:
            object.__setattr__(self, "variables", _variables(self.variables))


def _variables(given: object) -> dict[str, str]:
    if not isinstance(given, Mapping):
        raise TypeError(f"variables must be a mapping, not {type(given).__name__}.")
    for key, value in given.items():
        if not isinstance(key, str) or not _VARIABLE.fullmatch(key):
            raise ValueError(f"variables has the key {key!r}; use letters, digits, '@', '-', '_'.")
        if not isinstance(value, str):
            raise TypeError(f"variables[{key!r}] must be a str, not {type(value).__name__}.")
    size = sum(len(text.encode()) for pair in given.items() for text in pair)
    if size > _VARIABLES_BYTES:
        raise ValueError(f"variables has {size} bytes; give at most {_VARIABLES_BYTES}.")
    return dict(given)


@dataclass(frozen=True, slots=True)
class Continue:
    """Not done yet: AWS offers a new job with this token (1..2048 characters) later on.

    The token must carry, or point to, all that the next job needs; another worker may get it.
    """

    token: str = field(repr=False)
    percent: int | None = None
    summary: str = ""
    external_id: str | None = None

    def __post_init__(self) -> None:
        check_text("token", self.token, 2_048)
        check_percent(self.percent)
        object.__setattr__(self, "summary", cut("summary", self.summary, SUMMARY))
        check_external_id(self.external_id)


Outcome = Succeeded | Continue
