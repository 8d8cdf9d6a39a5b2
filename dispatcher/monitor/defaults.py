"""How Flower starts unless it is told otherwise: shut to other machines, changing nothing, and with
a memory that outlives it. What a command line, FLOWER_* or a conf file say, wins.

It must not know the pages."""

import hashlib
import ipaddress
import logging
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from tornado.options import OptionParser

logger = logging.getLogger(__name__)

LOOPBACK: Final = "127.0.0.1"
FIXED: Final[Mapping[str, object]] = {
    "max_tasks": 10_000,  # some 50 MB; Flower's own 100,000 are near 500 MB
    "persistent": True,
    "purge_offline_workers": 600,  # seconds; else each publisher's name stays for ever
    "read_only": True,
    "state_save_interval": 5_000,  # milliseconds
}
FOLDER: Final = "codepipeline-dispatcher"


def offer(options: OptionParser, broker: Callable[[], str]) -> None:
    """Before Flower reads what it was given. What depends on that is settled after it did.

    `broker` answers its URL. Each broker and port have a memory of their own.
    """
    for name, value in FIXED.items():
        declared(options, name).default = value

    def settle() -> None:
        declared(options, "address").default = "" if guarded(options) else LOOPBACK
        declared(options, "db").default = str(
            memory(os.environ.get("XDG_STATE_HOME", ""), broker(), options.port)
        )

    options.add_parse_callback(settle)  # called after the command line, and after the conf file


def check(options: OptionParser) -> None:
    """Once Flower has read everything, before it loads its state: says what it is open to."""
    if options.persistent and options.db == declared(options, "db").default:
        _keep(options, Path(options.db))
    if not (guarded(options) or options.unix_socket or is_loopback(options.address)):
        logger.warning(
            "Flower listens on %s, and anybody who reaches it sees jobs, workers and settings: set "
            "FLOWER_BASIC_AUTH=user:password, or leave --address out.",
            listens(options),
        )
    logger.info(
        "Flower listens on %s; /metrics and /healthcheck ask nobody for a password, so let only "
        "those reach the port who may read them.",
        listens(options),
    )


def guarded(options: OptionParser) -> bool:
    """As Flower judges it."""
    return bool(options.basic_auth or options.auth)


def is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def listens(options: OptionParser) -> str:
    if options.unix_socket:
        return str(options.unix_socket)
    return f"{options.address or 'all addresses'}, port {options.port or 'any that is free'}"


def memory(state_home: str, broker: str, port: int) -> Path:
    """The state's file, below what the XDG base directory specification names."""
    given = Path(state_home)  # to be ignored where it is relative
    root = given if given.is_absolute() else _home() / ".local" / "state"
    return root / FOLDER / f"flower-{port}-{_which(broker)}"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # a user whom the machine does not know, and no HOME
        return Path()


def _which(broker: str) -> str:
    """One broker's tasks are never shown as another's; its password may change."""
    url = urlsplit(broker)
    place = f"{url.scheme} {url.netloc.rpartition('@')[2]} {url.path}"
    return hashlib.sha256(place.encode()).hexdigest()[:8]


def _keep(options: OptionParser, file: Path) -> None:
    why = _unfit(file.parent)
    if why:
        options.persistent = False
        logger.warning(
            "Flower will forget its tasks when it ends: %s %s; name a place with --db=FILE, "
            "or choose --persistent=false.",
            file.parent,
            why,
        )


def _unfit(folder: Path) -> str:
    """Why the state cannot be kept there. It is a pickle: who may write it, may run code here."""
    if not folder.is_absolute():
        return "is nowhere, since HOME is not set"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError as error:
        return f"cannot be made ({error.strerror})"
    if found.st_uid != os.geteuid():
        return "belongs to another user"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "may be written by others"
    return "" if os.access(folder, os.W_OK | os.X_OK) else "cannot be written"


def declared(options: OptionParser, name: str) -> Any:
    """Its default can be told from a value that somebody gave: no public call does that."""
    return options._options[name.replace("_", "-")]  # noqa: SLF001
