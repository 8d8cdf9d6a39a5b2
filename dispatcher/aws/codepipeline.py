"""CodePipeline's ten job calls as one JobApi, and what each of AWS's errors means to the engine.

Owns the clients, their retries, and the reading and writing of AWS's shapes. Must not know queues,
the ledger, or what follows from an answer: acknowledge and put are one HTTP attempt, the loop
around them is the engine's.
"""

import json
import logging
import re
import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeGuard, TypeVar

import boto3
from botocore.config import Config
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
    JobDetails,
    JobNotFound,
    JobRef,
    Kind,
    Malformed,
    Offer,
    Refused,
    Throttled,
    Unanswered,
    Verdict,
)
from dispatcher.engine.ports import JobApi
from dispatcher.sdk import ActionType, Owner, Pipeline, Secret

if TYPE_CHECKING:
    from types_boto3_codepipeline import CodePipelineClient
    from types_boto3_codepipeline.type_defs import (
        ActionTypeIdTypeDef,
        CurrentRevisionTypeDef,
        ExecutionDetailsTypeDef,
        FailureDetailsTypeDef,
    )

T = TypeVar("T")
logger = logging.getLogger(__name__)

# Two attempts: a kept-alive connection that AWS has closed costs the first. A third could outlast
# the acknowledgement window that the details call stands in.
_ATTEMPTS: Final = 2
_CONNECT_TIMEOUT: Final = timedelta(seconds=3)
_READ_TIMEOUT: Final = timedelta(seconds=10)

# How botocore's parser, and our own look, fail at JSON of another form or at no JSON at all.
_UNREADABLE: Final = (ResponseParserError, AttributeError, KeyError, TypeError, ValueError)

_ID: Final = re.compile(r"[0-9A-Za-z._:-]{1,512}")  # goes into keys, messages and log lines
_CODE: Final = re.compile(r"[0-9A-Za-z._-]{1,100}")
_SUMMARY: Final = 2_048
_MESSAGE: Final = 5_000
_NO_MESSAGE: Final = "The action failed and gave no message."

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
    known = ERRORS.get(error.response.get("Error", {}).get("Code", ""))
    if known is Throttled or status == 429:
        return Throttled
    if status >= 500 or 300 <= status < 400:  # a redirect is not CodePipeline's answer either
        return Unanswered
    if known is None:
        known = Denied if status in {401, 403} else Refused
    # The call that fetches our credentials (AssumeRole) failed: that says nothing of the job.
    foreign = error.operation_name != operation and issubclass(known, Refused)
    return Denied if foreign else known


def _own(error: BotoCoreError) -> type[ApiError]:
    """What an error of the SDK's own means: no answer, our bug, or a setting of this machine."""
    if isinstance(error, HTTPClientError | ConnectionError | IncompleteReadError):
        return Unanswered
    # The rest is found before anything is sent: no credentials, profile, region, certificate ...
    return Refused if isinstance(error, ParamValidationError) else Denied


def _failure(operation: str, error: Exception) -> ApiError:
    """The engine's error. Its text is the operation and a code: AWS's text may quote a value."""
    if isinstance(error, ClientError):
        code = str(error.response.get("Error", {}).get("Code", ""))
        shown = code if _CODE.fullmatch(code) else "unknown code"
        return meaning(operation, error)(f"{operation}: {shown}")
    kind = _own(error) if isinstance(error, BotoCoreError) else Unanswered
    return kind(f"{operation}: {type(error).__name__}")


