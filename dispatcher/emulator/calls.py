"""The ten job-worker calls, one row each in CALLS: from a request to the machine, and back.

It must not know HTTP.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dispatcher.emulator.jobs import ActionType, Caller, CallError, Code, Job, Owner
from dispatcher.emulator.machine import Machine
from dispatcher.emulator.model import input_of, structure
from dispatcher.emulator.options import Options
from dispatcher.emulator.shapes import Record, complaint

ACCOUNT = "123456789012"
REGION = "us-east-1"
OUTPUT_VARIABLES_BYTES = 122880  # per action, says AWS's user guide

Request = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """The body (None is an empty one), and whether the call changed a job's state."""

    body: dict[str, Any] | None
    applied: bool


@dataclass(frozen=True)
class Call:
    name: str
    owner: Owner
    shape: Record
    answer: Callable[["Call", Machine, Request], Answer]

    def run(self, machine: Machine, request: object) -> Answer:
        """Raises CallError, of ValidationException too if the request is not as it should be."""
        wrong = complaint(self.shape, request)
        if wrong is not None or not isinstance(request, dict):
            raise CallError(machine.options.constraint, wrong or "")
        return self.answer(self, machine, request)

    def caller(self, request: Request) -> Caller:
        return Caller(self.owner, request["jobId"], request.get("clientToken"))


def poll(call: Call, machine: Machine, request: Request) -> Answer:
    query = request.get("queryParam") if call.owner is Owner.CUSTOM else None
    action_type = ActionType(**{part: request["actionTypeId"][part] for part in ACTION_TYPE})
    jobs = machine.poll(call.owner, action_type, request.get("maxBatchSize"), query or {})
    if call.owner is Owner.CUSTOM:
        shown = [custom_job(job, machine) for job in jobs]
    else:
        shown = [third_party_job(job) for job in jobs]
    return Answer({"jobs": shown}, applied=bool(jobs))


def details(call: Call, machine: Machine, request: Request) -> Answer:
    job = machine.details(call.caller(request))
    shown: dict[str, Any] = {"id": job.id, "data": job_data(job, machine)}
    if call.owner is Owner.CUSTOM:
        shown["accountId"] = ACCOUNT
    elif job.nonce is not None:  # before the first hand-out there is none
        shown["nonce"] = job.nonce
    return Answer({"jobDetails": shown}, applied=False)


def acknowledge(call: Call, machine: Machine, request: Request) -> Answer:
    status, applied = machine.acknowledge(call.caller(request), request["nonce"])
    return Answer({"status": status}, applied)


def succeed(call: Call, machine: Machine, request: Request) -> Answer:
    token = request.get("continuationToken")
    if call.owner is Owner.CUSTOM:
        check_output_variables(request.get("outputVariables") or {}, token)
    return Answer(None, machine.succeed(call.caller(request), call.name, request, token))


def fail(call: Call, machine: Machine, request: Request) -> Answer:
    return Answer(None, machine.fail(call.caller(request), call.name, request))


def check_output_variables(variables: Mapping[str, str], token: str | None) -> None:
    if variables and token is not None:
        raise CallError(
            Code.VALIDATION, "outputVariables cannot be given together with a continuationToken"
        )
    texts = (*variables.keys(), *variables.values())
    if sum(len(text.encode(errors="surrogatepass")) for text in texts) > OUTPUT_VARIABLES_BYTES:
        raise CallError(
            Code.OUTPUT_VARIABLES_SIZE_EXCEEDED,
            f"The output variables exceed {OUTPUT_VARIABLES_BYTES} bytes",
        )


def third_party_job(job: Job) -> dict[str, Any]:
    return {"clientId": job.work.client_id, "jobId": job.id}


def custom_job(job: Job, machine: Machine) -> dict[str, Any]:
    data = job_data(job, machine)
    return {"id": job.id, "data": data, "nonce": job.nonce, "accountId": ACCOUNT}


def job_data(job: Job, machine: Machine) -> dict[str, Any]:
    shown = {
        "actionTypeId": asdict(job.work.action_type),
        "actionConfiguration": {"configuration": dict(job.work.configuration)},
        "pipelineContext": pipeline_context(job, machine.options),
        "inputArtifacts": [],
        "outputArtifacts": [],
        "artifactCredentials": machine.session_keys(job).shown,
        **job.work.artifacts,
    }
    if job.continuation_token is not None:
        shown["continuationToken"] = job.continuation_token
    return shown


def pipeline_context(job: Job, options: Options) -> dict[str, Any]:
    work = job.work
    custom = work.action_type.owner == Owner.CUSTOM
    action = {"name": work.action}
    if custom or options.execution_id != "absent":
        of_job = options.execution_id == "job"
        action["actionExecutionId"] = job.id if of_job else work.action_execution_id
    shown: dict[str, Any] = {
        "pipelineName": work.pipeline,
        "stage": {"name": work.stage},
        "action": action,
    }
    if custom:  # AWS's model: not for third-party jobs
        shown["pipelineArn"] = f"arn:aws:codepipeline:{REGION}:{ACCOUNT}:{work.pipeline}"
        shown["pipelineExecutionId"] = work.pipeline_execution_id
    return shown


ACTION_TYPE = structure("ActionTypeId").required

CUSTOM, THIRD_PARTY = Owner.CUSTOM, Owner.THIRD_PARTY
CALLS = {
    name: Call(name, owner, input_of(name), answer)
    for name, owner, answer in (
        ("PollForJobs", CUSTOM, poll),
        ("GetJobDetails", CUSTOM, details),
        ("AcknowledgeJob", CUSTOM, acknowledge),
        ("PutJobSuccessResult", CUSTOM, succeed),
        ("PutJobFailureResult", CUSTOM, fail),
        ("PollForThirdPartyJobs", THIRD_PARTY, poll),
        ("GetThirdPartyJobDetails", THIRD_PARTY, details),
        ("AcknowledgeThirdPartyJob", THIRD_PARTY, acknowledge),
        ("PutThirdPartyJobSuccessResult", THIRD_PARTY, succeed),
        ("PutThirdPartyJobFailureResult", THIRD_PARTY, fail),
    )
}
