"""The folders that jobs work in, named after host and process, so that a dead one's are found.

A process that is killed removes nothing, and its jobs' artifacts may be large."""

import os
import re
import shutil
import socket
import tempfile
from pathlib import Path
from tempfile import TemporaryDirectory

HOST = re.sub(r"[^0-9A-Za-z.]", "", socket.gethostname())  # another's processes are not seen here


def job_folder() -> "TemporaryDirectory[str]":
    return TemporaryDirectory(prefix=f"job-{HOST}-{os.getpid()}-", ignore_cleanup_errors=True)


def clear_left_behind() -> None:
    """Removes the folders of this host's processes that are gone."""
    mine = re.compile(rf"job-{re.escape(HOST)}-(\d+)-[^-]+")
    for path in Path(tempfile.gettempdir()).iterdir():
        named = mine.fullmatch(path.name)
        if named and not _lives(int(named[1])):
            shutil.rmtree(path, ignore_errors=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True