class Clients:
    """One boto3 client a region and number of attempts, made when first needed.

    Neither they nor their session survive a fork: each process must have its own Clients.
    """

    def __init__(self, connections: int, read_timeout: timedelta) -> None:
        self._connections = connections
        self._read_timeout = read_timeout
        self._lock = threading.Lock()
        self._session: boto3.Session | None = None
        self._clients: dict[tuple[str, int], CodePipelineClient] = {}

    def once(self, operation: str, region: str, send: Callable[["CodePipelineClient"], T]) -> T:
        """One HTTP attempt: the caller learns whether an attempt was left unanswered."""
        return self._call(operation, region, 1, send)

    def retrying(self, operation: str, region: str, send: Callable[["CodePipelineClient"], T]) -> T:
        """The SDK's own retries: for calls that may be repeated unseen."""
        return self._call(operation, region, _ATTEMPTS, send)

    def close(self) -> None:
        """Close all connections; the next call opens new ones."""
        with self._lock:
            while self._clients:
                self._clients.popitem()[1].close()

    def _call(
        self, operation: str, region: str, attempts: int, send: Callable[["CodePipelineClient"], T]
    ) -> T:
        client = self._client(operation, region, attempts)
        try:
            return send(client)
        except (ClientError, BotoCoreError, *_UNREADABLE) as error:
            failure = _failure(operation, error)
        # Raised out here so that the SDK's error, which may hold parameters, is not its context.
        raise failure

    def _client(self, operation: str, region: str, attempts: int) -> "CodePipelineClient":
        client = self._clients.get((region, attempts))
        if client is None:
            try:
                with self._lock:  # clients may be used by many threads, but not made by many
                    client = self._clients.get((region, attempts)) or self._make(region, attempts)
                    self._clients[region, attempts] = client
            except (BotoCoreError, ValueError) as error:
                # A region, profile or endpoint that does not exist: nothing was sent.
                raise Denied(f"{operation}: {type(error).__name__}") from None
        return client

    def _make(self, region: str, attempts: int) -> "CodePipelineClient":
        if self._session is None:
            self._session = boto3.Session()
        # Parameter validation stays on: for 0.05 ms a call it stops, before anything is sent, a
        # Continue without its token, which AWS would take for the action's success.
        config = Config(
            connect_timeout=_CONNECT_TIMEOUT.total_seconds(),
            read_timeout=self._read_timeout.total_seconds(),
            max_pool_connections=self._connections,
            retries={"mode": "standard", "total_max_attempts": attempts},
            tcp_keepalive=True,
        )
        client = self._session.client("codepipeline", region_name=region, config=config)
        client.meta.events.register("before-parse.codepipeline", _check_whole)
        return client


def _check_whole(response_dict: Mapping[str, Any], **_: object) -> None:
    """Refuse what botocore takes for an empty answer: a body cut short, or a proxy's own page.

    A put's success has no body, so that either would pass for one.
    """
    body = response_dict["body"]
    if response_dict["status_code"] >= 300:
        return  # the status says enough
    expected = int(response_dict["headers"].get("content-length", len(body)))
    if len(body) != expected:
        raise IncompleteReadError(actual_bytes=len(body), expected_bytes=expected)
    if body:
        json.loads(body)


class ThirdPartyJobs:
    """Partner actions' jobs: the poll names the client, the details bring the nonce."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    def poll(self, action_type: ActionType, region: str, limit: int) -> list[Offer]:
        operation = "PollForThirdPartyJobs"
        answer = self._clients.retrying(
            operation,
            region,
            lambda client: client.poll_for_third_party_jobs(
                actionTypeId=_type_id(action_type), maxBatchSize=limit
            ),
        )
        return _offers(operation, answer, _third_party_offer)

    def details(self, ref: JobRef, token: Secret | None) -> JobDetails:
        operation = "GetThirdPartyJobDetails"
        answer = self._clients.retrying(
            operation,
            ref.region,
            lambda client: client.get_third_party_job_details(
                jobId=ref.job_id, clientToken=_clear(operation, token)
            ),
        )
        nonce = _mapping(operation, answer, "jobDetails").get("nonce")
        if not isinstance(nonce, str) or not nonce:
            raise Malformed(f"{operation}: no nonce")
        return _details(operation, ref, answer, nonce)

    def acknowledge(self, ref: JobRef, nonce: str, token: Secret | None) -> str:
        operation = "AcknowledgeThirdPartyJob"
        answer = self._clients.once(
            operation,
            ref.region,
            lambda client: client.acknowledge_third_party_job(
                jobId=ref.job_id, nonce=nonce, clientToken=_clear(operation, token)
            ),
        )
        return _status(operation, answer)

    def put(self, ref: JobRef, verdict: Verdict, token: Secret | None) -> None:
        if verdict.kind is Kind.FAILURE:
            self._put_failure(ref, _failure_details(verdict), token)
        else:
            self._put_success(ref, _success(verdict), token)

    def _put_success(self, ref: JobRef, result: dict[str, Any], token: Secret | None) -> None:
        operation = "PutThirdPartyJobSuccessResult"
        self._clients.once(
            operation,
            ref.region,
            lambda client: client.put_third_party_job_success_result(
                jobId=ref.job_id, clientToken=_clear(operation, token), **result
            ),
        )

    def _put_failure(
        self, ref: JobRef, details: "FailureDetailsTypeDef", token: Secret | None
    ) -> None:
        operation = "PutThirdPartyJobFailureResult"
        self._clients.once(
            operation,
            ref.region,
            lambda client: client.put_third_party_job_failure_result(
                jobId=ref.job_id, clientToken=_clear(operation, token), failureDetails=details
            ),
        )


class CustomJobs:
    """One account's own actions' jobs: the poll brings the nonce, and there are no tokens."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    def poll(self, action_type: ActionType, region: str, limit: int) -> list[Offer]:
        operation = "PollForJobs"
        answer = self._clients.retrying(
            operation,
            region,
            lambda client: client.poll_for_jobs(
                actionTypeId=_type_id(action_type), maxBatchSize=limit
            ),
        )
        # The answer holds whole jobs with session keys and configuration; it goes no further.
        return _offers(operation, answer, _custom_offer)

    def details(self, ref: JobRef, token: Secret | None) -> JobDetails:  # noqa: ARG002
        operation = "GetJobDetails"
        answer = self._clients.retrying(
            operation, ref.region, lambda client: client.get_job_details(jobId=ref.job_id)
        )
        return _details(operation, ref, answer, None)

    def acknowledge(self, ref: JobRef, nonce: str, token: Secret | None) -> str:  # noqa: ARG002
        operation = "AcknowledgeJob"
        answer = self._clients.once(
            operation,
            ref.region,
            lambda client: client.acknowledge_job(jobId=ref.job_id, nonce=nonce),
        )
        return _status(operation, answer)

    def put(self, ref: JobRef, verdict: Verdict, token: Secret | None) -> None:  # noqa: ARG002
        if verdict.kind is Kind.FAILURE:
            details = _failure_details(verdict)
            self._clients.once(
                "PutJobFailureResult",
                ref.region,
                lambda client: client.put_job_failure_result(
                    jobId=ref.job_id, failureDetails=details
                ),
            )
        else:
            result = _success(verdict) | _variables(verdict)
            self._clients.once(
                "PutJobSuccessResult",
                ref.region,
                lambda client: client.put_job_success_result(jobId=ref.job_id, **result),
            )


