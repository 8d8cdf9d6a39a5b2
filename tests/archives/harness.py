"""What the tests of archives share: what stands in a folder, and extraction from bytes."""

import io
import os
from collections.abc import Callable
from pathlib import Path

from dispatcher.archives import Format, Limits, extract, pack

State = tuple[int, bytes]


def everything(folder: Path) -> dict[str, State]:
    """Mode and content of all that is in it, links not followed; by path."""
    found: dict[str, State] = {}
    for above, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(above, name)
            mode = path.lstat().st_mode
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            found[path.relative_to(folder).as_posix()] = mode, content
    return found


def unpacked(
    content: bytes,
    folder: Path,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    over: Callable[[], bool] = lambda: False,
) -> Format:
    return extract(io.BytesIO(content), folder, limits, over)


def packed(folder: Path, kind: Format, include: list[str] | None = None) -> bytes:
    file = io.BytesIO()
    pack(folder, file, kind, include)
    return file.getvalue()
