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

SCOPE = re.compile(r"Credential=[^/,]+/\d{8}/[^/,]+/(?P<service>[^/,]+)/aws4_request")
Start = Callable[..., Any]


def signed_for(authorization: str | None) -> str | None:
    """The service in a Signature Version 4's scope, if there is one."""
    found = SCOPE.search(authorization or "")
    return None if found is None else found["service"]


@cache
def moto() -> Any:
    """moto's WSGI application for all its services, in this process's memory."""
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
        answered = moto()(environ, begin)
    except Exception:  # noqa: BLE001 - it may be anything that a request makes moto do
        broke = True
    if not broke:
        return answered
    what = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
    body = json.dumps({"__type": "NotImplemented", "message": f"moto cannot answer {what}"})
    start_response("501 Not Implemented", [("Content-Type", "application/json")])
    return [body.encode()]


def forget() -> None:
    """All that moto's services hold, if they hold anything."""
    if moto.cache_info().currsize:
        from werkzeug.test import Client  # noqa: PLC0415 - comes with moto

        Client(moto()).post("/moto-api/reset")


services: Any = WSGIMiddleware(answer)  # starlette's types and a2wsgi's do not know each other