class CodePipeline:
    """All job calls of one process. `connections` is how many of them it makes at once."""

    def __init__(self, connections: int, *, read_timeout: timedelta = _READ_TIMEOUT) -> None:
        self._clients = Clients(connections, read_timeout)
        self._jobs: Mapping[Owner, JobApi] = {
            Owner.THIRD_PARTY: ThirdPartyJobs(self._clients),
            Owner.CUSTOM: CustomJobs(self._clients),
        }

    def poll(self, action_type: ActionType, region: str, limit: int) -> list[Offer]:
        return list(self._jobs[action_type.owner].poll(action_type, region, limit))

    def details(self, ref: JobRef, token: Secret | None) -> JobDetails:
        return self._jobs[ref.type.owner].details(ref, token)

    def acknowledge(self, ref: JobRef, nonce: str, token: Secret | None) -> str:
        return self._jobs[ref.type.owner].acknowledge(ref, nonce, token)

    def put(self, ref: JobRef, verdict: Verdict, token: Secret | None) -> None:
        self._jobs[ref.type.owner].put(ref, verdict, token)

    def close(self) -> None:
        """Close all connections; the next call opens new ones."""
        self._clients.close()


def _type_id(action_type: ActionType) -> "ActionTypeIdTypeDef":
    return {
        "category": action_type.category,  # type: ignore[typeddict-item]  # the SDK has checked it
        "owner": action_type.owner.value,
        "provider": action_type.provider,
        "version": action_type.version,
    }


def _clear(operation: str, token: Secret | None) -> str:
    if token is None:
        raise InvalidClientToken(f"{operation}: no client token")
    return token.get_secret_value()


# What AWS says, read with no trust in its form: botocore passes on whatever JSON it is given.


def _offers(
    operation: str,
    answer: Mapping[str, object],
    read: Callable[[Mapping[str, object]], Offer | None],
) -> list[Offer]:
    jobs = answer.get("jobs")
    if not isinstance(jobs, list):
        raise Malformed(f"{operation}: no jobs")
    offers = [read(job) if isinstance(job, Mapping) else None for job in jobs]
    good = [offer for offer in offers if offer is not None]
    if len(good) < len(jobs):
        skipped = len(jobs) - len(good)
        logger.warning("malformed jobs skipped", extra={"operation": operation, "skipped": skipped})
    return good


def _third_party_offer(job: Mapping[str, object]) -> Offer | None:
    job_id, client_id = job.get("jobId"), job.get("clientId")
    return Offer(job_id, client_id) if _is_id(job_id) and _is_id(client_id) else None


