"""CodePipeline's ten job calls as one JobApi.

Owns the clients and their retries. Must not know queues, the ledger, or what follows from an
answer: acknowledge and put are one HTTP attempt, the loop around them is the engine's.
"""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, IncompleteReadError

from dispatcher.aws import shapes
from dispatcher.aws.errors import UNREADABLE, failure
from dispatcher.engine.model import (
    ApiError,
    Denied,
    InvalidClientToken,
    JobDetails,
    JobRef,
    Kind,
    Offer,
    Verdict,
)
from dispatcher.engine.ports import JobApi
from dispatcher.sdk import ActionType, Owner, Secret

if TYPE_CHECKING:
    from types_boto3_codepipeline import CodePipelineClient
    from types_boto3_codepipeline.type_defs import FailureDetailsTypeDef, PollForJobsInputTypeDef

T = TypeVar("T")
Called = Callable[[str, str, float], None]
Queries = Mapping[ActionType, Sequence[tuple[str, str]]]  # by type: key and value

# Two attempts: a kept-alive connection that AWS has closed costs the first. A third could outlast
# the acknowledgement window that the details call stands in.
_ATTEMPTS: Final = 2
_CONNECT_TIMEOUT: Final = timedelta(seconds=3)
_READ_TIMEOUT: Final = timedelta(seconds=10)


class Clients:
    """One boto3 client a region and number of attempts, made when first needed.

    Neither they nor their session survive a fork: each process must have its own Clients.
    """

    def __init__(self, connections: int, read_timeout: timedelta, called: Called) -> None:
        self._connections = connections
        self._read_timeout = read_timeout
        self._called = called
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
        began = time.monotonic()
        try:
            answer = send(client)
        except (ClientError, BotoCoreError, *UNREADABLE) as error:
            unlike = failure(operation, error)
        else:
            self._called(operation, "ok", time.monotonic() - began)
            return answer
        self._called(operation, type(unlike).__name__, time.monotonic() - began)
        # Raised out here so that the SDK's error, which may hold parameters, is not its context.
        raise unlike

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
                actionTypeId=shapes.type_id(action_type), maxBatchSize=limit
            ),
        )
        return shapes.offers(operation, answer, shapes.third_party_offer)

    def details(self, ref: JobRef, token: Secret | None) -> JobDetails:
        operation = "GetThirdPartyJobDetails"
        answer = self._clients.retrying(
            operation,
            ref.region,
            lambda client: client.get_third_party_job_details(
                jobId=ref.job_id, clientToken=_clear(operation, token)
            ),
        )
        return shapes.details(operation, ref, answer)

    def acknowledge(self, ref: JobRef, nonce: str, token: Secret | None) -> str:
        operation = "AcknowledgeThirdPartyJob"
        answer = self._clients.once(
            operation,
            ref.region,
            lambda client: client.acknowledge_third_party_job(
                jobId=ref.job_id, nonce=nonce, clientToken=_clear(operation, token)
            ),
        )
        return shapes.status(operation, answer)

    def put(self, ref: JobRef, verdict: Verdict, token: Secret | None) -> None:
        if verdict.kind is Kind.FAILURE:
            self._put_failure(ref, shapes.failure_details(verdict), token)
        else:
            self._put_success(ref, shapes.success(verdict), token)

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
    """One account's own actions' jobs: the poll brings the nonce, and there are no tokens.

    `queries`: AWS demands that each poll of a type with a queryable key names one value of it.
    """

    def __init__(self, clients: Clients, queries: Queries) -> None:
        self._clients = clients
        self._queries = queries
        self._turns: Counter[tuple[ActionType, str]] = Counter()

    def poll(self, action_type: ActionType, region: str, limit: int) -> list[Offer]:
        queries = self._queries.get(action_type)
        if not queries:
            return self._poll(action_type, region, limit, {})
        first = self._turns[action_type, region] % len(queries)  # each value is first in its turn
        self._turns[action_type, region] += 1
        fault: ApiError | None = None
        for key, value in (*queries[first:], *queries[:first]):
            try:
                found = self._poll(action_type, region, limit, {key: value})
            except ApiError as error:  # one value costs no other its jobs
                fault = error
                continue
            if found:
                return found
        if fault is not None:
            raise fault
        return []

    def _poll(
        self, action_type: ActionType, region: str, limit: int, query: dict[str, str]
    ) -> list[Offer]:
        operation = "PollForJobs"
        asked: PollForJobsInputTypeDef = {
            "actionTypeId": shapes.type_id(action_type),
            "maxBatchSize": limit,
        }
        if query:
            asked["queryParam"] = query
        answer = self._clients.retrying(
            operation, region, lambda client: client.poll_for_jobs(**asked)
        )
        # The answer holds whole jobs with session keys and configuration; it goes no further.
        return shapes.offers(operation, answer, shapes.custom_offer)

    def details(self, ref: JobRef, token: Secret | None) -> JobDetails:  # noqa: ARG002
        operation = "GetJobDetails"
        answer = self._clients.retrying(
            operation, ref.region, lambda client: client.get_job_details(jobId=ref.job_id)
        )
        return shapes.details(operation, ref, answer)

    def acknowledge(self, ref: JobRef, nonce: str, token: Secret | None) -> str:  # noqa: ARG002
        operation = "AcknowledgeJob"
        answer = self._clients.once(
            operation,
            ref.region,
            lambda client: client.acknowledge_job(jobId=ref.job_id, nonce=nonce),
        )
        return shapes.status(operation, answer)

    def put(self, ref: JobRef, verdict: Verdict, token: Secret | None) -> None:  # noqa: ARG002
        if verdict.kind is Kind.FAILURE:
            details = shapes.failure_details(verdict)
            self._clients.once(
                "PutJobFailureResult",
                ref.region,
                lambda client: client.put_job_failure_result(
                    jobId=ref.job_id, failureDetails=details
                ),
            )
        else:
            result = shapes.success(verdict) | shapes.variables(verdict)
            self._clients.once(
                "PutJobSuccessResult",
                ref.region,
                lambda client: client.put_job_success_result(jobId=ref.job_id, **result),
            )


class CodePipeline:
    """All job calls of one process. `connections` is how many of them it makes at once.

    `queries`: the values of queryable keys to poll for; see CustomJobs. `called` is told of each
    call's operation, its answer ("ok", or the name of the error) and the seconds it took.
    """

    def __init__(
        self,
        connections: int,
        *,
        queries: Queries = MappingProxyType({}),
        read_timeout: timedelta = _READ_TIMEOUT,
        called: Called = lambda _operation, _answer, _seconds: None,
    ) -> None:
        self._clients = Clients(connections, read_timeout, called)
        self._jobs: Mapping[Owner, JobApi] = {
            Owner.THIRD_PARTY: ThirdPartyJobs(self._clients),
            Owner.CUSTOM: CustomJobs(self._clients, queries),
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


def _clear(operation: str, token: Secret | None) -> str:
    if token is None:
        raise InvalidClientToken(f"{operation}: no client token")
    return token.get_secret_value()
