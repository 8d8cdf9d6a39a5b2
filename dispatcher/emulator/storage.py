"""S3's front: whose keys a request has and what they may, and faults. The answer is moto's.

It must not know what is kept, nor what a job wants with it.
"""

from collections.abc import Awaitable

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from dispatcher.emulator import gate, sigv4
from dispatcher.emulator.exchange import Exchange
from dispatcher.emulator.faults import Fault, Kind, Refusal, When
from dispatcher.emulator.front import Front
from dispatcher.emulator.operations import Asked
from dispatcher.emulator.services import BODY, FORMS, loaded_objects, services, signed_for
from dispatcher.emulator.sigv4 import Signed
from dispatcher.emulator.uploads import Upload, UploadError, receive_all
from dispatcher.emulator.wire import Cut, Dropped, Late, closed, ended

# What moto must not see: the body is here, whole and without AWS's chunks.
SPENT = frozenset(
    {
        b"expect",
        b"transfer-encoding",
        b"x-amz-content-sha256",
        b"x-amz-decoded-content-length",
        b"x-amz-trailer",
    }
)
OTHERS = ("/moto-api", "/latest/meta-data", "/latest/api", "/favicon.ico")


def is_for_storage(scope: Scope) -> bool:
    """Of what is not CodePipeline's: what is signed for S3, and a path that nobody signed."""
    asked = asked_of(scope)
    signed = sigv4.read(asked)
    service = signed_for(asked.headers.get("authorization")) if signed is None else signed.service
    if service is not None:
        return service == "s3"
    if "x-amz-target" in asked.headers or scope["path"].startswith(OTHERS):
        return False
    form = asked.headers.get("content-type", "").startswith(FORMS)
    return not (scope["path"] == "/" and scope["method"] == "POST" and form)


def headers_of(scope: Scope) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    return headers


def asked_of(scope: Scope) -> Asked:
    return Asked(
        scope["method"],
        scope["raw_path"].decode("latin-1"),
        scope["query_string"].decode("latin-1"),
        headers_of(scope),
    )


class Storage:
    def __init__(self, front: Front) -> None:
        self._front = front

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange, signed = self._begin(asked_of(scope))
        refusal = self._refusal(exchange, signed)
        if refusal is not None:
            await exchange.refuse(refusal)(scope, receive, send)
            return
        fault = self._front.faults.take(exchange.asked.operation, exchange.job_id)
        if fault is not None:
            exchange.fault = fault.rule.kind
        await self._answer(exchange, fault, scope, receive, send)

    def _begin(self, asked: Asked) -> tuple[Exchange, Signed | None]:
        front, signed, objects = self._front, sigv4.read(asked), loaded_objects()
        keys = None if signed is None else front.machine.keys.get(signed.access_key_id)
        region = None if objects is None else objects.region_of(asked.bucket)
        return Exchange(asked, front.machine, front.object_log, keys, region), signed

    def _refusal(self, exchange: Exchange, signed: Signed | None) -> Refusal | None:
        if signed is None:
            return gate.older_signature(exchange.asked)
        elsewhere = gate.wrong_region(exchange.asked, signed, exchange.region)
        if elsewhere is not None:
            return elsewhere
        if exchange.keys is None:
            return gate.unknown_key(signed, known_elsewhere)
        now = exchange.machine.advance()
        return gate.refused(exchange.asked, signed, exchange.keys, now, self._front.offset)

    async def _answer(
        self,
        exchange: Exchange,
        fault: Fault | None,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        if exchange.fault is Kind.DROP_BEFORE:
            exchange.note()
            await Dropped()(scope, receive, send)
            return
        try:
            upload = await receive_upload(exchange, receive)
        except ClientDisconnect:
            exchange.note()
            return
        except UploadError as error:
            refusal = Refusal("IncompleteBody", str(error), 400)
            await exchange.refuse(refusal)(scope, receive, send)
            return
        if fault is None:
            await forward(exchange, upload, scope, send)
        else:
            await self._spoil(exchange, fault, upload, scope, receive, send)

    async def _spoil(
        self,
        exchange: Exchange,
        fault: Fault,
        upload: Upload,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        rule = fault.rule
        if rule.waits(When.BEFORE) and not await self._wait(fault):
            await Dropped()(scope, receive, send)
            return
        refusal = rule.refusal()
        if refusal is not None:
            await exchange.refuse(refusal)(scope, receive, send)
            return
        await forward(exchange, upload, scope, self._spoiled(fault, scope, send))
        if closed(scope):
            await ended(receive)

    def _spoiled(self, fault: Fault, scope: Scope, send: Send) -> Send:
        if fault.rule.kind is Kind.TRUNCATE:
            return Cut(scope, send, fault.rule.bytes)
        if fault.rule.kind is Kind.DROP_AFTER:
            return Late(scope, send, never)
        if fault.rule.waits(When.AFTER):
            return Late(scope, send, lambda: self._wait(fault))
        return send

    def _wait(self, fault: Fault) -> Awaitable[bool]:
        return self._front.waits.wait(fault.id, fault.rule.seconds)


async def never() -> bool:
    return False


def known_elsewhere(access_key_id: str) -> bool:
    objects = loaded_objects()
    return objects is not None and bool(objects.gave(access_key_id))


async def receive_upload(exchange: Exchange, receive: Receive) -> Upload:
    """Raises UploadError and ClientDisconnect."""
    headers = exchange.asked.headers
    chunked = headers.get("x-amz-content-sha256", "").startswith("STREAMING-")
    upload = await receive_all(receive, chunked=chunked)
    exchange.size = len(upload.content)
    wanted = headers.get("x-amz-decoded-content-length")
    if chunked and wanted not in {None, str(exchange.size)}:
        raise UploadError("The body has another length than its headers say")
    return upload


async def forward(exchange: Exchange, upload: Upload, scope: Scope, send: Send) -> None:
    try:
        await services(as_moto_takes(scope, exchange.asked, upload), no_more, exchange.listen(send))
    finally:
        exchange.note()


async def no_more() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


def as_moto_takes(scope: Scope, asked: Asked, upload: Upload) -> Scope:
    """With the body in it, its trailers as headers, and the bucket in the path."""
    headers = [pair for pair in scope["headers"] if pair[0] not in SPENT]
    headers += [(name.encode(), value.encode()) for name, value in upload.trailers.items()]
    taken = {**scope, "headers": headers, BODY: upload.content}
    found = asked.virtual_host
    if found is not None:
        bucket = f"/{found['bucket']}"
        taken["path"] = bucket + scope["path"]
        taken["raw_path"] = bucket.encode() + scope["raw_path"]
        others = [pair for pair in headers if pair[0] != b"host"]
        taken["headers"] = [*others, (b"host", found["rest"].encode())]
    return taken
