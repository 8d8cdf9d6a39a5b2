"""What a request must look like: required members, types, enums. Not what a request does.

Lengths and patterns are not checked here. The texts are in the form of AWS's own.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Text:
    """A string, of these values if any are named."""

    values: tuple[str, ...] = ()
    empty: bool = False

    def faults(self, value: Any, at: str) -> Iterator[str]:
        if not isinstance(value, str):
            yield unfit(at, "Member must be a string")
        elif self.values and value not in self.values:
            yield unfit(at, f"Member must satisfy enum value set: [{', '.join(self.values)}]")
        elif not value and not self.empty:
            yield unfit(at, "Member must have length greater than or equal to 1")


@dataclass(frozen=True)
class Number:
    least: float = -math.inf
    most: float = math.inf
    whole: bool = True

    def faults(self, value: Any, at: str) -> Iterator[str]:
        kinds = int if self.whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds):
            yield unfit(at, f"Member must be {'an integer' if self.whole else 'a number'}")
        elif value < self.least:
            yield unfit(at, f"Member must have value greater than or equal to {self.least:g}")
        elif value > self.most:
            yield unfit(at, f"Member must have value less than or equal to {self.most:g}")


@dataclass(frozen=True)
class TextMap:
    """A map of strings to strings, which may be empty."""

    most: float = math.inf

    def faults(self, value: Any, at: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield unfit(at, "Member must be a map")
            return
        if len(value) > self.most:
            yield unfit(at, f"Member must have length less than or equal to {self.most:g}")
        for key, item in value.items():
            yield from Text(empty=True).faults(item, f"{at}.{key}")


@dataclass(frozen=True)
class Record:
    """A structure. AWS ignores members that it does not know; a closed one refuses them."""

    required: Mapping[str, "Shape"] = field(default_factory=dict)
    optional: Mapping[str, "Shape"] = field(default_factory=dict)
    closed: bool = False

    def faults(self, value: Any, at: str = "") -> Iterator[str]:
        if not isinstance(value, dict):
            yield unfit(at, "Member must be a structure")
            return
        inside = f"{at}." if at else ""
        for name, shape in (*self.required.items(), *self.optional.items()):
            if value.get(name) is not None:
                yield from shape.faults(value[name], inside + name)
            elif name in self.required:
                yield unfit(inside + name, "Member must not be null", "Value null")
        if self.closed:
            for name in value.keys() - self.required.keys() - self.optional.keys():
                yield unfit(inside + name, "Member is not known here")


Shape = Text | Number | TextMap | Record


def unfit(at: str, constraint: str, value: str = "Value") -> str:
    """AWS quotes the value as well; it may be a secret, so this does not."""
    return f"{value} at '{at}' failed to satisfy constraint: {constraint}"


def complaint(shape: Record, request: object) -> str | None:
    """All that is wrong with a request in one text, or None."""
    faults = list(shape.faults(request))
    if not faults:
        return None
    noun = "error" if len(faults) == 1 else "errors"
    return f"{len(faults)} validation {noun} detected: {'; '.join(faults)}"
