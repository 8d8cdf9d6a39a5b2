"""The emulator's HTTP and process: X-Amz-Target and JSON 1.1, the signature header, admin paths.

It must not know what a call means: `calls` and `admin` answer, the machine decides.
"""

import json
import math
import re
import signal
import socket
import sys
import time
import uuid
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from dispatcher.emulator import admin
from dispatcher.emulator.calls import CALLS, Answer
from dispatcher.emulator.machine import CallError, Machine, Options

TARGET = "CodePipeline_20150709."
# The signature is not verified: the emulator holds no secret keys.
SIGNATURE = re.compile(
    r"AWS4-HMAC-SHA256 Credential=[^/,]+/\d{8}/[^/,]+/codepipeline/aws4_request, *"
    r"SignedHeaders=[^,]+, *Signature=[0-9a-f]{64}"
)


class Front:
    """The endpoints around one machine: one event loop, no threads, no await while it works."""

    def __init__(self, options: Options, clock: Callable[[], float]) -> None:
        self.machine = Machine(options, clock)
        self.log = admin.CallLog()

    async def call(self, http: Request) -> Response:
        """One of the ten calls; AWS answers all their errors with 400."""
        body = await http.body()
        target = http.headers.get("x-amz-target", "")
        request: Any = None
        try:
            check_signature(http.headers.get("authorization"))
            request = decode_call(body)
            answer = self.run(target, request)
        except CallError as error:
            self.record(target, request, 400, error.code, applied=False)
            return aws_answer({"__type": error.code, "message": error.message}, 400)
        self.record(target, request, 200, None, applied=answer.applied)
        return aws_answer(answer.body)

    def run(self, target: str, request: object) -> Answer:
        call = CALLS.get(target.removeprefix(TARGET)) if target.startswith(TARGET) else None
        if call is None:
            raise CallError("UnknownOperationException", f"No operation {target!r} here")
        return call.run(self.machine, request)

    def record(
        self, target: str, request: Any, status: int, error: str | None, *, applied: bool
    ) -> None:
        self.log.add(
            at=self.machine.advance(),
            operation=target.removeprefix(TARGET),
            request=request,
            status=status,
            error=error,
            applied=applied,
        )

    async def add_jobs(self, http: Request) -> Response:
        return admin_answer(admin.add_jobs(self.machine, decode_admin(await http.body())))

    async def add_action_type(self, http: Request) -> Response:
        return admin_answer(admin.add_action_type(self.machine, decode_admin(await http.body())))

    async def show_jobs(self, http: Request) -> Response:
        return admin_answer(admin.show_jobs(self.machine, http.query_params.get("id")))

    async def show_log(self, _http: Request) -> Response:
        return Response(self.log.text(), media_type="application/json")


def create_app(options: Options, clock: Callable[[], float] = time.time) -> Starlette:
    front = Front(options, clock)
    return Starlette(
        routes=[
            Route("/", front.call, methods=["POST"]),
            Route("/_admin/jobs", front.add_jobs, methods=["POST"]),
            Route("/_admin/jobs", front.show_jobs, methods=["GET"]),
            Route("/_admin/action-types", front.add_action_type, methods=["POST"]),
            Route("/_admin/log", front.show_log, methods=["GET"]),
        ],
        exception_handlers={
            admin.AdminError: wrong_admin_call,
            ClientDisconnect: gone,
            HTTPException: no_such_path,
        },
    )


def check_signature(header: str | None) -> None:
    if header is None:
        raise CallError("MissingAuthenticationTokenException", "Missing Authentication Token")
    if SIGNATURE.fullmatch(header) is None:
        raise CallError(
            "IncompleteSignatureException",
            "The Authorization header is not a Signature Version 4 for service codepipeline",
        )


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


def decode_call(body: bytes) -> Any:
    try:
        return decode(body or b"{}")
    except ValueError as error:
        raise CallError("SerializationException", f"The body is not JSON: {error}") from error


def decode_admin(body: bytes) -> Any:
    try:
        return decode(body)
    except ValueError as error:
        raise admin.AdminError(f"the body is not JSON: {error}") from error


def aws_answer(body: object, status: int = 200) -> Response:
    """JSON 1.1; a put's answer has no body at all."""
    return Response(
        b"" if body is None else json.dumps(body),
        status,
        headers={"x-amzn-RequestId": str(uuid.uuid4())},
        media_type="application/x-amz-json-1.1",
    )


def admin_answer(body: object, status: int = 200) -> Response:
    return Response(json.dumps(body), status, media_type="application/json")


async def wrong_admin_call(_http: Request, error: Exception) -> Response:
    return admin_answer({"error": str(error)}, 400)


async def no_such_path(http: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return admin_answer({"error": f"nothing answers {http.method} {http.url.path}"}, status)


async def gone(_http: Request, _error: Exception) -> Response:
    return Response()  # nobody reads it: the caller left before its request was whole


class AnnouncingServer(uvicorn.Server):
    """Says on standard output when it is ready, so that a parent process can wait for the line."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        host, port = (sockets or [])[0].getsockname()[:2]
        sys.stdout.write(f"emulator listening on http://{host}:{port}\n")
        sys.stdout.flush()


def serve(*, port: int, host: str = "127.0.0.1", options: Options) -> None:
    """Run until SIGTERM or SIGINT, then exit 0. Port 0: a free one. A port taken: exit 1."""
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
    config = uvicorn.Config(
        create_app(options),
        access_log=False,
        lifespan="off",
        log_level="warning",
        timeout_graceful_shutdown=1,
        # Longer than clients keep an idle connection, lest one is closed under a request.
        timeout_keep_alive=300,
    )
    with listener:
        AnnouncingServer(config).run(sockets=[listener])


def leave(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)
