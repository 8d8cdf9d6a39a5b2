"""The sixteen points of a job's life at which a process may die, and how each is reached.

Each is reached from outside: a command on its way to Redis, or Redis's reply to it, held by the
relay, or a call or its answer held by the emulated CodePipeline."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tests.faults.commands import Command, Script
from tests.faults.relay import Gate, Side
from tests.faults.stage import FAIL, Stage
from tests.harness import eventually


class Reached(Protocol):
    """Something that stands still: whose process it is, and how it goes on."""

    def pid(self) -> int: ...
    def release(self) -> None: ...


@dataclass(frozen=True)
class AtRedis:
    stage: Stage
    gate: Gate

    def pid(self) -> int:
        """On a busy machine the client may have given up already."""
        return self.gate.reached(20).pid or whose_handler(self.stage)

    def release(self) -> None:
        """A request that was not sent stays so; an answer finds nobody."""
        if self.gate.side is Side.REQUEST:
            self.gate.cut()
        else:
            self.gate.release()


@dataclass(frozen=True)
class AtAws:
    stage: Stage
    fault: str

    def pid(self) -> int:
        def held() -> bool:
            return any(state.held for state in self.stage.fleet.aws.faults())

        eventually(held, "a call is held", 20)
        return whose_handler(self.stage)

    def release(self) -> None:
        self.stage.fleet.aws.release(self.fault)


@dataclass(frozen=True)
class InHandler:
    stage: Stage
    before: int  # lines that handlers had noted

    def pid(self) -> int:
        eventually(lambda: len(self.stage.effects()) > self.before, "a handler started", 20)
        return int(self.stage.effects()[-1]["pid"])

    def release(self) -> None:
        """It went with its process, or goes on when told."""


def whose_handler(stage: Stage) -> int:
    """The process that works on jobs: with one slot there is but one."""
    children = stage.worker.children() if stage.pool == "prefork" else []
    return children[-1].pid if children else stage.worker.popen.pid


def at_redis(
    step: Callable[[str], Callable[[list[bytes]], bool]], side: Side, answer: bool = False
) -> Callable[[Stage, str], Reached]:
    def arm(stage: Stage, provider: str) -> Reached:
        text = f"provider.{provider}".encode() if answer else b""
        return AtRedis(stage, stage.relay.hold(step(provider), side, answer=text))

    return arm


def at_aws(operation: str, when: str) -> Callable[[Stage, str], Reached]:
    def arm(stage: Stage, provider: str) -> Reached:
        name = operation.format("ThirdParty" if provider == FAIL else "")
        return AtAws(stage, stage.fleet.aws.add_fault("hold", operation=name, when=when))

    return arm


def queue(name: bytes) -> Callable[[str], Callable[[list[bytes]], bool]]:
    return lambda provider: Command(name, f"provider.{provider}".encode())


def script(name: str, arm: str = "") -> Callable[[str], Callable[[list[bytes]], bool]]:
    return lambda _provider: Script(name, arm)


@dataclass(frozen=True)
class Point:
    """`polls`: the process there is the one that polls. `parent`: no pool child is involved."""

    number: int
    after: str
    arm: Callable[[Stage, str], Reached]
    cut_at: str
    do: str = "ok"
    polls: bool = False
    parent: bool = False


POINTS = [
    Point(1, "poll answered, before offer", at_redis(script("offer"), Side.REQUEST),
          "offer on its way", polls=True),
    Point(2, "offer, before publish", at_redis(script("offer"), Side.REPLY),
          "offer's reply", polls=True),
    Point(3, "publish", at_redis(queue(b"LPUSH"), Side.REPLY),
          "reply to LPUSH provider.X", polls=True),
    Point(4, "message received", at_redis(queue(b"BRPOP"), Side.REPLY, answer=True),
          "reply to BRPOP provider.X", parent=True),
    Point(5, "token found, before details", at_aws("Get{}JobDetails", "before"),
          "details call held by AWS"),
    Point(6, "details, before begin", at_redis(script("begin"), Side.REQUEST),
          "begin on its way"),
    Point(7, "begin, before the acknowledgement", at_redis(script("begin"), Side.REPLY),
          "begin's reply"),
    Point(8, "acknowledgement applied, unanswered", at_aws("Acknowledge{}Job", "after"),
          "AWS's answer held"),
    Point(9, "acknowledged, before the first heartbeat",
          at_redis(script("heartbeat"), Side.REQUEST), "heartbeat on its way"),
    Point(10, "first heartbeat, before the handler", at_redis(script("heartbeat"), Side.REPLY),
          "heartbeat's reply"),
    Point(11, "in the handler", lambda stage, _: InHandler(stage, len(stage.effects())),
          "nothing: the handler waits", do="hold"),
    Point(12, "handler ended, before its verdict is stored",
          at_redis(script("finish", "verdict"), Side.REQUEST), "finish (verdict) on its way"),
    Point(13, "verdict stored, before the put",
          at_redis(script("finish", "verdict"), Side.REPLY), "finish's (verdict) reply"),
    Point(14, "put applied, unanswered", at_aws("Put{}JobSuccessResult", "after"),
          "AWS's answer held"),
    Point(15, "put answered, before done", at_redis(script("finish", "done"), Side.REQUEST),
          "finish (done) on its way"),
    Point(16, "done", at_redis(script("finish", "done"), Side.REPLY), "finish's (done) reply"),
]  # fmt: skip
