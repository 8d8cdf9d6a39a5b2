"""What Flower is told, and what of it cannot be meant so: one sentence, before anything listens.

It must not know the pages, nor what Flower does when it is told nothing."""

import errno
import os
import re
import types
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import pairwise
from typing import Any, Final

from flower.utils import strtobool
from tornado.netutil import bind_sockets, bind_unix_socket
from tornado.options import OptionParser

from dispatcher.monitor.defaults import LOOPBACK, declared

PREFIX: Final = "FLOWER_"
KINDS: Final[Mapping[type, str]] = {
    bool: "true or false",
    float: "a number",
    int: "a whole number",
    types.FunctionType: "a function, which a conf file alone can give",
}
USERS: Final = (
    "must be user:password in plain ASCII, neither of them empty; a comma parts two users, so no "
    "password has one."
)
LINKED: Final = (
    "; Kubernetes sets it for a Service of that name, unless the pod has enableServiceLinks: false"
)
SOCKET: Final = (
    "no socket can be made there; name a new file in a folder that this user may write, by a "
    "short path."
)
ADDRESS: Final = (
    f"{{address}} is no address of this machine; choose one that is, as in --address={LOOPBACK}."
)
PORTS: Final[Mapping[int | None, str]] = {
    errno.EACCES: "{port} needs a right that this user lacks; choose another, as in --port={free}.",
    errno.EADDRINUSE: "{port} on {place} is taken; choose another, as in --port={free}.",
    errno.ERANGE: "{port} is beyond 0 to 65535; choose another, as in --port={free}.",
}


@dataclass(frozen=True)
class Given:
    """What Flower is told, and by which name each was said."""

    options: OptionParser
    arguments: Sequence[str]  # after `flower`
    environment: Mapping[str, str]

    def misread(self, of_celery: Collection[str]) -> str:
        """Before Flower reads it: what it would skip without a word, or end on in a traceback."""
        return next(filter(None, self._misreadings(of_celery)), "")

    def unfit(self) -> str:
        """Once Flower has read it: whom it would let in, or shut out, and why it cannot listen."""
        if not all(map(_may_log_in, self.options.basic_auth or ())):
            return f"{self._name('basic_auth')}: {USERS}"
        name, why = _deaf(self.options)
        return name and f"{self._name(name)}: {why}"

    def _misreadings(self, of_celery: Collection[str]) -> Iterator[str]:
        said = ["flower", *filter(None, self.arguments)]
        for before, argument in pairwise(said):
            yield _misspelt(self.options, _parts(before)[0], argument, of_celery)
        for name, variable in self._variables().items():
            yield _mistyped(declared(self.options, name), variable, self.environment[variable])

    def _variables(self) -> dict[str, str]:
        """By option."""
        ours = [name for name in self.environment if name.startswith(PREFIX)]
        found = {name.removeprefix(PREFIX).lower(): name for name in ours}
        return {option: name for option, name in found.items() if option in self.options}

    def _name(self, name: str) -> str:
        """A command line's wins over a conf file's, and that over a variable's."""
        for one in (_parts(argument)[0] for argument in self.arguments):
            if one.lstrip("-").replace("-", "_") == name:
                return one
        option, variable = declared(self.options, name), self._variables().get(name)
        if variable and _read(option, self.environment[variable]) == option.value():
            return variable
        default = option.value() == option.default
        return f"--{name.replace('_', '-')}" if default else f"{name} in {self.options.conf}"


def _parts(argument: str) -> tuple[str, str]:
    """A name, and what follows it: that may be a password, and is never shown."""
    name = re.match(r"[\w-]*", argument)
    return (name[0], argument[name.end() :]) if name else ("", argument)


def _misspelt(options: OptionParser, before: str, argument: str, of_celery: Collection[str]) -> str:
    name, rest = _parts(argument)
    if not name.startswith("-"):
        form = "what follows it is no option; they are written as in --port=5555."
        return "" if before in of_celery else f"{before}: {form}"
    if name.lstrip("-") not in options:
        return "" if name in of_celery else _unknown(options, name)  # Flower warns of these itself
    option = declared(options, name.lstrip("-"))
    if option.type is bool and not rest:
        return ""
    if not rest.startswith("="):
        return f"{name}: write its value after an equals sign, as in {name}=VALUE."
    if option.type is bool and rest.lower() in ("=n", "=no", "=off"):  # Flower reads a yes
        return f"{name}: must be {KINDS[bool]}."
    return _mistyped(option, name, rest[1:])


def _unknown(options: OptionParser, name: str) -> str:
    known = [one.replace("_", "-") for one in options]
    for near in get_close_matches(name.lstrip("-").replace("_", "-"), known, 1, cutoff=0.7):
        return f"{name}: no such option of Flower's; did you mean --{near}?"
    return f"{name}: no such option of Flower's; leave it out."


def _mistyped(option: Any, name: str, value: str) -> str:
    try:
        _read(option, value)
    except (TypeError, ValueError):
        why = LINKED if value.startswith("tcp://") else ""
        return f"{name}: must be {KINDS[option.type]}{why}."
    return ""


def _read(option: Any, value: str) -> object:
    """As Flower reads a variable."""
    kind = strtobool if option.type is bool else option.type
    return [kind(one) for one in value.split(",")] if option.multiple else kind(value)


def _may_log_in(entry: str) -> bool:
    """Flower compares the whole entry, whatever it is, and fails on what is not ASCII."""
    user, _, password = entry.partition(":")
    return bool(user and password) and entry.isascii()


def _deaf(options: OptionParser) -> tuple[str, str]:
    """The option that keeps Flower from listening, and why."""
    try:
        _listen(options)
    except (OSError, ValueError) as error:  # ValueError: of names that are none, and other files
        if options.unix_socket:
            return "unix_socket", SOCKET
        why = PORTS.get(getattr(error, "errno", None))
        return ("port" if why else "address"), (why or ADDRESS).format(
            port=options.port,
            address=options.address,
            place=options.address or "all addresses",
            free=5556 if options.port == 5555 else 5555,
        )
    return "", ""


def _listen(options: OptionParser) -> None:
    """By Flower's own calls, and for an instant."""
    if options.unix_socket:
        sockets = [bind_unix_socket(options.unix_socket)]
    elif 0 <= options.port <= 65535:
        sockets = bind_sockets(options.port, options.address)
    else:  # it would be cut to 16 bits
        raise OSError(errno.ERANGE, os.strerror(errno.ERANGE))
    if not sockets:  # an IPv6 address, where the machine has none
        raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    for one in sockets:
        one.close()
