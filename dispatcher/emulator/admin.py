"""The emulator's own calls, for tests and judges: make jobs and faults, read what was called.

It must not know HTTP: decoded JSON in, JSON-ready values out, AdminError when the request is wrong.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, get_args

from dispatcher.emulator.calls import ACTION_TYPE, CALLS
from dispatcher.emulator.effects import ENDS
from dispatcher.emulator.faults import Fault, Faults, Kind, Rule, When
from dispatcher.emulator.jobs import ActionType, Job, Owner, Result, Rules, Work
from dispatcher.emulator.logs import MASK
from dispatcher.emulator.machine import Machine
from dispatcher.emulator.model import named
from dispatcher.emulator.operations import OPERATIONS
from dispatcher.emulator.options import ERROR_NAME, KINDS, Options, camel_case
from dispatcher.emulator.places import PIPELINE
from dispatcher.emulator.shapes import Number, Record, Shape, Text, complaint

NAMES = {"pipelineName": PIPELINE, "stageName": "Stage", "actionName": "Action"}
NEW_JOBS = Record(
    {"actionTypeId": Record(ACTION_TYPE, closed=True)},
    {
        "clientId": Text(),
        "clientToken": named("ClientToken"),
        "configuration": named("ActionConfigurationMap"),
        "count": Number(1, 100_000),
        "pipelineName": named("PipelineName"),
        "stageName": named("StageName"),
        "actionName": named("ActionName"),
        "inputArtifacts": named("ArtifactList"),
        "outputArtifacts": named("ArtifactList"),
        "encryptionKey": named("EncryptionKey"),
    },
    closed=True,
)
ARTIFACTS = ("inputArtifacts", "outputArtifacts", "encryptionKey")
NEW_ACTION_TYPE = Record(
    {"actionTypeId": Record(ACTION_TYPE, closed=True)},
    {"queryable": Text(), "jobTimeout": Number(0.001, 43200, whole=False)},
    closed=True,
)
NEW_FAULT = Record(
    {"kind": Text(tuple(Kind))},
    {
        "operation": Text((*CALLS, *OPERATIONS)),
        "jobId": Text(),
        "count": Number(1),
        "probability": Number(0, 1, whole=False),
        "after": Number(0),
        "seed": Number(),
        "error": Text(pattern=re.compile(f"{ERROR_NAME}|[0-9]{{3}}")),
        "status": Number(400, 599),
        "seconds": Number(0, 3600, whole=False),
        "bytes": Number(0),
        "when": Text(tuple(When)),
    },
    closed=True,
)
RELEASE = Record(optional={"id": Text()}, closed=True)
OF_OPTION: dict[Any, Shape] = {
    timedelta: Number(0, 10**9, whole=False),
    int: Number(1),
    float: Number(0, 10**9, whole=False),
    str: Text(),
}
OPTIONS = Record(
    optional={
        camel_case(name): OF_OPTION.get(kind, Text(get_args(kind))) for name, kind in KINDS.items()
    },
    closed=True,
)
CLOCK = Record({"offset": Number(-(10**9), 10**9, whole=False)}, closed=True)


class AdminError(Exception):
    """The request to an admin call is wrong; the text says how."""


def add_jobs(machine: Machine, request: object) -> dict[str, Any]:
    """Queue `count` alike jobs. A custom job has no client: clientId and clientToken are unused."""
    asked = checked(NEW_JOBS, request)
    action_type = to_action_type(asked)
    if action_type.owner not in set(Owner):
        raise AdminError("jobs are only of owner ThirdParty or Custom")
    works = [to_work(action_type, asked) for _ in range(asked.get("count") or 1)]
    return {"jobIds": [job.id for job in machine.submit(works)]}


def add_action_type(machine: Machine, request: object) -> dict[str, Any]:
    asked = checked(NEW_ACTION_TYPE, request)
    timeout = asked.get("jobTimeout")
    rules = Rules(asked.get("queryable"), None if timeout is None else timedelta(seconds=timeout))
    try:
        machine.define(to_action_type(asked), rules)
    except ValueError as error:
        raise AdminError(str(error)) from error
    return {}


def show_jobs(machine: Machine, job_id: str | None) -> list[dict[str, Any]]:
    return [show_job(job) for job in machine.jobs(job_id)]


def show_job(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "actionTypeId": vars(job.work.action_type),
        "status": job.status,
        "result": None if job.result is None else show_result(job.result),
        "history": [{"status": status, "at": at} for status, at in job.history],
        "next": job.next,
        "actionExecutionId": job.work.action_execution_id,
        "inputArtifacts": job.work.artifacts.get("inputArtifacts") or [],
        "outputArtifacts": job.work.artifacts.get("outputArtifacts") or [],
    }


def show_result(result: Result) -> dict[str, Any]:
    """All of the request but the client's token: a judge reads the rest."""
    request = dict(result.request)
    if "clientToken" in request:
        request["clientToken"] = MASK
    return {"operation": result.operation, "request": request, "at": result.at}


