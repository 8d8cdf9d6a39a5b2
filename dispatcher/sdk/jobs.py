"""What a handler is given: one job, as read-only values and what it may ask of who runs it."""

import logging
import math
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from dispatcher.sdk.actions import ActionType
from dispatcher.sdk.artifacts import Artifacts, InputArtifact, OutputArtifact
from dispatcher.sdk.checks import SUMMARY, check_percent, cut

ConfigT = TypeVar("ConfigT")


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Where the job comes from. The ARN and execution id are None for third-party actions."""

    name: str
    stage: str
    action: str
    arn: str | None = None
    execution_id: str | None = None
    action_execution_id: str | None = None


class Control(Protocol):
    """How a running job reaches whoever runs it: the engine, or `dispatcher.testing`."""

    def stopping(self) -> bool:
        """Whether the handler should return soon."""

    def wait(self, seconds: float) -> bool:
        """Sleep that long, or until stopping; answer whether it is stopping."""

    def progress(self, percent: int | None, note: str) -> None:
        """Make progress known."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Job(Generic[ConfigT]):
    """One CodePipeline job, as its handler sees it; read-only.

    `id` is the idempotency key to hand to the outside system: delivery is at least once.
    `client_id` is None for custom actions. `attempt` is 1 at the first start and grows by one a
    start. `continuation` is the token that an earlier job of this action returned. `deadline` is
    an aware instant. `workdir` is removed after the handler returns. `inputs` and `outputs` are the
    action's artifacts, by the names that its pipeline gives them.
    """

    id: str
    config: ConfigT = field(repr=False)
    client_id: str | None
    action: ActionType
    pipeline: Pipeline
    continuation: str | None = field(default=None, repr=False)
    attempt: int = 1
    inputs: Artifacts[InputArtifact] = field(default_factory=lambda: Artifacts("input", []))
    outputs: Artifacts[OutputArtifact] = field(default_factory=lambda: Artifacts("output", []))
    deadline: datetime
    workdir: Path
    log: logging.LoggerAdapter[Any] | logging.Logger = field(repr=False)
    control: Control = field(repr=False)

    @property
    def stopping(self) -> bool:
        """True when the handler should return: shutdown, lost lease or deadline."""
        return self.control.stopping()

    def wait(self, seconds: float | timedelta) -> bool:
        """Sleep, but not past a stop; True when the job should stop. Below 0 counts as 0."""
        if isinstance(seconds, timedelta):
            seconds = seconds.total_seconds()
        if not math.isfinite(seconds):
            raise ValueError(f"seconds is {seconds}; give a finite time.")
        return self.control.wait(max(0.0, seconds))

    def progress(self, percent: int | None = None, note: str = "") -> None:
        """Tell operators how far it is: percent 0..100; the note is cut to 2048 characters."""
        check_percent(percent)
        self.control.progress(percent, cut("note", note, SUMMARY))
