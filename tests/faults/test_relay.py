"""The relay between real clients and a real Redis: what it stops, and that it changes nothing."""

import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kombu import Connection, Queue
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from dispatcher.engine.model import Beat, Claim, Done, JobRef, Park, action_type
from dispatcher.engine.times import Times
from dispatcher.redis_server import RedisServer
from dispatcher.store.ledger import RedisLedger
from tests.faults.commands import Command, Script
from tests.faults.relay import Gate, Relay, Side
from tests.faults.resp import Framer
from tests.harness import Process, eventually

INCR = Command(b"INCRBY", b"n")  # what a client sends for incr("n")
JOB = JobRef("job-1", "client-1", action_type("ThirdParty.Deploy.Acme.1"), "eu-west-1")
CLAIM = Claim(JOB, "owner")
SIDES = pytest.mark.parametrize(("side", "applied"), [(Side.REQUEST, None), (Side.REPLY, "1")])


@pytest.fixture
def aside() -> Iterator[ThreadPoolExecutor]:
    """Where calls wait that a gate holds."""
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.fixture
def relay(
    aside: ThreadPoolExecutor, redis: Redis, redis_server: RedisServer
) -> Iterator[Relay]:  # ends before `aside`, and so frees whoever still waits there
    with Relay(redis_server.port) as relay:
        yield relay


@pytest.fixture
def client(relay: Relay) -> Iterator[Redis]:
    with connected(relay) as client:
        yield client


@contextmanager
def connected(relay: Relay, timeout: float | None = None, protocol: int = 3) -> Iterator[Redis]:
    """A client that tries once, so that it says what became of that."""
    once = Retry(NoBackoff(), 0)
    with Redis.from_url(
        relay.url, protocol=protocol, socket_timeout=timeout, retry=once, decode_responses=True
    ) as client:
        yield client


def packed(*commands: str) -> bytes:
    """As a client writes them; the words of one are parted by blanks."""
    parts = [command.encode().split() for command in commands]
    return b"".join(
        b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
        for words in parts
    )


@contextmanager
def raw(relay: Relay, *commands: str) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", relay.port), timeout=10) as opened:
        opened.sendall(packed(*commands))
        yield opened


def waiting(redis: Redis) -> int:
    """Clients that wait in Redis; what they sent before has been done."""
    return int(redis.info("clients")["blocked_clients"])


def until_closed(opened: socket.socket) -> bytes:
    return b"".join(iter(lambda: opened.recv(1 << 16), b""))


@contextmanager
def process(relay: Relay, folder: Path, script: str) -> Iterator[int]:
    """A Python with a client `redis` of the relay: its process id."""
    start = f"import os, signal, redis; redis = redis.Redis.from_url({relay.url!r}); {script}"
    started = Process([sys.executable, "-c", start], os.environ, folder / "log")
    try:
        yield started.popen.pid
    finally:
        started.end()


@pytest.mark.parametrize("protocol", [2, 3])
def test_what_nobody_holds_goes_through_unchanged(relay: Relay, protocol: int) -> None:
    big = "0123456789abcdef" * (1 << 16)
    with connected(relay, protocol=protocol) as client:
        answers: list[object] = [client.set("big", big)]
        for transaction in (False, True):
            with client.pipeline(transaction=transaction) as pipe:
                pipe.get("big")
                pipe.hset("hash", mapping={"a": "1", "b": ""})
                pipe.hgetall("hash")
                pipe.get("none")
                answers += pipe.execute()
        client.lpush("list", big)
        answers += client.brpop(["other", "list"]) or []

    several = [big, 2, {"a": "1", "b": ""}, None]
    again = [big, 0, {"a": "1", "b": ""}, None]
    assert answers == [True, *several, *again, "list", big]
    assert relay.seen[b"BRPOP"] == 1
    assert relay.seen[b"GET"] == 4


@pytest.mark.parametrize("protocol", [2, 3])
def test_published_messages_reach_a_subscriber(relay: Relay, protocol: int) -> None:
    with (
        connected(relay, protocol=protocol) as client,
        client.pubsub() as subscriber,  # type: ignore[no-untyped-call]
    ):
        subscriber.subscribe("a", "b")
        subscriber.psubscribe("c*")
        told = [subscriber.get_message(timeout=10) for _ in range(3)]
        client.publish("b", "first")
        client.publish("cc", "second")
        told += [subscriber.get_message(timeout=10) for _ in range(2)]

    kinds = ["subscribe", "subscribe", "psubscribe", "message", "pmessage"]
    assert [message["type"] for message in told] == kinds
    assert [message["data"] for message in told] == [1, 2, 3, "first", "second"]


