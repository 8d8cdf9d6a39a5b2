"""A TCP relay before a Redis server: a crash test stops a job at an exact command, from outside.

It owns the way between a client and Redis, on a thread of its own. A test gives a process
`relay.url`, says with `hold` which request is to stop, or the reply to which, waits for that with
`Gate.reached`, and then lets it go on, cuts it, or swallows it. What nobody holds goes through byte
for byte.

A held client does not wait for ever: the ledger gives up after 2 seconds (`ANSWER_WITHIN`) and asks
again on another connection, which passes, for a gate holds no more commands than it was told to."""

import asyncio
import socket
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from itertools import chain
from typing import Self, TypeVar

import psutil

from tests.faults.commands import Matches
from tests.faults.resp import Framer

T = TypeVar("T")

AT_ONCE = 1 << 18  # bytes of one read
PIECE = 1 << 16  # bytes of one write: so much may pass while `freeze` is under way
UNPAIRED = {  # not one reply each: replies are no longer looked at on such a connection
    b"MONITOR", b"PSUBSCRIBE", b"PSYNC", b"PUNSUBSCRIBE", b"SSUBSCRIBE", b"SUBSCRIBE",
    b"SUNSUBSCRIBE", b"SYNC", b"UNSUBSCRIBE",
}  # fmt: skip


class Side(Enum):
    REQUEST = "request"
    REPLY = "reply to"


@dataclass(frozen=True)
class Held:
    """What stands at a gate, and the process that waits for it: None when it is gone."""

    command: list[bytes]
    pid: int | None


class DroppedError(Exception):
    """A connection from here on leads nowhere."""


@dataclass(eq=False)
class Gate:
    """Where matching commands stop. `release`, `cut` or `drop` ends it: later ones pass."""

    relay: "Relay"
    side: Side
    matches: Matches
    after: int
    count: int
    answer: bytes
    matched: int = 0
    stopped: "list[tuple[list[bytes], _Connection]]" = field(default_factory=list)
    full: Future[None] = field(default_factory=Future)
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    def reached(self, within: float = 10) -> Held:
        """The last of `count` held commands, waited for `within` seconds."""
        try:
            self.full.result(within)
        except (TimeoutError, CancelledError):
            raise AssertionError(
                f"not within {within} s: the {self.side.value} {self.matches}; "
                f"held {len(self.stopped)} of {self.count}, {self.matched} matched "
                f"(the first {self.after} pass), commands so far: {dict(self.relay.counts)}"
            ) from None
        return self.held[-1]

    @property
    def held(self) -> list[Held]:
        """All that stopped here, in order."""
        return [Held(command, owner(link.peer, self.relay.port)) for command, link in self.stopped]

    def release(self) -> None:
        """What is held goes on, to Redis even if its client is dead: it was on its way."""
        self.relay.call(self.opened.set)

    def drop(self) -> None:
        """What is held is swallowed. Its connection stays open and carries nothing any more."""
        self.relay.call(self._drop)

    def cut(self) -> None:
        """The connections that are held close: a request was never sent, a reply never read."""
        self.relay.close([link for _, link in self.stopped])
        self.relay.call(self.opened.set)

    def takes(self, commands: list[list[bytes]], reply: bytes = b"") -> list[bytes] | None:
        """The command for which this message is to stop. In the relay's thread, as all below."""
        if self.opened.is_set() or self.answer not in reply:
            return None
        found = next((command for command in commands if self.matches(command)), None)
        if found is None:
            return None
        self.matched += 1
        return found if self.after < self.matched <= self.after + self.count else None

    def forget(self, commands: list[list[bytes]]) -> None:
        """Redis did not know the script: nothing ran, and the client sends it once more."""
        if self.matched and any(map(self.matches, commands)):
            self.matched -= 1

    async def stop(self, command: list[bytes], link: "_Connection") -> None:
        self.stopped.append((command, link))
        if len(self.stopped) == self.count:
            self.full.set_result(None)
        await self.opened.wait()

    def _drop(self) -> None:
        for _, link in self.stopped:
            link.dropped = True
        self.opened.set()


