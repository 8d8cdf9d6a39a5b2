"""The rest of AWS that a job worker talks to, on the emulator's own port: S3, STS, KMS, Secrets
Manager and whatever else moto has.

It must not know CodePipeline. moto is loaded at the first call, since that takes a second.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

from a2wsgi import WSGIMiddleware

from dispatcher.emulator.content import Content

BODY = "emulator.body"  # in the scope of a request whose body is here already
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
SCOPE = re.compile(r"Credential=[^/,]+/\d{8}/[^/,]+/(?P<service>[^/,]+)/aws4_request")
Start = Callable[..., Any]


def signed_for(authorization: str | None) -> str | None:
    """The service in a Signature Version 4's scope, if there is one."""
    found = SCOPE.search(authorization or "")
    return None if found is None else found["service"]


@cache
def objects() -> Any:
    """The module through which moto's buckets are reached without a request."""
    from dispatcher.emulator import moto_objects  # noqa: PLC0415

    return moto_objects


def loaded_objects() -> Any:
    """The same, or None while nobody has asked moto for anything."""
    return objects() if objects.cache_info().currsize else None


@cache
def moto() -> Any:
    """moto's WSGI application for all its services, in this process's memory."""
    objects()
    from moto.moto_server.werkzeug_app import (  # noqa: PLC0415
        DomainDispatcherApplication,
        create_backend_app,
    )

    return DomainDispatcherApplication(create_backend_app)


def answer(environ: Mapping[str, Any], start_response: Start) -> Iterable[bytes]:
    """In a thread of the middleware's. What moto breaks on is not AWS's failure: 501."""
    broke = False

    def begin(status: str, headers: Any, exc_info: Any = None) -> Any:
        nonlocal broke
        broke = status.startswith("500")
        return None if broke else start_response(status, headers, exc_info)

    answered: Iterable[bytes] = ()
    try:
        answered = moto()(with_body(environ), begin)
    except Exception:  # noqa: BLE001 - it may be anything that a request makes moto do
        broke = True
    if not broke:
        return answered
    what = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
    body = json.dumps({"__type": "NotImplemented", "message": f"moto cannot answer {what}"})
    start_response("501 Not Implemented", [("Content-Type", "application/json")])
    return [body.encode()]


class Whole:
    """A body that is here: moto reads it in one piece, which then may be no bytes but a file."""

    def __init__(self, content: bytes | Content) -> None:
        self._content = content

    def read(self, size: int = -1) -> bytes | Content:
        whole, end = self._content, size if size >= 0 else len(self._content)
        self._content = whole[end:]
        return whole if end >= len(whole) else bytes(whole[:end])


def with_body(environ: Mapping[str, Any]) -> Mapping[str, Any]:
    """With the body that the scope holds, and the path as it was sent: moto decodes it itself."""
    scope = environ["asgi.scope"]
    if BODY not in scope:
        return environ
    body = scope[BODY]
    changed = {
        **environ,
        "wsgi.input": Whole(body),
        "wsgi.input_terminated": True,
        "CONTENT_LENGTH": str(len(body)),
        "RAW_URI": scope["raw_path"].decode("latin-1"),
    }
    if environ["REQUEST_METHOD"] == "PUT" and environ.get("CONTENT_TYPE", "").startswith(FORMS):
        changed["CONTENT_TYPE"] = "binary/octet-stream"  # moto would look for fields in an object
    return changed


def forget() -> None:
    """All that moto's services hold, if they hold anything."""
    if loaded_objects() is not None:
        from werkzeug.test import Client  # noqa: PLC0415 - comes with moto

        Client(moto()).post("/moto-api/reset")


# Threads: each answer that a caller takes slowly has one.
services: Any = WSGIMiddleware(
    answer, workers=40
)  # starlette's types and a2wsgi's do not know each other
