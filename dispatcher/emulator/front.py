"""CodePipeline's ten calls over HTTP: X-Amz-Target and JSON 1.1, the signature header, faults.

It must not know what a call means: `calls` answers, the machine decides.
"""

import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from dispatcher.emulator import bodies, effects
from dispatcher.emulator.calls import CALLS, Answer
from dispatcher.emulator.faults import Fault, Faults, Kind, Rule, When
from dispatcher.emulator.jobs import CallError
from dispatcher.emulator.logs import Log, call_entry
from dispatcher.emulator.machine import Machine
from dispatcher.emulator.options import Options
from dispatcher.emulator.signature import check_signature, check_signing_time
from dispatcher.emulator.throttle import Throttle
from dispatcher.emulator.wire import Dropped, Truncated, Waits

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
        self.log = Log()
        self.object_log = Log()  # of calls to S3
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
        entry = call_entry(
            at=self.machine.advance(),
            operation=target.removeprefix(TARGET),
            request=request,
            status=None if reply is None else reply.status,
            error=None if reply is None else reply.error,
            applied=reply is not None and reply.applied,
            fault=fault,
        )
        self.log.add(entry)


def refused(code: str, message: str, status: int = 400) -> Reply:
    return Reply({"__type": code, "message": message}, status, code)


def decode_call(body: bytes) -> Any:
    try:
        return bodies.decode(body or b"{}")
    except ValueError as error:
        raise CallError("SerializationException", f"The body is not JSON: {error}") from error


def aws_answer(body: object, status: int, date: str) -> Response:
    """JSON 1.1; a put's answer has no body at all."""
    return Response(
        b"" if body is None else json.dumps(body),
        status,
        headers={"x-amzn-RequestId": str(uuid.uuid4()), "Date": date},
        media_type="application/x-amz-json-1.1",
    )
