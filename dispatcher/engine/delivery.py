"""One delivery of a message, from claim to done: what the two kinds of job messages do."""

import uuid
from collections.abc import Callable, Mapping

from dispatcher.engine.claim import Claims, Taken
from dispatcher.engine.leases import Held, Leases
from dispatcher.engine.lifecycle import Put, Start
from dispatcher.engine.model import Action, JobRef, Store
from dispatcher.engine.report import Reporter
from dispatcher.engine.run import Runner
from dispatcher.sdk import ActionType


class Delivery:
    """`actor` names process and task: with a random part it is the owner of one delivery."""

    def __init__(
        self,
        actions: Mapping[ActionType, Action],
        claims: Claims,
        leases: Leases,
        runner: Runner,
        reporter: Reporter,
        stopping: Callable[[], bool],
    ) -> None:
        self._actions = actions
        self._claims = claims
        self._leases = leases
        self._runner = runner
        self._reporter = reporter
        self._stopping = stopping

    def job(self, ref: JobRef, actor: str) -> None:
        """A job's own message: may run its handler. A stopping process begins nothing."""
        if self._stopping():
            return
        action = self._actions[ref.type]
        self._deliver(action, self._claims.take(ref, _owner(actor), action.spec))

    def settle(self, ref: JobRef, actor: str) -> None:
        """A settle message: puts what is stored, or that the owner died; never runs a handler."""
        action = self._actions[ref.type]
        self._deliver(action, self._claims.settle(ref, _owner(actor), action.spec))

    def _deliver(self, action: Action, taken: Taken | None) -> None:
        if taken is None:
            return
        held = self._leases.hold(taken.claim, action.spec)
        try:
            self._go_on(action, taken, held)
        finally:
            self._leases.drop(held)

    def _go_on(self, action: Action, taken: Taken, held: Held) -> None:
        match taken.next:
            case Put(verdict, age):
                self._reporter.put(held, verdict, age)
            case Store():
                self._reporter.end(held, taken.next)
            case Start():
                if taken.details is None:
                    raise ValueError("a handler starts with its details")
                arm = self._runner.run(held, taken.details, action)
                if arm is not None:
                    self._reporter.end(held, arm)


def _owner(actor: str) -> str:
    """Two deliveries of one message share host, process and task id: they are two owners."""
    return f"{actor}/{uuid.uuid4().hex[:8]}"