def end_job(machine: Machine, job_id: str, how: str) -> dict[str, Any]:
    if how not in {kind.value for kind in ENDS}:
        raise AdminError(f"a job can be sent to {' or '.join(ENDS)}, not to {how}")
    try:
        return show_job(ENDS[Kind(how)](machine, job_id))
    except ValueError as error:
        raise AdminError(str(error)) from error


def add_faults(faults: Faults, request: object) -> list[Fault]:
    """One rule or a list of them: all, or none if one of them is wrong."""
    if not isinstance(request, list):
        return faults.add([to_rule(request)])
    rules = []
    for number, asked in enumerate(request, 1):
        try:
            rules.append(to_rule(asked))
        except AdminError as error:
            raise AdminError(f"rule {number}: {error}") from error
    return faults.add(rules)


def to_rule(request: object) -> Rule:
    asked = {
        name: value for name, value in checked(NEW_FAULT, request).items() if value is not None
    }
    kind, when = Kind(asked.pop("kind")), asked.pop("when", None)
    try:
        return Rule(
            kind,
            job_id=asked.pop("jobId", None),
            when=None if when is None else When(when),
            **asked,
        )
    except ValueError as error:
        raise AdminError(str(error)) from error


def find_faults(faults: Faults, fault_id: str | None) -> list[Fault]:
    found = faults.get(fault_id)
    if fault_id is not None and not found:
        raise AdminError(f"there is no fault {fault_id}")
    return found


def faults_to_release(faults: Faults, request: object) -> list[Fault]:
    return find_faults(faults, checked(RELEASE, request).get("id"))


def clock_offset(request: object) -> float:
    return float(checked(CLOCK, request)["offset"])


def to_options(base: Options, request: object) -> Options:
    """`base`, with what the request says instead. Durations are seconds."""
    asked = checked(OPTIONS, request)
    given: dict[str, Any] = {name: asked.get(camel_case(name)) for name in KINDS}
    for name, kind in KINDS.items():
        if kind is timedelta and given[name] is not None:
            given[name] = timedelta(seconds=given[name])
    try:
        return replace(base, **{name: value for name, value in given.items() if value is not None})
    except ValueError as error:
        raise AdminError(str(error)) from error


def nothing(request: object) -> None:
    checked(Record(closed=True), request)


def only(given: Iterable[str], *known: str) -> None:
    """Of a query: what is mistyped would otherwise mean everything."""
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise AdminError(f"the query parameter {unknown[0]} is not known here")


def checked(shape: Record, request: object) -> Mapping[str, Any]:
    wrong = complaint(shape, request)
    if wrong is not None or not isinstance(request, dict):
        raise AdminError(wrong or "the request must be a JSON object")
    return request


def to_action_type(asked: Mapping[str, Any]) -> ActionType:
    return ActionType(**{part: asked["actionTypeId"][part] for part in ACTION_TYPE})


def to_work(action_type: ActionType, asked: Mapping[str, Any]) -> Work:
    third_party = action_type.owner == Owner.THIRD_PARTY
    client_id, token = asked.get("clientId"), asked.get("clientToken")
    if third_party and (client_id is None or token is None):
        raise AdminError("a third-party job needs clientId and clientToken")
    pipeline, stage, action = (asked.get(name) or default for name, default in NAMES.items())
    return Work(
        action_type=action_type,
        configuration=asked.get("configuration") or {},
        pipeline=pipeline,
        stage=stage,
        action=action,
        client_id=client_id if third_party else None,
        client_token=token if third_party else None,
        artifacts={name: asked[name] for name in ARTIFACTS if asked.get(name) is not None},
    )
