"""What a request must look like: required members, types, limits, patterns, enums.

It must not know what a request does, nor where the limits come from: see `model`. The texts are in
AWS's form. A wrong JSON type is one more of them, where AWS has an error outside its model.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Text:
    """A string within limits, in characters. A secret one is never quoted."""

    values: tuple[str, ...] = ()
    least: int = 1
    most: float = math.inf
    pattern: re.Pattern[str] | None = None
    secret: bool = False

    def faults(self, value: Any, at: str) -> Iterator[str]:
        if not isinstance(value, str):
            yield unfit(at, "Member must be a string")
            return
        for constraint in self.broken(value):
            yield unfit(at, constraint, "Value" if self.secret else f"Value '{value}'")

    def broken(self, value: str) -> Iterator[str]:
        if self.values and value not in self.values:
            yield among(self.values)
        if len(value) < self.least:
            yield at_least("length", self.least)
        if len(value) > self.most:
            yield at_most("length", self.most)
        if self.pattern is not None and self.pattern.fullmatch(value) is None:
            yield like(self.pattern)

    def constraints(self) -> Iterator[str]:
        """All that a key or a value of a map must satisfy, in AWS's order."""
        if self.values:
            yield among(self.values)
        if self.most < math.inf:
            yield at_most("length", self.most)
        if self.least > 0:
            yield at_least("length", self.least)
        if self.pattern is not None:
            yield like(self.pattern)


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
            yield unfit(at, at_least("value", self.least), f"Value '{value}'")
        elif value > self.most:
            yield unfit(at, at_most("value", self.most), f"Value '{value}'")


@dataclass(frozen=True)
class TextMap:
    """A map of strings to strings. It is never quoted: some maps hold secrets."""

    most: float = math.inf
    key: Text = Text(least=0)
    value: Text = Text(least=0)

    def faults(self, value: Any, at: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield unfit(at, "Member must be a map")
            return
        if len(value) > self.most:
            yield unfit(at, at_most("length", self.most))
        if any(fails(self.key, key) for key in value):
            yield unfit(at, f"Map keys must satisfy constraint: {listed(self.key.constraints())}")
        texts = [item for item in value.values() if isinstance(item, str)]
        if any(fails(self.value, item) for item in texts):
            limits = listed(self.value.constraints())
            yield unfit(at, f"Map value must satisfy constraint: {limits}")
        if len(texts) < len(value):
            for key, item in value.items():
                if not isinstance(item, str):
                    yield unfit(f"{at}.{key}", "Member must be a string")


@dataclass(frozen=True)
class Items:
    """A list; AWS counts from 1."""

    item: "Shape"
    most: float = math.inf

    def faults(self, value: Any, at: str) -> Iterator[str]:
        if not isinstance(value, list):
            yield unfit(at, "Member must be a list")
            return
        if len(value) > self.most:
            yield unfit(at, at_most("length", self.most))
        for number, item in enumerate(value, 1):
            yield from self.item.faults(item, f"{at}.{number}.member")


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


@dataclass(frozen=True)
class Unchecked:
    """A type that no call's request has today; a later botocore may bring one."""

    def faults(self, _value: Any, _at: str) -> Iterator[str]:
        return iter(())


Shape = Text | Number | TextMap | Items | Record | Unchecked


def fails(shape: Text, value: str) -> bool:
    return next(shape.broken(value), None) is not None


def among(values: tuple[str, ...]) -> str:
    return f"Member must satisfy enum value set: {listed(values)}"


def at_least(measure: str, bound: float) -> str:
    return f"Member must have {measure} greater than or equal to {bound}"


def at_most(measure: str, bound: float) -> str:
    return f"Member must have {measure} less than or equal to {bound}"


def like(pattern: re.Pattern[str]) -> str:
    return f"Member must satisfy regular expression pattern: {pattern.pattern}"


def listed(texts: Iterator[str] | tuple[str, ...]) -> str:
    return f"[{', '.join(texts)}]"


def unfit(at: str, constraint: str, value: str = "Value") -> str:
    """The value stays away where it may be a secret, as AWS does for what its models call so."""
    return f"{value} at '{at}' failed to satisfy constraint: {constraint}"


def complaint(shape: Record, request: object) -> str | None:
    """All that is wrong with a request in one text, or None."""
    faults = list(shape.faults(request))
    if not faults:
        return None
    noun = "error" if len(faults) == 1 else "errors"
    return f"{len(faults)} validation {noun} detected: {'; '.join(faults)}"
