"""What S3's and KMS's errors mean to a pipeline: one table from code to failure, a sentence each.

Texts name the artifact alone: no bucket, no key, and nothing that AWS quoted.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from botocore.exceptions import ClientError, ParamValidationError
from s3transfer.exceptions import S3DownloadFailedError, S3ValidationError

from dispatcher.aws.errors import UNREADABLE
from dispatcher.engine.model import PortError
from dispatcher.sdk import (
    ConfigurationError,
    Failure,
    JobFailed,
    PermissionDenied,
    RevisionOutOfSync,
    RevisionUnavailable,
    SystemUnavailable,
)

_CODE: Final = re.compile(r"[0-9A-Za-z._-]{1,100}")
_REFUSED: Final = "S3 refuses the {what}: the pipeline's role may not use it, or it does not exist."
_KMS: Final = "The KMS key of the {what} refuses: it is disabled, gone, or not for this pipeline."
_ELSEWHERE: Final = "The bucket of the {what} is in a region that its pipeline does not reach."
_KEYS: Final = "S3 does not take the job's session keys for the {what}."
_CLOCK: Final = (
    "The worker's clock is not S3's, which refuses the {what}: its operator must set it."
)
_NOWHERE: Final = "The place of the {what} is none that S3 can have."
_UNAVAILABLE: Final = "S3 does not answer for the {what}."

# Another time it may be taken.
LATER: Final = frozenset({
    "", "OperationAborted", "RequestTimeout", "SlowDown", "Throttling", "ThrottlingException",
    "TooManyRequestsException",
})  # fmt: skip
CODES: Final[Mapping[str, tuple[type[Failure], str]]] = {
    "NoSuchKey": (RevisionUnavailable, "The {what} is not there: S3 has no such object."),
    "NoSuchVersion": (RevisionUnavailable, "The {what} is not there: S3 has no such version."),
    "404": (RevisionUnavailable, "The {what} is not there: S3 has no such object."),
    "InvalidObjectState": (RevisionUnavailable, "The {what} is archived, and cannot be read."),
    "PreconditionFailed": (RevisionOutOfSync, "The {what} was replaced while it was read."),
    "NoSuchBucket": (ConfigurationError, "The bucket of the {what} does not exist."),
    "EntityTooLarge": (JobFailed, "The {what} is larger than S3 takes."),
    "AccessDenied": (PermissionDenied, _REFUSED),
    "AllAccessDisabled": (PermissionDenied, _REFUSED),
    "AccountProblem": (PermissionDenied, _REFUSED),
    "403": (PermissionDenied, _REFUSED),
    # After one renewal: not a matter of time any more.
    "ExpiredToken": (SystemUnavailable, _KEYS),
    "InvalidToken": (SystemUnavailable, _KEYS),
    "ExpiredTokenException": (SystemUnavailable, _KEYS),
    "TokenRefreshRequired": (SystemUnavailable, _KEYS),
    "InvalidAccessKeyId": (SystemUnavailable, _KEYS),
    "SignatureDoesNotMatch": (SystemUnavailable, _KEYS),
    "RequestTimeTooSkewed": (SystemUnavailable, _CLOCK),
    # What is left when botocore's own redirection did not help.
    "AuthorizationHeaderMalformed": (ConfigurationError, _ELSEWHERE),
    "PermanentRedirect": (ConfigurationError, _ELSEWHERE),
    "IllegalLocationConstraintException": (ConfigurationError, _ELSEWHERE),
}


def fault_of(error: BaseException, what: str) -> Failure:
    """The failure that the pipeline is told; `what` names the artifact."""
    kind, text = _meaning(error)
    return kind(text.format(what=what))


# From the kind of error; the first that fits.
KINDS: Final[Sequence[tuple[tuple[type[Exception], ...], type[Failure], str]]] = [
    ((S3DownloadFailedError,), *CODES["PreconditionFailed"]),  # its ETag is another by now
    ((PortError,), SystemUnavailable, "CodePipeline gave no new session keys for the {what}."),
    ((ParamValidationError, S3ValidationError), ConfigurationError, _NOWHERE),
    ((OSError,), SystemUnavailable, "The worker's disk does not take the {what}."),
    (UNREADABLE, SystemUnavailable, "What answers for the {what} is not S3."),
]


def _meaning(error: BaseException) -> tuple[type[Failure], str]:
    if isinstance(error, ClientError):
        return _answered(error)
    for kinds, failure, text in KINDS:
        if isinstance(error, kinds):
            return failure, text
    return SystemUnavailable, _UNAVAILABLE


def _answered(error: ClientError) -> tuple[type[Failure], str]:
    told = error.response.get("Error", {})
    code = str(told.get("Code", ""))
    if code in CODES and not (code == "AccessDenied" and "kms:" in told.get("Message", "")):
        return CODES[code]
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if status >= 500 or status in {0, 429} or code.removeprefix("KMS.") in LATER:
        return SystemUnavailable, _UNAVAILABLE
    if code.startswith("KMS.") or code == "AccessDenied":
        return PermissionDenied, _KMS
    shown = code if _CODE.fullmatch(code) else "an unknown code"
    return JobFailed, f"S3 refused the {{what}} with {shown}."
