"""What AWS says nowhere about its job calls, hence what a user of the emulator can choose.

One field is one assumption: a number, an error's name, or which of several readings holds.
"""

import math
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

ERROR_NAME = r"[A-Za-z][0-9A-Za-z.:#_-]{0,99}"


@dataclass(frozen=True)
class Options:
    """ValueError: a value that the emulator cannot work with."""

    ack_window: Annotated[
        timedelta, "A job that nobody acknowledged for so long is offered again."
    ] = timedelta(seconds=30)
    continuation_delay: Annotated[
        timedelta, "A result with a continuation token makes the next job after so long."
    ] = timedelta(seconds=30)
    job_timeout: Annotated[
        timedelta,
        "An acknowledged job without a result times out after so long, unless its type says when.",
    ] = timedelta(hours=1)
    action_timeout: Annotated[
        timedelta | None,
        "All jobs of one action together have so long; by default an hour for a third-party action "
        "and a day for a custom one.",
    ] = None
    credentials_lifetime: Annotated[
        timedelta,
        "The session keys for a job's artifacts end so long after the call that gave them.",
    ] = timedelta(minutes=15)
    default_batch: Annotated[int, "A poll that names no batch size hands out so many."] = 1
    batch_cap: Annotated[int, "One poll hands out so many jobs at most."] = 100
    rate: Annotated[
        float, "So many calls a second are answered, others are throttled; 0 answers all."
    ] = 0
    second_ack: Annotated[
        Literal["error", "status"],
        "A second acknowledgement, or a stale nonce, gets InvalidNonceException or the status.",
    ] = "error"
    late_ack: Annotated[
        Literal["accept", "error"],
        "An acknowledgement after the window counts until the job is offered again, or not.",
    ] = "accept"
    second_put: Annotated[
        Literal["error", "ignore"],
        "A result for a job that is not in progress gets InvalidJobStateException, or is ignored.",
    ] = "error"
    new_nonce: Annotated[
        Literal["dispatch", "details", "never"],
        "When a job gets another nonce: at each offer, at each details call too, or never.",
    ] = "dispatch"
    running_details: Annotated[
        Literal["answer", "error"],
        "Details of an acknowledged job are answered, with new credentials, or are refused.",
    ] = "answer"
    abandoned: Annotated[
        Literal["ended", "unseen"],
        "Abandoning an action ends its job as Failed, or changes nothing for its worker.",
    ] = "ended"
    execution_id: Annotated[
        Literal["action", "job", "absent"],
        "An actionExecutionId is that of the whole action, or of one job, or third-party jobs have "
        "none.",
    ] = "action"
    order: Annotated[
        Literal["fifo", "lifo"], "Which job is offered first: the one that waits longest, or last."
    ] = "fifo"
    wrong_owner: Annotated[
        str, "The error of a poll for the action type of an owner that this call does not serve."
    ] = "ValidationException"
    wrong_client_token: Annotated[
        str, "The error of a token that is not that of the job's client, whatever the job's state."
    ] = "InvalidClientTokenException"  # noqa: S105 - an error's name
    custom_job: Annotated[
        str, "The error of GetThirdPartyJobDetails for the id of a custom job."
    ] = "InvalidJobException"
    constraint: Annotated[str, "The error of a request that breaks AWS's own model."] = (
        "ValidationException"
    )

    def __post_init__(self) -> None:
        for name, kind in KINDS.items():
            fault = complaint(kind, getattr(self, name))
            if fault is not None:
                raise ValueError(f"{name} must {fault}")
        nothing = timedelta(0)
        if nothing in {self.ack_window, self.job_timeout, self.action_timeout}:
            raise ValueError("a window and a time-out must be longer than 0 seconds")


def complaint(kind: Any, value: Any) -> str | None:
    values = get_args(kind) if get_origin(kind) is Literal else ()
    if values and value not in values:
        return f"be one of {', '.join(values)}"
    if kind is str and not re.fullmatch(ERROR_NAME, value):
        return "be the name of an error"
    if kind is int and value < 1:
        return "be at least 1"
    if kind is float and not math.isfinite(value):
        return "be a finite number"
    if kind in {float, timedelta} and value is not None and value < kind(0):
        return "not be negative"
    return None


def _told() -> dict[str, tuple[Any, str]]:
    told = {}
    for name, hint in get_type_hints(Options, include_extras=True).items():
        kind, meaning = get_args(hint)
        told[name] = (timedelta if timedelta in get_args(kind) else kind, meaning)
    return told


# Each assumption's name, and its type: timedelta, int, float, str or a Literal.
KINDS = {name: kind for name, (kind, _) in _told().items()}
MEANINGS = {name: meaning for name, (_, meaning) in _told().items()}


def camel_case(name: str) -> str:
    """A name of ours as AWS's JSON has it."""
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)
