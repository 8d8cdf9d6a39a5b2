"""CodePipeline's shapes, read with no trust in their form and written within AWS's limits.

Knows no client and no call."""

import logging
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from dispatcher.engine.model import (
    JOB_ID,
    Belongings,
    JobDetails,
    JobRef,
    Kind,
    Malformed,
    Offer,
    Place,
    Refused,
    SessionKeys,
    Unanswered,
    Verdict,
)
from dispatcher.sdk import ActionType, Pipeline

if TYPE_CHECKING:
    from types_boto3_codepipeline.type_defs import (
        ActionTypeIdTypeDef,
        CurrentRevisionTypeDef,
        ExecutionDetailsTypeDef,
        FailureDetailsTypeDef,
    )

logger = logging.getLogger(__name__)

LONGEST_TOKEN: Final = 256  # ClientToken in CodePipeline's service model; all count characters
_ARTIFACT: Final = re.compile(r"[a-zA-Z0-9_\-]{1,100}")  # ArtifactName; it names files too
_SUMMARY: Final = 2_048
_MESSAGE: Final = 5_000
_NO_MESSAGE: Final = "The action failed and gave no message."


def type_id(action_type: ActionType) -> "ActionTypeIdTypeDef":
    return {
        "category": action_type.category,  # type: ignore[typeddict-item]  # the SDK has checked it
        "owner": action_type.owner.value,
        "provider": action_type.provider,
        "version": action_type.version,
    }


# What AWS says, read with no trust in its form: botocore passes on whatever JSON it is given.


def offers(
    operation: str,
    answer: Mapping[str, object],
    read: Callable[[Mapping[str, object]], Offer | None],
) -> list[Offer]:
    jobs = answer.get("jobs")
    if not isinstance(jobs, list):
        raise Malformed(f"{operation}: no jobs")
    found = [read(job) if isinstance(job, Mapping) else None for job in jobs]
    good = [offer for offer in found if offer is not None]
    if len(good) < len(jobs):
        skipped = len(jobs) - len(good)
        logger.warning("malformed jobs skipped", extra={"operation": operation, "skipped": skipped})
    return good


def third_party_offer(job: Mapping[str, object]) -> Offer | None:
    job_id, client_id = job.get("jobId"), job.get("clientId")
    return Offer(job_id, client_id) if _is_id(job_id) and _is_id(client_id) else None


def custom_offer(job: Mapping[str, object]) -> Offer | None:
    job_id, nonce = job.get("id"), job.get("nonce")
    if not _is_id(job_id) or not isinstance(nonce, str) or not nonce:
        return None
    return Offer(job_id, None, nonce)


def _is_id(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and JOB_ID.fullmatch(value) is not None


def _mapping(operation: str, holder: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = holder.get(name)
    if not isinstance(value, Mapping):
        raise Malformed(f"{operation}: no {name}")
    return value


def details(operation: str, ref: JobRef, answer: Mapping[str, object]) -> JobDetails:
    job = _mapping(operation, answer, "jobDetails")
    data = _mapping(operation, job, "data")
    if job.get("id", ref.job_id) != ref.job_id:
        raise Malformed(f"{operation}: another job's details")
    return JobDetails(
        pipeline=_pipeline(_part(data, "pipelineContext")),
        configuration=_configuration(operation, data),
        belongings=_belongings(operation, data),
        continuation=_text(data, "continuationToken"),
        nonce=_text(job, "nonce"),  # a third-party job's; a custom one's came with its offer
    )


def _configuration(operation: str, data: Mapping[str, object]) -> dict[str, str]:
    values = _part(_part(data, "actionConfiguration"), "configuration")
    if not all(isinstance(value, str) for value in values.values()):
        raise Malformed(f"{operation}: configuration of something other than texts")
    return {key: str(value) for key, value in values.items()}


def _belongings(operation: str, data: Mapping[str, object]) -> Belongings:
    return Belongings(
        inputs=_places(operation, data, "inputArtifacts"),
        outputs=_places(operation, data, "outputArtifacts"),
        keys=_session_keys(_part(data, "artifactCredentials")),
        encryption_key=_text(_part(data, "encryptionKey"), "id"),
    )


def _places(operation: str, data: Mapping[str, object], kind: str) -> tuple[Place, ...]:
    listed = data.get(kind)
    found = [_place(one) for one in (listed if isinstance(listed, list) else ())]
    good = tuple(place for place in found if place is not None)
    if len(good) < len(found):
        # A handler that needs one of them says so; one that does not still gets its job.
        extra = {"operation": operation, "kind": kind, "skipped": len(found) - len(good)}
        logger.warning("malformed artifacts skipped", extra=extra)
    return good


def _place(artifact: object) -> Place | None:
    if not isinstance(artifact, Mapping):
        return None
    name = _text(artifact, "name")
    at = _part(_part(artifact, "location"), "s3Location")
    bucket, key = _text(at, "bucketName"), _text(at, "objectKey")
    if name and _ARTIFACT.fullmatch(name) and bucket and key:
        return Place(name, bucket, key, _text(artifact, "revision"))
    return None


def _session_keys(given: Mapping[str, object]) -> SessionKeys | None:
    names = ("accessKeyId", "secretAccessKey", "sessionToken")
    access, secret, token = (_text(given, name) for name in names)
    return SessionKeys(access, secret, token) if access and secret and token else None


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


def status(operation: str, answer: Mapping[str, object]) -> str:
    status = _text(answer, "status")
    if status is None:
        # A 200 that says nothing. The job may be ours now, so this must not read as a refusal:
        # asked again, AWS answers InvalidNonce if it was applied.
        raise Unanswered(f"{operation}: no status")
    return status


# What AWS is told


def success(verdict: Verdict) -> dict[str, Any]:
    result: dict[str, Any] = {}
    if verdict.kind is Kind.CONTINUE:
        result["continuationToken"] = verdict.token
    if verdict.revision:
        result["currentRevision"] = _revision(verdict.revision)
    if told := _execution_details(verdict):
        result["executionDetails"] = told
    return result


def variables(verdict: Verdict) -> dict[str, Any]:
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


def failure_details(verdict: Verdict) -> "FailureDetailsTypeDef":
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
