"""Faults on demand: what can go wrong with a call, and which rule takes effect for which call.

It must not know HTTP, the machine or the wall clock: the same rules and the same calls in the same
order give the same faults.
"""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any

from dispatcher.emulator.operations import OPERATIONS

POLLS = frozenset({"PollForJobs", "PollForThirdPartyJobs"})
ACKNOWLEDGEMENTS = frozenset({"AcknowledgeJob", "AcknowledgeThirdPartyJob"})
SHOW_NONCES = frozenset({"PollForJobs", "GetThirdPartyJobDetails"})
OBJECT_CALLS = frozenset(OPERATIONS)


class Kind(StrEnum):
    # Answered instead of being handled.
    ERROR = "error"
    UNAVAILABLE = "unavailable"
    THROTTLE = "throttle"
    EXPIRED_CREDENTIALS = "expired-credentials"
    DROP_BEFORE = "drop-before"
    # Handled, and the answer spoiled.
    DROP_AFTER = "drop-after"
    TRUNCATE = "truncate"
    # Late.
    DELAY = "delay"
    HOLD = "hold"
    # Something happens to the job, or to what the call shows of it.
    DUPLICATE_OFFER = "duplicate-offer"
    STALE_NONCE = "stale-nonce"
    FOREIGN_ACKNOWLEDGE = "foreign-acknowledge"
    ABANDON = "abandon"
    TIME_OUT = "time-out"


class When(StrEnum):
    """Whether a call waits before it is handled, or when only its answer is missing."""

    BEFORE = "before"
    AFTER = "after"


# Kinds that need a certain call. The others can befall any.
ONLY = {
    Kind.DUPLICATE_OFFER: POLLS,
    Kind.STALE_NONCE: SHOW_NONCES,
    Kind.FOREIGN_ACKNOWLEDGE: ACKNOWLEDGEMENTS,
}
# Kinds that befall calls to S3 too: those that know nothing of jobs.
OF_OBJECTS = frozenset(
    {
        Kind.ERROR,
        Kind.UNAVAILABLE,
        Kind.THROTTLE,
        Kind.EXPIRED_CREDENTIALS,
        Kind.DROP_BEFORE,
        Kind.DROP_AFTER,
        Kind.DELAY,
        Kind.HOLD,
    }
)
# Members that belong to some kinds only.
OWN = {
    "error": frozenset({Kind.ERROR}),
    "status": frozenset({Kind.ERROR, Kind.UNAVAILABLE, Kind.THROTTLE}),
    "seconds": frozenset({Kind.DELAY}),
    "bytes": frozenset({Kind.TRUNCATE}),
    "when": frozenset({Kind.DELAY, Kind.HOLD}),
}
NEEDED = {Kind.ERROR: "error", Kind.DELAY: "seconds"}


@dataclass(frozen=True)
class Refusal:
    """What the caller is told in place of an answer."""

    code: str
    message: str
    status: int


REFUSALS = {
    Kind.UNAVAILABLE: Refusal("ServiceUnavailableException", "The service is not available", 503),
    Kind.THROTTLE: Refusal("ThrottlingException", "Rate exceeded", 400),
    Kind.EXPIRED_CREDENTIALS: Refusal(
        "ExpiredTokenException", "The security token included in the request is expired", 400
    ),
}
# S3 has other words for the same.
OBJECT_REFUSALS = {
    Kind.UNAVAILABLE: Refusal("ServiceUnavailable", "Please reduce your request rate.", 503),
    Kind.THROTTLE: Refusal("SlowDown", "Please reduce your request rate.", 503),
    Kind.EXPIRED_CREDENTIALS: Refusal("ExpiredToken", "The provided token has expired.", 400),
}