def _custom_offer(job: Mapping[str, object]) -> Offer | None:
    job_id, nonce = job.get("id"), job.get("nonce")
    if not _is_id(job_id) or not isinstance(nonce, str) or not nonce:
        return None
    return Offer(job_id, None, nonce)


def _is_id(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def _mapping(operation: str, holder: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = holder.get(name)
    if not isinstance(value, Mapping):
        raise Malformed(f"{operation}: no {name}")
    return value


def _details(
    operation: str, ref: JobRef, answer: Mapping[str, object], nonce: str | None
) -> JobDetails:
    job = _mapping(operation, answer, "jobDetails")
    data = _mapping(operation, job, "data")
    if job.get("id", ref.job_id) != ref.job_id:
        raise Malformed(f"{operation}: another job's details")
    return JobDetails(
        pipeline=_pipeline(_part(data, "pipelineContext")),
        configuration=_configuration(operation, data),
        continuation=_text(data, "continuationToken"),
        nonce=nonce,
    )


def _configuration(operation: str, data: Mapping[str, object]) -> dict[str, str]:
    values = _part(_part(data, "actionConfiguration"), "configuration")
    if not all(isinstance(value, str) for value in values.values()):
        raise Malformed(f"{operation}: configuration of something other than texts")
    return {key: str(value) for key, value in values.items()}


def _pipeline(context: Mapping[str, object]) -> Pipeline:
    action = _part(context, "action")
    return Pipeline(
        name=_text(context, "pipelineName") or "",
        stage=_text(_part(context, "stage"), "name") or "",
        action=_text(action, "name") or "",
        arn=_text(context, "pipelineArn"),
        execution_id=_text(context, "pipelineExecutionId"),
        action_execution_id=_text(action, "actionExecutionId"),
    )


def _part(holder: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = holder.get(name)
    return value if isinstance(value, Mapping) else {}


def _text(holder: Mapping[str, object], name: str) -> str | None:
    value = holder.get(name)
    return value if isinstance(value, str) and value else None


def _status(operation: str, answer: Mapping[str, object]) -> str:
    status = _text(answer, "status")
    if status is None:
        # A 200 that says nothing. The job may be ours now, so this must not read as a refusal:
        # asked again, AWS answers InvalidNonce if it was applied.
        raise Unanswered(f"{operation}: no status")
    return status


# What AWS is told


def _success(verdict: Verdict) -> dict[str, Any]:
    result: dict[str, Any] = {}
    if verdict.kind is Kind.CONTINUE:
        result["continuationToken"] = verdict.token
    if verdict.revision:
        result["currentRevision"] = _revision(verdict.revision)
    if details := _execution_details(verdict):
        result["executionDetails"] = details
    return result


def _variables(verdict: Verdict) -> dict[str, Any]:
    # AWS takes output variables only with an action's last result; the third-party call, never.
    if verdict.kind is Kind.SUCCESS and verdict.variables:
        return {"outputVariables": dict(verdict.variables)}
    return {}


def _execution_details(verdict: Verdict) -> "ExecutionDetailsTypeDef":
    details: ExecutionDetailsTypeDef = {}
    if verdict.message:
        details["summary"] = _sendable(verdict.message)[:_SUMMARY]
    if verdict.external_id:
        details["externalExecutionId"] = verdict.external_id
    if verdict.percent is not None:
        details["percentComplete"] = verdict.percent
    return details


def _failure_details(verdict: Verdict) -> "FailureDetailsTypeDef":
    details: FailureDetailsTypeDef = {
        "type": verdict.failure_type or "JobFailed",  # type: ignore[typeddict-item]  # as the SDK
        "message": _sendable(verdict.message or _NO_MESSAGE)[:_MESSAGE],
    }
    if verdict.external_id:
        details["externalExecutionId"] = verdict.external_id
    return details


def _revision(stored: Mapping[str, Any]) -> "CurrentRevisionTypeDef":
    revision: dict[str, Any] = {key: value for key, value in stored.items() if value is not None}
    created = revision.get("created")
    if isinstance(created, str):  # the verdict went through JSON
        try:
            revision["created"] = datetime.fromisoformat(created)
        except ValueError:
            raise Refused("the revision's `created` is not an ISO 8601 time") from None
    return revision  # type: ignore[return-value]  # the SDK has checked its members


def _sendable(text: str) -> str:
    # A lone surrogate, as in a file's undecodable name, is no Unicode text: AWS would refuse it,
    # and with it the job's result.
    return text.encode("utf-8", "replace").decode()
