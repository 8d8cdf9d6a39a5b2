"""What was asked, in order, without secrets. Kept as JSON: it is long and seldom read.

It must not know HTTP, nor what a call means.
"""

import json
import re
from collections import deque
from typing import Any

# By the names of members: what a request holds under any of these is not for a log.
SECRET = re.compile("token|nonce|secret|passw|credential|key", re.IGNORECASE)
MASK = "***"
DEEPEST = 8  # no request that AWS knows is nested so deep
MOST = 1_000_000


class Log:
    """Entries; of more than `most` the oldest are forgotten."""

    def __init__(self, most: int = MOST) -> None:
        self._lines: deque[str] = deque(maxlen=most)

    def add(self, entry: object) -> None:
        self._lines.append(json.dumps(entry))

    def text(self) -> str:
        return f"[{','.join(self._lines)}]"


def call_entry(
    *,
    at: float,
    operation: str,
    request: Any,
    status: int | None,
    error: str | None,
    applied: bool,
    fault: str | None,
) -> dict[str, Any]:
    """Of one of the ten calls."""
    job_id = request.get("jobId") if isinstance(request, dict) else None
    return {
        "at": at,
        "operation": operation,
        "jobId": job_id,
        "request": mask(request),
        "status": status,
        "error": error,
        "applied": applied,
        "fault": fault,
    }


def mask(value: Any, deep: int = 0) -> Any:
    if deep > DEEPEST:
        return MASK
    if isinstance(value, dict):
        return {
            key: MASK if SECRET.search(key) else mask(item, deep + 1) for key, item in value.items()
        }
    return [mask(item, deep + 1) for item in value] if isinstance(value, list) else value