@dataclass(frozen=True)
class Rule:
    """Which calls, which of them, and what befalls them. None: any, or the kind's default.

    count: how many calls at most. probability: of each matching call, by `seed`. after: so many
    matching calls are left alone first. ValueError: the parts do not fit together.
    """

    kind: Kind
    operation: str | None = None
    job_id: str | None = None
    count: int | None = None
    probability: float | None = None
    after: int = 0
    seed: int = 0
    error: str | None = None
    status: int | None = None
    seconds: float | None = None
    bytes: int | None = None
    when: When | None = None

    def __post_init__(self) -> None:
        for name, kinds in OWN.items():
            if getattr(self, name) is not None and self.kind not in kinds:
                raise ValueError(f"{name} means nothing for kind {self.kind}")
        needed = NEEDED.get(self.kind)
        if needed is not None and getattr(self, needed) is None:
            raise ValueError(f"kind {self.kind} needs {needed}")
        if self.operation is not None and not self.befalls(self.operation):
            raise ValueError(f"kind {self.kind} cannot befall {self.operation}")
        if self.operation in POLLS and self.job_id is not None and not self.chooses:
            raise ValueError(f"{self.operation} names no job, so jobId matches none")

    @property
    def chooses(self) -> bool:
        """Whether jobId is not what the call names, but what it is to show."""
        return self.kind is Kind.DUPLICATE_OFFER

    @property
    def limit(self) -> int | None:
        """How many calls it may befall: one, unless the rule says a count or a probability."""
        if self.count is not None:
            return self.count
        return 1 if self.probability is None else None

    def befalls(self, operation: str) -> bool:
        if operation in OBJECT_CALLS:
            return self.kind in OF_OBJECTS or (self.kind, operation) == (Kind.TRUNCATE, "GetObject")
        if self.kind in {Kind.ABANDON, Kind.TIME_OUT}:
            return operation not in POLLS
        return operation in ONLY.get(self.kind, {operation})

    def matches(self, operation: str, job_id: object) -> bool:
        if self.operation is None and operation in OBJECT_CALLS:
            return False  # a rule means calls to S3 only by their names
        if self.operation not in {None, operation} or not self.befalls(operation):
            return False
        return self.chooses or self.job_id is None or self.job_id == job_id

    def waits(self, when: When) -> bool:
        return self.kind in {Kind.DELAY, Kind.HOLD} and (self.when or When.BEFORE) is when

    def refusal(self) -> Refusal | None:
        if self.kind is Kind.ERROR:
            return Refusal(self.error or "", "A fault was asked for", self.status or 400)
        told = (OBJECT_REFUSALS if self.operation in OBJECT_CALLS else REFUSALS).get(self.kind)
        if told is None:
            return None
        status = self.status or told.status
        if self.kind is Kind.UNAVAILABLE and status == 500:
            code = "InternalError" if self.operation in OBJECT_CALLS else "InternalFailure"
            return replace(told, code=code, status=status)
        return replace(told, status=status)

    def show(self) -> dict[str, Any]:
        given = {part.name: getattr(self, part.name) for part in fields(self)}
        shown = {"jobId" if name == "job_id" else name: value for name, value in given.items()}
        return {name: value for name, value in shown.items() if value is not None}


@dataclass
class Fault:
    """A rule at work."""

    id: str
    rule: Rule
    matched: int = 0
    taken: int = 0
    draws: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # With the seed alone, two rules would always choose the same calls, and the second none.
        rule = self.rule
        self.draws = random.Random(f"{rule.seed} {rule.kind} {rule.operation}")  # noqa: S311

    def falls(self) -> bool:
        """Whether the next matching call is one of those. It draws for each, come what may."""
        self.matched += 1
        drawn = self.draws.random() < (
            1 if self.rule.probability is None else self.rule.probability
        )
        limit = self.rule.limit
        return drawn and self.matched > self.rule.after and (limit is None or self.taken < limit)

    def show(self) -> dict[str, Any]:
        return {"id": self.id, **self.rule.show(), "matched": self.matched, "taken": self.taken}


def always(_rule: Rule) -> bool:
    return True


class Faults:
    """All rules, in the order in which they were made. False while there are none."""

    def __init__(self) -> None:
        self._faults: dict[str, Fault] = {}
        self._made = 0

    def __bool__(self) -> bool:
        return bool(self._faults)

    def add(self, rules: Iterable[Rule]) -> list[Fault]:
        added = []
        for rule in rules:
            self._made += 1
            fault = self._faults[str(self._made)] = Fault(str(self._made), rule)
            added.append(fault)
        return added

    def get(self, fault_id: str | None = None) -> list[Fault]:
        """All, or the one asked for, or none."""
        if fault_id is None:
            return list(self._faults.values())
        return [self._faults[fault_id]] if fault_id in self._faults else []

    def remove(self, faults: Iterable[Fault]) -> None:
        for fault in faults:
            del self._faults[fault.id]

    def take(
        self, operation: str, job_id: object, possible: Callable[[Rule], bool] = always
    ) -> Fault | None:
        """The fault of this call: of those that fall on it the eldest, and only that is taken.

        A call to which a rule can do nothing, says `possible`, does not match it. Every matching
        rule counts the call, lest one rule's presence change another's choice.
        """
        falling = [
            fault
            for fault in self._faults.values()
            if fault.rule.matches(operation, job_id) and possible(fault.rule) and fault.falls()
        ]
        if not falling:
            return None
        falling[0].taken += 1
        return falling[0]