def test_a_pushed_message_is_no_reply(relay: Relay, redis: Redis) -> None:
    gate = relay.hold(Command(b"BLPOP"), Side.REPLY)
    with raw(relay, "HELLO 3", "CLIENT TRACKING ON", "GET k", "BLPOP list 0") as opened:
        eventually(lambda: waiting(redis), "Redis has all of it")
        redis.set("k", "changed")
        said = b""
        while not said.endswith(b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"):
            said += opened.recv(1 << 16)
        redis.rpush("list", "x")
        gate.reached()
        gate.cut()

        assert until_closed(opened) == b""


def test_replies_on_a_connection_that_subscribes_are_not_looked_at(relay: Relay) -> None:
    relay.hold(INCR, Side.REPLY)
    with raw(relay, "HELLO 3", "SUBSCRIBE a b") as opened:
        said = b""
        while not said.endswith(b"$1\r\nb\r\n:2\r\n"):
            said += opened.recv(1 << 16)
        for command, answer in (("INCRBY n 1", b":1\r\n"), ("PING", b"+PONG\r\n")):
            opened.sendall(packed(command))
            assert opened.recv(100) == answer


@pytest.mark.parametrize("sent", [b"PING\r\n", b"*3\r\nfoo\r\n+", b"*x\r\n"])
def test_what_is_not_the_protocol_is_answered_by_redis(relay: Relay, sent: bytes) -> None:
    with raw(relay) as opened:
        opened.sendall(sent)

        assert opened.recv(100).startswith((b"+PONG", b"-ERR Protocol error"))


@SIDES
def test_what_is_held_goes_on_when_it_is_released(
    relay: Relay,
    client: Redis,
    redis: Redis,
    aside: ThreadPoolExecutor,
    side: Side,
    applied: str | None,
) -> None:
    gate = relay.hold(INCR, side)

    asked = aside.submit(client.incr, "n")
    held = gate.reached()

    assert held.command == [b"INCRBY", b"n", b"1"]
    assert held.pid == os.getpid()
    assert redis.get("n") == applied
    assert client.ping()  # on another connection
    assert not asked.done()
    gate.release()
    assert asked.result(10) == 1
    assert client.incr("n") == 2


@SIDES
def test_a_cut_closes_the_connection_that_is_held_and_no_other(
    relay: Relay, client: Redis, redis: Redis, aside: ThreadPoolExecutor, side: Side, applied: str
) -> None:
    gate = relay.hold(INCR, side)
    with raw(relay, "PING", "INCRBY n 1") as opened:
        waits = aside.submit(client.brpop, ["list"])
        gate.reached()

        gate.cut()

        assert until_closed(opened) == b"+PONG\r\n"
    assert redis.get("n") == applied
    redis.lpush("list", "goes on")
    assert waits.result(10) == ["list", "goes on"]
    assert client.incr("n") == int(applied or 0) + 1


@SIDES
def test_a_dropped_connection_stays_open_and_silent(
    relay: Relay, client: Redis, redis: Redis, side: Side, applied: str | None
) -> None:
    gate = relay.hold(INCR, side)
    with raw(relay, "INCRBY n 1") as opened:
        gate.reached()

        gate.drop()
        opened.sendall(packed("PING", "INCRBY n 1"))

        opened.settimeout(0.2)
        with pytest.raises(TimeoutError):
            opened.recv(1)
    assert redis.get("n") == applied
    assert relay.seen[b"INCRBY"] == int(applied or 0)
    assert client.ping()


def test_a_gate_leaves_the_first_alone_and_holds_no_more_than_its_count(
    relay: Relay, client: Redis, aside: ThreadPoolExecutor
) -> None:
    gate = relay.hold(INCR, after=1, count=2)

    assert client.incr("n") == 1
    asked = [aside.submit(client.incr, "n")]
    with pytest.raises(AssertionError, match="held 1 of 2"):
        gate.reached(within=0.2)
    asked.append(aside.submit(client.incr, "n"))
    gate.reached()
    assert len(gate.held) == 2
    assert client.incr("n") == 2
    gate.release()

    assert {one.result(10) for one in asked} == {3, 4}


def test_a_gate_that_nothing_reaches_says_so_and_is_over_when_opened(
    relay: Relay, client: Redis
) -> None:
    gate = relay.hold(INCR, Side.REPLY, after=1)
    client.incr("n")

    with pytest.raises(AssertionError, match=r"reply to Command\(.*INCRBY.*held 0 of 1, 1 matched"):
        gate.reached(within=0.05)
    gate.release()
    client.incr("n")

    assert not gate.held


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("verb", [Gate.release, Gate.cut, Gate.drop])
def test_a_client_may_be_killed_where_it_is_held(
    relay: Relay,
    client: Redis,
    redis: Redis,
    tmp_path: Path,
    side: Side,
    verb: Callable[[Gate], None],
) -> None:
    assert client.ping()  # another connection, and an older one
    gate = relay.hold(INCR, side)
    with process(relay, tmp_path, "redis.incr('n')") as pid:
        assert gate.reached().pid == pid
    assert gate.reached().pid is None

    verb(gate)

    if side is Side.REPLY or verb is Gate.release:
        eventually(lambda: redis.get("n") == "1", "it was on its way")
    else:
        assert redis.get("n") is None


def test_a_connection_belongs_to_the_process_that_opened_it(relay: Relay, tmp_path: Path) -> None:
    gate = relay.hold(INCR)
    script = "redis.ping(); redis.incr('n') if os.fork() else signal.pause()"
    with process(relay, tmp_path, script) as pid:
        held = gate.reached()

        assert psutil.Process(pid).children()
        assert held.pid == pid


def test_a_command_of_a_transaction_is_applied_when_exec_answers(
    relay: Relay, redis: Redis
) -> None:
    gate = relay.hold(INCR, Side.REPLY, after=1)
    given_up = "MULTI", "INCRBY n 1", "DISCARD"
    alone = "INCRBY n 1"
    refused = "MULTI", "INCRBY n", "INCRBY n 1", "EXEC"
    applied = "MULTI", "SET k v", "INCRBY n 1", "EXEC"
    with raw(relay, *given_up, alone, *refused, *applied, "PING") as opened:
        held = gate.reached()
        gate.cut()
        said = until_closed(opened).splitlines()

    assert held.command == [b"INCRBY", b"n", b"1"]
    assert redis.get("n") == "2"
    assert len(said) == len([*given_up, alone, *refused, *applied]) - 1
    assert said[-3:] == [b"+OK", b"+QUEUED", b"+QUEUED"]


def test_a_reply_that_tells_of_nothing_done_is_not_held(relay: Relay, redis: Redis) -> None:
    redis.rpush("list", "x", "y")
    gate = relay.hold(lambda command: b"LPOP" in command[0], Side.REPLY, after=1)
    nulls = "LPOP", "LPOP none", "BLPOP none 0.01", "HELLO 3", "LPOP none"
    with raw(relay, *nulls, "LPOP list", "LPOP list") as opened:
        gate.reached()
        gate.cut()

        assert until_closed(opened).endswith(b"\r\n_\r\n$1\r\nx\r\n")


def test_a_publish_and_its_delivery_can_be_held_by_their_queue(
    relay: Relay, redis: Redis, aside: ThreadPoolExecutor
) -> None:
    publish = relay.hold(Command(b"LPUSH", b"queue-a"))
    deliver = relay.hold(Command(b"BRPOP", b"queue-a"), Side.REPLY, answer=b"queue-a")
    got: list[object] = []
    with Connection(relay.url) as sender, Connection(relay.url) as receiver:
        queues = [Queue("queue-a"), Queue("queue-b")]
        with receiver.Consumer(queues, callbacks=[lambda body, _: got.append(body)]):
            sender.SimpleQueue("queue-b").put("b")
            receiver.drain_events(timeout=10)
            sent = aside.submit(sender.SimpleQueue("queue-a").put, "a")
            publish.reached()
            assert not redis.llen("queue-a")
            publish.release()
            sent.result(10)
            drained = aside.submit(receiver.drain_events, timeout=10)
            deliver.reached()

            assert not redis.llen("queue-a")
            assert got == ["b"]
            deliver.release()
            drained.result(10)
            assert got == ["b", "a"]


def test_every_step_of_the_ledger_is_known_by_its_name(
    relay: Relay, client: Redis, aside: ThreadPoolExecutor
) -> None:
    ledger = RedisLedger(client, Times())
    steps: dict[str, Callable[[], object]] = {
        "offer": lambda: ledger.offer("poll-1", ledger.now(), {JOB: None}),
        "begin": lambda: ledger.begin(JOB, "owner", None, None),
        "heartbeat": lambda: ledger.heartbeat([Beat(CLAIM, None)]),
        "finish": lambda: ledger.finish(CLAIM, Park("why", forget=False)),
        "due": lambda: ledger.due([JOB.type], 10),
    }
    gates = {name: relay.hold(Script(name)) for name in steps}

    for name, step in steps.items():
        asked = aside.submit(step)
        gates[name].reached()
        gates[name].release()
        asked.result(10)  # it did not stop at the gate of another


def test_a_finish_is_known_by_its_arm_and_its_job(
    relay: Relay, client: Redis, aside: ThreadPoolExecutor
) -> None:
    ledger = RedisLedger(client, Times())
    relay.hold(Script("finish", arm="again"))
    relay.hold(Script("finish", job="job-2"))
    gate = relay.hold(Script("finish", arm="done", job="job-1"))

    ledger.finish(CLAIM, Park("done", forget=False))
    asked = aside.submit(ledger.finish, CLAIM, Done(accepted=False, outcome="Succeeded"))
    gate.reached()
    gate.release()

    assert asked.result(10) is False


def test_a_script_that_redis_does_not_know_yet_is_counted_once(
    relay: Relay, client: Redis, redis: Redis, aside: ThreadPoolExecutor
) -> None:
    redis.script_flush()
    ledger = RedisLedger(client, Times())
    requests = relay.hold(Script("due"), after=1)
    replies = relay.hold(Script("due"), Side.REPLY)

    first = aside.submit(ledger.due, [JOB.type], 10)
    replies.reached()
    assert redis.exists("dispatcher:sweep")
    replies.release()
    first.result(10)
    aside.submit(ledger.due, [JOB.type], 10)
    requests.reached()

    assert relay.seen[b"EVALSHA"] == 2


def test_a_script_that_the_ledger_has_not_is_refused() -> None:
    with pytest.raises(ValueError, match="no script acknowledge: there are offer, begin"):
        Script("acknowledge")


def test_nothing_passes_a_frozen_relay_and_all_goes_on_after_it(
    relay: Relay, client: Redis, redis: Redis, aside: ThreadPoolExecutor
) -> None:
    waits = aside.submit(client.brpop, ["list"])
    eventually(lambda: waiting(redis), "it waits")
    with connected(relay, timeout=0.2) as new, raw(relay, "PING") as late:
        late.recv(100)

        relay.freeze()
        redis.rpush("list", "x")
        late.sendall(packed("INCRBY n 1"))
        with pytest.raises(RedisTimeoutError):
            new.ping()

        assert not redis.llen("list")
        assert not waits.done()
        assert redis.get("n") is None
        relay.thaw()
        assert waits.result(10) == ["list", "x"]
        assert late.recv(100) == b":1\r\n"
        assert new.ping()


def test_a_cut_of_the_relay_closes_all_and_lets_new_ones_in(relay: Relay) -> None:
    with raw(relay, "BLPOP none 0") as first, raw(relay, "BLPOP none 0") as second:
        eventually(lambda: relay.seen.total() == 2, "both wait")

        relay.cut()

        assert until_closed(first) == until_closed(second) == b""
    with raw(relay, "PING") as third:
        assert third.recv(100) == b"+PONG\r\n"


def test_a_client_of_a_redis_that_is_down_is_closed_unless_frozen(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server, Relay(server.port) as relay:
        with raw(relay, "BLPOP none 0") as opened:
            eventually(lambda: relay.seen[b"BLPOP"], "it waits")
            server.kill()
            assert until_closed(opened) == b""
        with raw(relay) as refused:
            assert refused.recv(1) == b""

        server.start()
        with raw(relay, "PING") as open_before:
            assert open_before.recv(100) == b"+PONG\r\n"
            relay.freeze()
            server.kill()
            with raw(relay) as opened_then:
                for silent in (open_before, opened_then):
                    silent.settimeout(0.2)
                    with pytest.raises(TimeoutError):
                        silent.recv(1)
                    silent.settimeout(10)
                relay.thaw()
                assert until_closed(open_before) == until_closed(opened_then) == b""
        server.start()
        with raw(relay, "PING") as again:
            assert again.recv(100) == b"+PONG\r\n"


def test_nothing_of_a_relay_is_left(redis: Redis, redis_server: RedisServer) -> None:
    relay = Relay(redis_server.port)

    def left() -> tuple[int, int]:
        ends = [(end.laddr, end.raddr) for end in psutil.Process().net_connections("tcp4")]
        of_relay = [far for near, far in ends if near[1] == relay.port]
        to_redis = [far for _, far in ends if far[1:] == (redis_server.port,)]
        return threading.active_count(), len(of_relay + to_redis)

    redis.ping()
    before = left()
    with ExitStack() as clients:
        with relay:
            held = relay.hold(INCR, count=2)
            dropped = relay.hold(Command(b"PING"), Side.REPLY)
            for command in ("INCRBY n 1", "INCRBY n 1", "PING", "BLPOP none 0"):
                clients.enter_context(raw(relay, command))
            held.reached()
            dropped.reached()
            dropped.drop()
            relay.freeze()
            clients.enter_context(raw(relay, "PING"))

        assert left() == before


def test_a_predicate_that_raises_is_seen(redis_server: RedisServer) -> None:
    def wrong(command: list[bytes]) -> bool:
        raise LookupError(command)

    def meet_it() -> None:
        with Relay(redis_server.port) as relay, raw(relay) as opened:
            gate = relay.hold(wrong)
            opened.sendall(packed("PING"))
            gate.reached(within=1000)

    with pytest.raises(ExceptionGroup) as seen:
        meet_it()

    assert seen.group_contains(LookupError)
    assert isinstance(seen.value.__context__, AssertionError)


REQUESTS = st.lists(st.text("ab\r\n*$1", max_size=8), max_size=4).map(
    lambda words: (
        b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w.encode()) for w in words)
    )
)
SIMPLE = [
    b"+OK\r\n",
    b"-ERR\r\n",
    b":1\r\n",
    b"$-1\r\n",
    b"$4\r\n\r\n*1\r\n",
    b"_\r\n",
    b"=3\r\n*9\r\r\n",
]
REPLIES = st.recursive(
    st.sampled_from(SIMPLE),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda some: b"*%d\r\n" % len(some) + b"".join(some)),
        st.lists(inner, max_size=3).map(lambda some: b">%d\r\n" % len(some) + b"".join(some)),
        st.tuples(inner, inner).map(lambda pair: b"%1\r\n" + b"".join(pair)),
        st.tuples(inner, inner, inner).map(lambda some: b"|1\r\n" + b"".join(some)),
    ),
    max_leaves=6,
)
PIECES = st.lists(st.one_of(REQUESTS, REPLIES, st.binary(max_size=12)), max_size=6)


