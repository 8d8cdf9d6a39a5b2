"""The emulator's address and process: which of its parts answers a request, start and end.

It must not know what a request means.
"""

import os
import resource
import signal
import socket
import sys
import threading
from types import FrameType
from typing import NoReturn

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from dispatcher.emulator.admin import AdminError
from dispatcher.emulator.admin_calls import AdminCalls, no_such_path, wrong_admin_call
from dispatcher.emulator.front import TARGET, Front
from dispatcher.emulator.options import Options
from dispatcher.emulator.services import services, signed_for
from dispatcher.emulator.storage import Storage, is_for_storage
from dispatcher.emulator.wire import OpenProtocol, Waits

MOST_FILES = 10_240  # macOS allows no process more


def create_app(front: Front) -> ASGIApp:
    """All of AWS at one address: CodePipeline's calls and ours here, the rest to moto."""
    ours, storage = job_calls(front), Storage(front)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        chosen: ASGIApp = ours
        if not is_ours(scope):
            chosen = storage if is_for_storage(scope) else services
        await chosen(scope, receive, send)

    return app


def is_ours(scope: Scope) -> bool:
    """Whether a request is for CodePipeline, or is an admin call.

    Its calls are told by their target, or by the signature's scope. An unsigned form may be STS's,
    and a path S3's; what else is unsigned gets CodePipeline's error.
    """
    if scope["path"].lower().startswith(("/_admin", "//")):
        return True
    headers = Headers(scope=scope)
    if headers.get("x-amz-target", "").startswith(TARGET):
        return True
    service = signed_for(headers.get("authorization"))
    if service is not None:
        return service == "codepipeline"
    if scope["path"] != "/":
        return False
    form = headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
    return bool(scope["method"] == "POST") and not form


def job_calls(front: Front) -> Starlette:
    app = Starlette(
        routes=[Route("/", front.call, methods=["POST"]), *AdminCalls(front).routes()],
        exception_handlers={
            AdminError: wrong_admin_call,
            ClientDisconnect: gone,
            HTTPException: no_such_path,
        },
    )
    app.router.redirect_slashes = False  # a POST that is sent elsewhere loses its body
    return app


async def gone(_http: Request, _error: Exception) -> Response:
    return Response()  # nobody reads it: the caller left before its request was whole


class AnnouncingServer(uvicorn.Server):
    """Says on standard output when it is ready, so that a parent process can wait for the line."""

    def __init__(self, config: uvicorn.Config, waits: Waits) -> None:
        super().__init__(config)
        self.waits = waits

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.waits.end()  # they would keep it from ending
        await super().shutdown(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        host, port = (sockets or [])[0].getsockname()[:2]
        sys.stdout.write(f"emulator listening on http://{host}:{port}\n")
        sys.stdout.flush()


def serve(*, port: int, host: str = "127.0.0.1", options: Options, until_eof: bool = False) -> None:
    """Run until SIGTERM or SIGINT, then exit 0. Port 0: a free one. A port taken: exit 1.

    `until_eof`: also until standard input closes, so that it never outlives who started it.
    """
    try:
        listener = socket.create_server((host, port), backlog=1024)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        plain = str(reason).partition(" (")[0]  # Python adds the address once more
        sys.stderr.write(f"emulator: cannot listen on {host}:{port}: {plain}\n")
        raise SystemExit(1) from None
    # Connections inherit it. asyncio would set it only where the listener names its protocol, and
    # an answer, sent as head and body, would wait 40 ms for the other side's acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # uvicorn raises the signal that stopped it once more when it is done.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    allow_files()
    front = Front(options)
    config = uvicorn.Config(
        create_app(front),
        http=OpenProtocol,
        date_header=False,  # an answer of AWS's has the time of AWS's clock
        access_log=False,
        lifespan="off",
        log_level="warning",
        timeout_graceful_shutdown=1,
        # Longer than clients keep an idle connection, lest one is closed under a request.
        timeout_keep_alive=300,
    )
    if until_eof:
        threading.Thread(target=leave_at_eof, daemon=True).start()
    with listener:
        AnnouncingServer(config, front.waits).run(sockets=[listener])


def allow_files() -> None:
    """As many as this process may have: each large object of S3's is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def leave(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


def leave_at_eof() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
