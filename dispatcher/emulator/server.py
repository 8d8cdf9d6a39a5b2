"""The emulator's HTTP and process: X-Amz-Target and JSON 1.1, the signature header, admin paths.

It must not know what a call means: `calls` and `admin` answer, the machine decides.
"""

import json
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from types import FrameType
from typing import Any, NoReturn

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from dispatcher.emulator import admin, bodies, effects
from dispatcher.emulator.calls import CALLS, Answer
from dispatcher.emulator.faults import Fault, Faults, Kind, Rule, When
from dispatcher.emulator.machine import CallError, Machine
from dispatcher.emulator.options import Options
from dispatcher.emulator.services import forget, services, signed_for
from dispatcher.emulator.signature import check_signature, check_signing_time
from dispatcher.emulator.throttle import Throttle
from dispatcher.emulator.wire import Dropped, OpenProtocol, Truncated, Waits

TARGET = "CodePipeline_20150709."


@dataclass(frozen=True)
class Reply:
    """What a call came to. AWS answers all errors of the ten calls with 400."""

    body: object
    status: int = 200
    error: str | None = None
    applied: bool = False


class Front:
    """The endpoints around one machine: one event loop, no threads, no await while it works."""

    def __init__(self, options: Options, clock: Callable[[], float] = time.time) -> None:
        self.options = options
        self.clock = clock
        self.waits = Waits()
        self.begin(options)

    def begin(self, options: Options) -> None:
        self.machine = Machine(options, self.clock)
        self.throttle = Throttle(options.rate, self.clock)
        self.log = admin.CallLog()
        self.faults = Faults()
        self.offset = 0.0  # seconds by which AWS's clock, as callers see it, is ahead of ours

    async def call(self, http: Request) -> Response:
        """One of the ten calls."""
        target = http.headers.get("x-amz-target", "")
        request: Any = None
        try:
            body = await bodies.read(http)
            self.check(http.headers)
            request = decode_call(body)
        except bodies.TooLargeError as error:
            too_large = refused("RequestEntityTooLargeException", str(error), 413)
            return self.answer(target, request, too_large)
        except CallError as error:
            return self.answer(target, request, refused(error.code, error.message))
        fault = self.fault(target, request) if self.faults else None
        if fault is not None:
            return await self.spoil(fault, target, request)
        return self.answer(target, request, self.handle(target, request))

    def check(self, headers: Mapping[str, str]) -> None:
        check_signature(headers.get("authorization"))
        if self.offset:
            check_signing_time(headers.get("x-amz-date"), self.clock() + self.offset)
        if not self.throttle.takes():
            raise CallError("ThrottlingException", "Rate exceeded")

    def handle(self, target: str, request: object) -> Reply:
        try:
            answer = self.run(target, request)
        except CallError as error:
            return refused(error.code, error.message)
        return Reply(answer.body, applied=answer.applied)

    def run(self, target: str, request: object) -> Answer:
        call = CALLS.get(target.removeprefix(TARGET)) if target.startswith(TARGET) else None
        if call is None:
            raise CallError("UnknownOperationException", f"No operation {target!r} here")
        return call.run(self.machine, request)

    def fault(self, target: str, request: Any) -> Fault | None:
        operation = target.removeprefix(TARGET)
        if operation not in CALLS or not isinstance(request, dict):
            return None
        return self.faults.take(
            operation,
            request.get("jobId"),
            lambda rule: effects.possible(self.machine, rule, operation, request),
        )

    async def spoil(self, fault: Fault, target: str, request: dict[str, Any]) -> Response:
        rule = fault.rule
        if rule.kind is Kind.DROP_BEFORE:
            self.record(target, request, None, rule.kind)
            return Dropped()
        if rule.waits(When.BEFORE) and not await self.waits.wait(fault.id, rule.seconds):
            return Dropped()
        answer = self.answer(target, request, self.handle_under(rule, target, request), rule.kind)
        if rule.waits(When.AFTER) and not await self.waits.wait(fault.id, rule.seconds):
            return Dropped()
        if rule.kind is Kind.DROP_AFTER:
            return Dropped()
        return Truncated(answer, rule.bytes) if rule.kind is Kind.TRUNCATE else answer

    def handle_under(self, rule: Rule, target: str, request: dict[str, Any]) -> Reply:
        refusal = rule.refusal()
        if refusal is not None:
            return refused(refusal.code, refusal.message, refusal.status)
        effects.strike(self.machine, rule, target.removeprefix(TARGET), request)
        reply = self.handle(target, request)
        if rule.kind is Kind.STALE_NONCE and reply.error is None and isinstance(reply.body, dict):
            effects.show_stale_nonces(self.machine, reply.body)
        return reply

    def answer(
        self, target: str, request: Any, reply: Reply, fault: Kind | None = None
    ) -> Response:
        self.record(target, request, reply, fault)
        date = formatdate(self.clock() + self.offset, usegmt=True)
        return aws_answer(reply.body, reply.status, date)

    def record(self, target: str, request: Any, reply: Reply | None, fault: Kind | None) -> None:
        """Without a reply: the call was not answered, and did nothing."""
        self.log.add(
            at=self.machine.advance(),
            operation=target.removeprefix(TARGET),
            request=request,
            status=None if reply is None else reply.status,
            error=None if reply is None else reply.error,
            applied=reply is not None and reply.applied,
            fault=fault,
        )

    async def add_jobs(self, http: Request) -> Response:
        return admin_answer(admin.add_jobs(self.machine, await read_admin(http)))

    async def add_action_type(self, http: Request) -> Response:
        return admin_answer(admin.add_action_type(self.machine, await read_admin(http)))

    async def show_jobs(self, http: Request) -> Response:
        admin.only(http.query_params, "id")
        return admin_answer(admin.show_jobs(self.machine, http.query_params.get("id")))

    async def end_job(self, http: Request) -> Response:
        admin.nothing(await read_admin(http, empty=b"{}"))
        job_id, how = http.path_params["job_id"], http.path_params["how"]
        return admin_answer(admin.end_job(self.machine, job_id, how))

    async def show_log(self, http: Request) -> Response:
        admin.only(http.query_params)
        return Response(self.log.text(), media_type="application/json")

    async def add_faults(self, http: Request) -> Response:
        added = admin.add_faults(self.faults, await read_admin(http))
        return self.fault_answer(added)

    async def show_faults(self, http: Request) -> Response:
        admin.only(http.query_params)
        return self.fault_answer(self.faults.get())

    async def remove_faults(self, http: Request) -> Response:
        """What waits because of them goes on."""
        admin.only(http.query_params, "id")
        if await bodies.read(http):
            raise admin.AdminError("which fault to end is said by ?id=, not by a body")
        found = admin.find_faults(self.faults, http.query_params.get("id"))
        self.faults.remove(found)
        self.waits.release(fault.id for fault in found)
        return self.fault_answer(self.faults.get())

    async def release(self, http: Request) -> Response:
        found = admin.faults_to_release(self.faults, await read_admin(http))
        return admin_answer({"released": self.waits.release(fault.id for fault in found)})

    async def set_clock(self, http: Request) -> Response:
        self.offset = admin.clock_offset(await read_admin(http))
        return admin_answer({"offset": self.offset})

    async def reset(self, http: Request) -> Response:
        """As after a start: calls that wait get no answer, what moto holds is gone too."""
        options = admin.to_options(self.options, await read_admin(http, empty=b"{}"))
        self.waits.end()
        self.begin(options)
        await run_in_threadpool(forget)
        return admin_answer({})

    def fault_answer(self, faults: list[Fault]) -> Response:
        shown = [{**fault.show(), "held": self.waits.held(fault.id)} for fault in faults]
        return admin_answer({"faults": shown})


