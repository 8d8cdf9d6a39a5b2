"""Which commands a test waits for: those of Redis by name and key, the ledger's steps by theirs.

Of the product it knows only the file of the ledger's scripts."""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

Matches = Callable[[list[bytes]], bool]  # of the command's name and arguments


@dataclass(frozen=True)
class Command:
    """A command by its name, and by one of its arguments: a key, mostly.

    A publish to a queue is `Command(b"LPUSH", b"provider.Probe")`.
    """

    name: bytes
    key: bytes | None = None

    def __call__(self, command: list[bytes]) -> bool:
        named = command[0].upper() == self.name
        return named and (self.key is None or self.key in command[1:])


@dataclass(frozen=True)
class Script:
    """A step of the ledger by its name in ledger.lua, a `finish` by its arm, any by a job's id."""

    name: str
    arm: str = ""
    job: str = ""

    def __post_init__(self) -> None:
        if self.name not in _digests():
            raise ValueError(f"no script {self.name}: there are {', '.join(_digests())}")

    def __call__(self, command: list[bytes]) -> bool:
        if command[0].upper() != b"EVALSHA" or command[1:2] != [_digests()[self.name]]:
            return False
        given = command[-1]
        return self.job.encode() in given and self.arm in ("", json.loads(given).get("arm"))


@cache
def _digests() -> dict[str, bytes]:
    """Redis's names for the scripts. The ledger's own reading of that file is private to it."""
    text = files("dispatcher.store").joinpath("ledger.lua").read_text("utf-8")
    prelude, *parts = re.split(r"^--- (\w+):.*\n", text, flags=re.MULTILINE)
    return {
        name: hashlib.sha1((prelude + body).encode(), usedforsecurity=False).hexdigest().encode()
        for name, body in zip(parts[::2], parts[1::2], strict=True)
    }
