"""What a handler raises:

Failure                  one of AWS's FailureTypes
├── JobFailed
├── ConfigurationError
├── PermissionDenied
├── RevisionOutOfSync
├── RevisionUnavailable
└── SystemUnavailable
Retry                    this job again, later
"""

from datetime import timedelta
from enum import StrEnum
from typing import ClassVar, Final

from dispatcher.sdk.checks import check_duration, check_external_id, cut

_MESSAGE: Final = 5_000
_NO_MESSAGE: Final = "The action failed and gave no message."


class FailureType(StrEnum):
    """AWS's words for why a job failed (API reference, FailureDetails)."""

    JOB_FAILED = "JobFailed"
    CONFIGURATION_ERROR = "ConfigurationError"
    PERMISSION_ERROR = "PermissionError"
    REVISION_OUT_OF_SYNC = "RevisionOutOfSync"
    REVISION_UNAVAILABLE = "RevisionUnavailable"
    SYSTEM_UNAVAILABLE = "SystemUnavailable"


class Failure(Exception):
    """The job failed; the message is shown in the pipeline and cut to 5000 characters."""

    type: ClassVar[FailureType] = FailureType.JOB_FAILED

    def __init__(self, message: str, external_id: str | None = None) -> None:
        """An empty message gets a text; external_id has 1..1500 characters."""
        self.message = cut("message", message, _MESSAGE)
        if not self.message.strip():
            self.message = _NO_MESSAGE
        check_external_id(external_id)
        self.external_id = external_id
        super().__init__(self.message)


class JobFailed(Failure):
    """The work itself failed."""


class ConfigurationError(Failure):
    """The action's configuration is wrong; its owner must change the pipeline."""

    type = FailureType.CONFIGURATION_ERROR


class PermissionDenied(Failure):
    """The outside system refused access."""

    type = FailureType.PERMISSION_ERROR


class RevisionOutOfSync(Failure):
    """The revision is not the one that was expected."""

    type = FailureType.REVISION_OUT_OF_SYNC


class RevisionUnavailable(Failure):
    """The revision cannot be had."""

    type = FailureType.REVISION_UNAVAILABLE


class SystemUnavailable(Failure):
    """The outside system does not answer."""

    type = FailureType.SYSTEM_UNAVAILABLE


class Retry(Exception):
    """This job again, `after` that time, doubled with each retry; at most `max_attempts` runs."""

    AFTER: ClassVar[timedelta] = timedelta(seconds=10)

    def __init__(self, after: timedelta = AFTER) -> None:
        """Raises ValueError for a negative time."""
        check_duration("after", after, zero=True)
        self.after = after
        super().__init__(after)