@given(messages=st.lists(REPLIES, max_size=6), data=st.data())
def test_messages_are_the_same_however_they_were_split(
    messages: list[bytes], data: st.DataObject
) -> None:
    whole = b"".join(messages)
    cuts = data.draw(st.lists(st.integers(0, len(whole)), max_size=8).map(sorted))
    framer = Framer()

    pieces = [whole[start:end] for start, end in pairwise([0, *cuts, len(whole)])]
    found = [message for piece in pieces for message in framer.feed(piece)]

    assert found == messages
    assert framer.rest() == b""


def test_whatever_is_sent_arrives_in_whatever_pieces() -> None:
    @settings(max_examples=200, deadline=None)
    @given(up=PIECES, down=PIECES, size=st.integers(1, 20))
    def arrives(up: list[bytes], down: list[bytes], size: int) -> None:
        with raw(relay) as client, listener.accept()[0] as server:
            for source, target, sent in ((client, server, up), (server, client, down)):
                whole = b"".join(sent)
                for start in range(0, len(whole), size):
                    source.sendall(whole[start : start + size])
                source.shutdown(socket.SHUT_WR)
                assert until_closed(target) == whole

    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        Relay(listener.getsockname()[1]) as relay,
    ):
        relay.hold(Command(b"NONE"))
        relay.hold(Command(b"NONE"), Side.REPLY)
        arrives()
