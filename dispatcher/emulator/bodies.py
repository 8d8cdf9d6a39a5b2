"""Requests' bodies: how much of one is read, and what JSON is.

It must not know what a body says.
"""

import json
import math
from typing import Any

from starlette.requests import Request

LARGEST = 2**20  # bytes; output variables, the longest that a call can carry, have 122,880


class TooLargeError(Exception):
    """The text says how large a body may be."""


async def read(http: Request) -> bytes:
    """All of it, but never more than the limit in memory. Raises TooLargeError.

    What is too long is read to its end all the same: a client that is still writing would see its
    connection break, and not the answer.
    """
    kept = bytearray()
    size = 0
    async for chunk in http.stream():
        size += len(chunk)
        if size <= LARGEST:
            kept += chunk
    if size > LARGEST:
        raise TooLargeError(f"the body has {size} bytes; {LARGEST} are the most")
    return bytes(kept)


def decode(body: bytes) -> Any:
    """Raises ValueError, also for the NaN and Infinity that Python alone takes for JSON."""
    try:
        return json.loads(body, parse_float=finite, parse_constant=finite)
    except RecursionError:
        raise ValueError("nested too deep") from None


def finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a number that JSON can hold")
    return number
