"""One process's calls of the outside, and what they meet: lost replies, errors, death."""

from collections import defaultdict, deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from dispatcher.engine.model import PortError, Unanswered

T = TypeVar("T")
Call = Callable[[], Any]
Fault = Callable[[Call], Any]


class Died(BaseException):
    """The process is gone: nothing that it would do from here on reaches anybody."""


# Faults: what a call meets.


def unanswered(call: Call) -> Any:
    raise Unanswered


def reply_lost(call: Call) -> Any:
    with suppress(PortError):
        call()
    raise Unanswered


def failing(error: type[PortError]) -> Fault:
    def meet(call: Call) -> Any:
        raise error

    return meet


def losing(error: type[PortError]) -> Fault:
    """Applied, and not known to be."""

    def meet(call: Call) -> Any:
        call()
        raise error

    return meet


def first(step: Callable[[], object]) -> Fault:
    """Something else happens before the call is carried out."""

    def meet(call: Call) -> Any:
        step()
        return call()

    return meet


def then(step: Callable[[], object]) -> Fault:
    """Something else happens before the answer is read."""

    def meet(call: Call) -> Any:
        answer = call()
        step()
        return answer

    return meet


def twice(call: Call) -> Any:
    call()
    return call()


def unsent(call: Call) -> Any:
    """The call is over, and nothing came of it."""


class Line:
    """One process's calls of the outside, by name and in order."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.dead = False
        self.around: Callable[[str, Call], Any] | None = None
        self._next: defaultdict[str, deque[Fault | None]] = defaultdict(deque)
        self._always: dict[str, Fault] = {}

    def next(self, name: str, *faults: Fault | None) -> None:
        """What the next calls meet, one each; None is nothing."""
        self._next[name].extend(faults)

    def always(self, fault: Fault, *names: str) -> None:
        self._always.update(dict.fromkeys(names, fault))

    def mend(self) -> None:
        self._always.clear()
        self._next.clear()

    def die(self) -> None:
        self.dead = True
        raise Died

    def dies_before(self, name: str, nth: int = 1) -> None:
        self.next(name, *[None] * (nth - 1), first(self.die))

    def dies_after(self, name: str, nth: int = 1) -> None:
        self.next(name, *[None] * (nth - 1), then(self.die))

    def __call__(self, name: str, call: Callable[[], T]) -> T:
        if self.dead:
            raise Died
        self.calls.append(name)
        waiting = self._next[name]
        fault = waiting.popleft() if waiting else self._always.get(name)
        if fault is not None:
            answer: T = fault(call)
            return answer
        return call() if self.around is None else self.around(name, call)

    def count(self, name: str) -> int:
        return self.calls.count(name)
