"""What each of AWS's and the SDK's errors means to the engine: one table, and what overrides a row.

Texts are an operation and a code: AWS's own text may quote a value.
"""

import re
from collections.abc import Mapping
from typing import Final

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 - botocore's own, which is no OSError
    HTTPClientError,
    IncompleteReadError,
    ParamValidationError,
)
from botocore.parsers import ResponseParserError

from dispatcher.engine.model import (
    ActionTypeNotFound,
    ApiError,
    Denied,
    InvalidClientToken,
    InvalidJobState,
    InvalidNonce,
    JobNotFound,
    Refused,
    Throttled,
    Unanswered,
)

# How botocore's parser, and our own look, fail at JSON or XML of another form, or at none at all.
UNREADABLE: Final = (ResponseParserError, AttributeError, KeyError, TypeError, ValueError)
_CODE: Final = re.compile(r"[0-9A-Za-z._-]{1,100}")

ERRORS: Final[Mapping[str, type[ApiError]]] = {
    # The service model's errors of the ten calls. Sent again unchanged they come again: no retry.
    "ActionTypeNotFoundException": ActionTypeNotFound,  # mistyped, or not in this region
    "InvalidClientTokenException": InvalidClientToken,  # a retry needs another token (rotation)
    "InvalidJobException": Refused,  # the id is of another kind of job
    "InvalidJobStateException": InvalidJobState,  # a put came late, or came already
    "InvalidNonceException": InvalidNonce,  # acknowledged already, or offered again since
    "JobNotFoundException": JobNotFound,
    "OutputVariablesSizeExceededException": Refused,
    "ValidationException": Refused,  # a limit or pattern that only the server checks
    # Answers of the service's front. Nothing was applied: retry, more slowly.
    "BandwidthLimitExceeded": Throttled,
    "EC2ThrottledException": Throttled,
    "LimitExceededException": Throttled,
    "RequestLimitExceeded": Throttled,
    "RequestThrottled": Throttled,
    "RequestThrottledException": Throttled,
    "SlowDown": Throttled,
    "ThrottledException": Throttled,
    "Throttling": Throttled,
    "ThrottlingException": Throttled,
    "TooManyRequestsException": Throttled,
    # Something broke behind the front, perhaps after the call was applied: retry, and know it.
    "InternalError": Unanswered,
    "InternalFailure": Unanswered,
    "InternalServerError": Unanswered,
    "InternalServiceError": Unanswered,
    "PriorRequestNotComplete": Unanswered,
    "RequestTimeout": Unanswered,
    "RequestTimeoutException": Unanswered,
    "ServiceUnavailable": Unanswered,
    "ServiceUnavailableException": Unanswered,
    # Our credentials, their policies or this machine's clock: retry once an operator has mended it.
    "AccessDenied": Denied,
    "AccessDeniedException": Denied,
    "AuthFailure": Denied,
    "ExpiredToken": Denied,
    "ExpiredTokenException": Denied,
    "IncompleteSignature": Denied,
    "IncompleteSignatureException": Denied,
    "InvalidAccessKeyId": Denied,
    "InvalidClientTokenId": Denied,  # an AWS access key, not a job's client token
    "InvalidSignatureException": Denied,
    "MissingAuthenticationToken": Denied,
    "MissingAuthenticationTokenException": Denied,
    "NotAuthorized": Denied,
    "OptInRequired": Denied,
    "RequestExpired": Denied,
    "RequestTimeTooSkewed": Denied,
    "SignatureDoesNotMatch": Denied,
    "SubscriptionRequiredException": Denied,
    "UnauthorizedOperation": Denied,
    "UnrecognizedClientException": Denied,
}


def meaning(operation: str, error: ClientError) -> type[ApiError]:
    """What an error answer means: its code's row, unless its HTTP status or sender says more."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = str(error.response.get("Error", {}).get("Code", ""))
    known = ERRORS.get(code)
    if known is Throttled or status == 429:
        return Throttled
    if status >= 500 or 300 <= status < 400:  # a redirect is not CodePipeline's answer either
        return Unanswered
    if known is None and status in {401, 403}:
        known = Denied
    if known is None:
        # botocore puts the HTTP status where a body cut short says no code: read as no answer.
        known = Unanswered if not code or code.isdecimal() else Refused
    # The call that fetches our credentials (AssumeRole) failed: that says nothing of the job.
    foreign = error.operation_name != operation and issubclass(known, Refused)
    return Denied if foreign else known


def _own(error: BotoCoreError) -> type[ApiError]:
    """What an error of the SDK's own means: no answer, our bug, or a setting of this machine."""
    if isinstance(error, HTTPClientError | ConnectionError | IncompleteReadError):
        return Unanswered
    # The rest is found before anything is sent: no credentials, profile, region, certificate ...
    return Refused if isinstance(error, ParamValidationError) else Denied


def failure(operation: str, error: Exception) -> ApiError:
    """The engine's error. Its text is the operation and a code: AWS's text may quote a value."""
    if isinstance(error, ClientError):
        code = str(error.response.get("Error", {}).get("Code", ""))
        shown = code if _CODE.fullmatch(code) else "unknown code"
        return meaning(operation, error)(f"{operation}: {shown}")
    kind = _own(error) if isinstance(error, BotoCoreError) else Unanswered
    return kind(f"{operation}: {type(error).__name__}")
