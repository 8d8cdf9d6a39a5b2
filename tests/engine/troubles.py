"""What may befall a call, and which calls it befalls: a few, or ever more."""

from collections import Counter
from collections.abc import Sequence
from enum import Enum, auto
from random import Random

from dispatcher.engine.model import (
    BrokerDown,
    Denied,
    LedgerDown,
    PortError,
    Throttled,
    TokensDown,
)
from tests.engine.line import Fault, failing, losing, reply_lost, twice, unanswered, unsent
from tests.engine.world import LEDGER

AWS = ("poll", "details", "acknowledge", "put")
WRITES = ("offer", "begin", "heartbeat", "finish")
MESSAGES = ("publish", "settle")
HANDLER = "handler"  # no call of the outside, but a point where a process may die or stand still
POINTS = (*AWS, *WRITES, *MESSAGES, "due", HANDLER)
ERRORS: dict[str, type[PortError]] = {
    **dict.fromkeys([*LEDGER, "now"], LedgerDown),
    **dict.fromkeys(["token", "fresh token"], TokensDown),
    **dict.fromkeys([*MESSAGES, "waiting"], BrokerDown),
}


class Trouble(Enum):
    ANSWER = auto()  # the call finds an error, or its answer is lost
    CRASH = auto()  # of the process
    FREEZE = auto()  # it stands still for a while, heartbeats and all
    MESSAGE = auto()  # lost, or doubled; late and in disorder they come anyhow
    WRITE = auto()  # Redis answers, and forgets it
    WIPE = auto()  # Redis forgets all

    def befalls(self, name: str) -> bool:
        if self is Trouble.MESSAGE:
            return name in MESSAGES
        if self in {Trouble.WRITE, Trouble.WIPE}:
            return name in WRITES
        return self is not Trouble.ANSWER or name != HANDLER


Where = tuple[str, int, Trouble]  # a call's name, which of them, and what befalls it
USUAL = (Trouble.ANSWER, Trouble.CRASH, Trouble.FREEZE, Trouble.MESSAGE)
WEIGHTS = {Trouble.ANSWER: 3, Trouble.CRASH: 3, Trouble.FREEZE: 2}  # of others 1
RATES = {Trouble.ANSWER: 0.06, Trouble.CRASH: 0.04, Trouble.FREEZE: 0.02, Trouble.MESSAGE: 0.2}


def answers(name: str) -> Sequence[Fault]:
    if name in AWS:
        return [unanswered, reply_lost, reply_lost, failing(Throttled), failing(Denied)]
    return [failing(ERRORS[name]), losing(ERRORS[name])]


def messages() -> Sequence[Fault]:
    return [unsent, twice]


class Few:
    def __init__(self, wheres: Sequence[Where]) -> None:
        self._left = list(wheres)
        self._calls: Counter[str] = Counter()

    def next(self, name: str) -> Trouble | None:
        self._calls[name] += 1
        for one in self._left:
            if one[:2] == (name, self._calls[name]):
                self._left.remove(one)
                return one[2]
        return None


class Many:
    """Any call, by chance."""

    def __init__(self, random: Random, kinds: Sequence[Trouble]) -> None:
        self._random = random
        self._kinds = kinds
        self._intensity = random.choice([0.5, 1, 2])

    def next(self, name: str) -> Trouble | None:
        dice = self._random.random() / self._intensity
        for kind in self._kinds:
            if kind.befalls(name):
                dice -= RATES[kind]
                if dice < 0:
                    return kind
        return None


def chosen(
    random: Random, kinds: Sequence[Trouble], points: Sequence[str], number: int | None
) -> Few | Many:
    """So many of these kinds at these calls; None: ever more at any."""
    if number is None:
        return Many(random, kinds)
    return Few([_where(random, kinds, points) for _ in range(number)])


def _where(random: Random, kinds: Sequence[Trouble], points: Sequence[str]) -> Where:
    kind = random.choices(kinds, [WEIGHTS.get(kind, 1) for kind in kinds])[0]
    name = random.choice([name for name in points if kind.befalls(name)])
    return name, random.choice([1, 1, 1, 2]), kind