class Relay:
    """Listens on a port of its own inside `with`, and connects each client to the Redis.

    While that Redis is down a client is accepted and closed at once. A predicate that raises ends
    the relay, and `with` raises what it raised.
    """

    def __init__(self, redis_port: int) -> None:
        self.redis_port = redis_port
        self.port = 0
        self.gates: dict[Side, list[Gate]] = {side: [] for side in Side}
        self.counts: Counter[bytes] = Counter()
        self.thawed = asyncio.Event()
        self.thawed.set()
        self._stopping = asyncio.Event()
        self._links: set[_Connection] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def seen(self) -> Counter[bytes]:
        """Commands that were let through to Redis, by name."""
        return self.call(self.counts.copy)

    def hold(
        self,
        matches: Matches,
        side: Side = Side.REQUEST,
        *,
        after: int = 0,
        count: int = 1,
        answer: bytes = b"",
    ) -> Gate:
        """Stops `count` commands that match, beyond the first `after`; others pass, later ones too.

        What follows on its connection waits behind it; the other direction and other connections
        go on. A held request has not reached Redis. A held reply tells of a command that was
        applied: an error or a null is not counted, a command between MULTI and EXEC has EXEC's
        reply, and `answer` is what the reply must contain, as BRPOP's does its queue's name.
        `matches` is asked in the relay's thread, of the name and the arguments.
        """
        gate = Gate(self, side, matches, after, count, answer)
        self.call(lambda: self.gates[side].append(gate))
        return gate

    def freeze(self) -> None:
        """Nothing passes, either way, not even the end of a connection; new ones are silent."""
        self.call(self.thawed.clear)

    def thaw(self) -> None:
        """All goes on, and what was sent meanwhile arrives, also from a client that has gone."""
        self.call(self.thawed.set)

    def cut(self) -> None:
        """Every connection closes. New ones are welcome."""
        self.close(self.call(lambda: list(self._links)))

    def close(self, links: Iterable["_Connection"]) -> None:
        """Returns when they are closed."""
        self.call(lambda: [link.task.cancel() for link in links])
        for link in links:
            link.closed.result(10)

    def call(self, step: Callable[[], T]) -> T:
        """Does it between two steps of the relay's thread."""
        done: Future[T] = Future()
        self._loop.call_soon_threadsafe(lambda: done.set_result(step()))
        return done.result(10)

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.port = int(self._listener.getsockname()[1])
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()
        self._thread = ThreadPoolExecutor(1, "relay")
        self._running = self._thread.submit(self._work)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(RuntimeError):  # it has ended by itself, and the next line but one says why
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.shutdown()
        self._listener.close()
        self._running.result()

    def _work(self) -> None:
        with self._runner:
            self._runner.run(self._relay())

    async def _relay(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.TaskGroup() as group:
                loop.add_reader(self._listener, self._accept, group)
                try:
                    await self._stopping.wait()
                finally:
                    loop.remove_reader(self._listener)
                for link in self._links:
                    link.task.cancel()
        finally:
            for gate in chain(*self.gates.values()):
                gate.full.cancel()

    def _accept(self, group: asyncio.TaskGroup) -> None:
        with suppress(BlockingIOError, ConnectionError):
            client, (_, peer) = self._listener.accept()
            link = _Connection(self, client, peer)
            link.task = group.create_task(link.run())
            self._links.add(link)
            link.task.add_done_callback(lambda _: self._ended(link))

    def _ended(self, link: "_Connection") -> None:
        self._links.remove(link)
        link.close()


class _Connection:
    """One client and its way to Redis and back: two pumps, each of which may stand at a gate."""

    task: asyncio.Task[None]

    def __init__(self, relay: Relay, client: socket.socket, peer: int) -> None:
        self.peer = peer
        self.closed: Future[None] = Future()
        self.dropped = False
        self._relay = relay
        self._client = client
        self._redis = socket.socket()
        for end in (self._client, self._redis):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._requests = Framer()
        self._replies = Framer()
        self._unanswered: deque[list[list[bytes]]] = deque()  # what each reply to come applied
        self._transaction: list[list[bytes]] | None = None

    def close(self) -> None:
        self._client.close()
        self._redis.close()
        self.closed.set_result(None)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_connect(self._redis, ("127.0.0.1", self._relay.redis_port))
            await self._carry()
        except DroppedError:
            with suppress(OSError):
                while await loop.sock_recv(self._client, AT_ONCE):
                    pass
        except OSError:
            pass  # one end broke, so the other closes
        await self._relay.thawed.wait()

    async def _carry(self) -> None:
        # A TaskGroup would lose a `cancel` that comes while the error of one pump ends the other.
        there = self._pump(self._client, self._redis, self._requests, self._request)
        back = self._pump(self._redis, self._client, self._replies, self._reply)
        pumps = [asyncio.create_task(there), asyncio.create_task(back)]
        try:
            await asyncio.gather(*pumps)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.wait(pumps)

    async def _pump(
        self,
        source: socket.socket,
        target: socket.socket,
        framer: Framer,
        heed: Callable[[bytes], Awaitable[None]],
    ) -> None:
        while piece := await asyncio.get_running_loop().sock_recv(source, AT_ONCE):
            for message in framer.feed(piece):
                if not framer.plain:
                    await heed(message)
                await self._send(target, message)
        await self._send(target, framer.rest())
        await self._clear()
        target.shutdown(socket.SHUT_WR)

    async def _clear(self) -> None:
        """Waits for the way to be open."""
        while not self._relay.thawed.is_set():
            await self._relay.thawed.wait()
        if self.dropped:
            raise DroppedError

    async def _send(self, target: socket.socket, message: bytes) -> None:
        whole = memoryview(message)
        for start in range(0, len(whole), PIECE):
            await self._clear()
            await asyncio.get_running_loop().sock_sendall(target, whole[start : start + PIECE])

    async def _request(self, message: bytes) -> None:
        command = self._requests.strings(message)
        if not command:
            return  # Redis does not answer it either
        name = command[0].upper()
        self._expect(name, command)
        await self._stop(Side.REQUEST, [command])
        await self._clear()
        self._relay.counts[name] += 1

    def _expect(self, name: bytes, command: list[bytes]) -> None:
        if name in UNPAIRED or (name == b"CLIENT" and command[1:2] == [b"REPLY"]):
            self._replies.plain = True
        elif self._transaction is None:
            self._unanswered.append([command])
            self._transaction = [] if name == b"MULTI" else None
        elif name in (b"EXEC", b"DISCARD", b"RESET"):
            applied = self._transaction if name == b"EXEC" else []
            self._unanswered.append([*applied, command])
            self._transaction = None
        else:
            self._unanswered.append([])
            self._transaction.append(command)

    async def _reply(self, message: bytes) -> None:
        if message.startswith(b">") or not self._unanswered:
            return
        applied = self._unanswered.popleft()
        if message.startswith(b"-NOSCRIPT"):
            for gate in self._relay.gates[Side.REQUEST]:
                gate.forget(applied)
        if not message.startswith((b"-", b"!", b"_", b"$-1", b"*-1")):
            await self._stop(Side.REPLY, applied, message)

    async def _stop(self, side: Side, commands: list[list[bytes]], reply: bytes = b"") -> None:
        for gate in self._relay.gates[side]:
            if (command := gate.takes(commands, reply)) is not None:
                await gate.stop(command, self)


def owner(port: int, relay_port: int) -> int | None:
    """The process that opened the connection: the oldest that has it, for a fork inherits it."""
    holders = []
    for one in psutil.process_iter():
        with suppress(psutil.Error):
            ends = [(end.laddr, end.raddr) for end in one.net_connections("tcp4")]
            if any(near[1:] == (port,) and far[1:] == (relay_port,) for near, far in ends):
                holders.append((one.create_time(), one.pid))
    return min(holders)[1] if holders else None
