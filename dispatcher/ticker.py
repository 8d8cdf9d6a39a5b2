"""Beat's scheduler: Celery's, by a clock that nobody sets.

Celery 5.7 plans by the wall clock: put back by minutes, it would hold up all polls for so long."""

import time
from typing import Any

from celery.beat import Scheduler
from celery.schedules import schedstate


class Ticker(Scheduler):
    """Keeps no file: a tick that was lost with a beat costs nothing."""

    def _when(self, entry: Any, next_time_to_run: Any, **_: Any) -> float:  # noqa: ARG002
        return time.monotonic() + float(self.adjust(next_time_to_run) or 0)

    def is_due(self, entry: Any) -> schedstate:
        """Asked when its time by `_when` has come."""
        return schedstate(is_due=True, next=entry.schedule.seconds)
