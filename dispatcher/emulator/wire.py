"""Answers that come late, cut short or not at all: what faults need of asyncio and uvicorn.

It must not know which call it is, nor why.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

TRANSPORT = "transport"


class OpenProtocol(H11Protocol):
    """uvicorn's own, which gives the application its connection: ASGI has no way to drop one."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, TRANSPORT: transport}


class Dropped(Response):
    """The connection ends without a byte of an answer."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        scope["state"][TRANSPORT].abort()
        await ended(receive)


class Truncated(Response):
    """The head of an answer and the first `size` bytes of its body, then the connection ends.

    A body that is no longer than that is announced with a byte more than it has, so that an empty
    one can be cut too.
    """

    def __init__(self, whole: Response, size: int | None) -> None:
        body = bytes(whole.body)
        self.head = [pair for pair in whole.raw_headers if pair[0] != b"content-length"]
        self.sent = body[: len(body) // 2 if size is None else size]
        self.announced = max(len(body), len(self.sent) + 1)
        super().__init__(status_code=whole.status_code)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = [*self.head, (b"content-length", b"%d" % self.announced)]
        await send({"type": "http.response.start", "status": self.status_code, "headers": head})
        await send({"type": "http.response.body", "body": self.sent, "more_body": True})
        scope["state"][TRANSPORT].close()
        await ended(receive)


class Late:
    """What sends an answer once `wait` is over, or drops the connection if that says so."""

    def __init__(self, scope: Scope, send: Send, wait: Callable[[], Awaitable[bool]]) -> None:
        self._transport = scope["state"][TRANSPORT]
        self._send = send
        self._wait = wait

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and not await self._wait():
            self._transport.abort()
        if not self._transport.is_closing():
            await self._send(message)


class Cut:
    """What sends the head of an answer and the first `size` bytes of its body, half of it by
    default, then ends the connection. Announced is at least a byte more than is sent."""

    def __init__(self, scope: Scope, send: Send, size: int | None) -> None:
        self._transport = scope["state"][TRANSPORT]
        self._send = send
        self._size = size
        self._left = 0

    async def __call__(self, message: Message) -> None:
        if self._transport.is_closing():
            return
        if message["type"] == "http.response.start":
            await self._send({**message, "headers": self._announce(message["headers"])})
            return
        body = bytes(message.get("body", b"")[: self._left])
        self._left -= len(body)
        await self._send({"type": "http.response.body", "body": body, "more_body": True})
        if not self._left or not message.get("more_body"):
            self._transport.close()

    def _announce(self, headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        sizes = [int(value) for name, value in headers if name == b"content-length"]
        whole = sizes[0] if sizes else 0
        self._left = whole // 2 if self._size is None else min(self._size, whole)
        others = [pair for pair in headers if pair[0] != b"content-length"]
        return [*others, (b"content-length", b"%d" % max(whole, self._left + 1))]


def closed(scope: Scope) -> bool:
    """Whether the connection was ended here."""
    return bool(scope["state"][TRANSPORT].is_closing())


async def ended(receive: Receive) -> None:
    """uvicorn answers 500 for an application that returns before it noticed."""
    while (await receive())["type"] != "http.disconnect":
        pass


class Waits:
    """Calls that wait, by the fault that made them."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[asyncio.Future[bool]]] = {}

    async def wait(self, fault_id: str, seconds: float | None) -> bool:
        """Until it is released, or so long. False: the server ends, nothing is to be done."""
        mine: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(fault_id, [])
        waiting.append(mine)
        try:
            await asyncio.wait({mine}, timeout=seconds)
        finally:
            waiting.remove(mine)
        return not mine.done() or mine.result()

    def held(self, fault_id: str) -> int:
        return len(self._still(fault_id))

    def release(self, fault_ids: Iterable[str]) -> int:
        """How many go on."""
        return sum(self._let(fault_id, go_on=True) for fault_id in fault_ids)

    def end(self) -> None:
        for fault_id in self._waiting:
            self._let(fault_id, go_on=False)

    def _let(self, fault_id: str, *, go_on: bool) -> int:
        waiting = self._still(fault_id)
        for mine in waiting:
            mine.set_result(go_on)
        return len(waiting)

    def _still(self, fault_id: str) -> list[asyncio.Future[bool]]:
        return [mine for mine in self._waiting.get(fault_id, ()) if not mine.done()]