def create_app(front: Front) -> ASGIApp:
    """All of AWS at one address: CodePipeline's calls and ours here, the rest to moto."""
    ours = job_calls(front)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (ours if is_ours(scope) else services)(scope, receive, send)

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
        routes=[
            Route("/", front.call, methods=["POST"]),
            Route("/_admin/jobs", front.add_jobs, methods=["POST"]),
            Route("/_admin/jobs", front.show_jobs, methods=["GET"]),
            Route("/_admin/jobs/{job_id}/{how}", front.end_job, methods=["POST"]),
            Route("/_admin/action-types", front.add_action_type, methods=["POST"]),
            Route("/_admin/log", front.show_log, methods=["GET"]),
            Route("/_admin/faults", front.add_faults, methods=["POST"]),
            Route("/_admin/faults", front.show_faults, methods=["GET"]),
            Route("/_admin/faults", front.remove_faults, methods=["DELETE"]),
            Route("/_admin/release", front.release, methods=["POST"]),
            Route("/_admin/clock", front.set_clock, methods=["POST"]),
            Route("/_admin/reset", front.reset, methods=["POST"]),
        ],
        exception_handlers={
            admin.AdminError: wrong_admin_call,
            ClientDisconnect: gone,
            HTTPException: no_such_path,
        },
    )
    app.router.redirect_slashes = False  # a POST that is sent elsewhere loses its body
    return app


def refused(code: str, message: str, status: int = 400) -> Reply:
    return Reply({"__type": code, "message": message}, status, code)


def decode_call(body: bytes) -> Any:
    try:
        return bodies.decode(body or b"{}")
    except ValueError as error:
        raise CallError("SerializationException", f"The body is not JSON: {error}") from error


async def read_admin(http: Request, empty: bytes = b"") -> Any:
    admin.only(http.query_params)
    try:
        return bodies.decode(await bodies.read(http) or empty)
    except bodies.TooLargeError as error:
        raise admin.AdminError(str(error)) from error
    except ValueError as error:
        raise admin.AdminError(f"the body is not JSON: {error}") from error


def aws_answer(body: object, status: int, date: str) -> Response:
    """JSON 1.1; a put's answer has no body at all."""
    return Response(
        b"" if body is None else json.dumps(body),
        status,
        headers={"x-amzn-RequestId": str(uuid.uuid4()), "Date": date},
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


def leave(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


def leave_at_eof() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
