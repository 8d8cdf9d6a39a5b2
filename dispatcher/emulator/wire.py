"""Answers that come late, cut short or not at all: what faults need of asyncio and uvicorn.

It must not know which call it is, nor why.
"""

import asyncio
from collections.abc import Iterable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
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
