"""The emulator's own calls, for tests and judges: make jobs, look at them, read what was called.

It must not know HTTP: decoded JSON in, JSON-ready values out, AdminError when the request is wrong.
"""

import json
import re
from collections import deque
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from dispatcher.emulator.calls import ACTION_TYPE
from dispatcher.emulator.machine import ActionType, Job, Machine, Owner, Result, Rules, Work
from dispatcher.emulator.shapes import Number, Record, Text, TextMap, complaint

NAMES = {"pipelineName": "emulated", "stageName": "Stage", "actionName": "Action"}
NEW_JOBS = Record(
    {"actionTypeId": Record(ACTION_TYPE)},
    {
        "clientId": Text(),
        "clientToken": Text(),
        "configuration": TextMap(),
        "count": Number(1, 100_000),
        **dict.fromkeys(NAMES, Text()),
    },
    closed=True,
)
NEW_ACTION_TYPE = Record(
    {"actionTypeId": Record(ACTION_TYPE)},
    {"queryable": Text(), "jobTimeout": Number(0.001, 43200, whole=False)},
    closed=True,
)
# By the names of members: what a request holds under any of these is not for a log.
SECRET = re.compile("token|nonce|secret|passw|credential|key", re.IGNORECASE)
MASK = "***"
DEEPEST = 8  # no request that AWS knows is nested so deep


class AdminError(Exception):
    """The request to an admin call is wrong; the text says how."""


class CallLog:
    """What was asked, in order, with secrets masked. Kept as JSON: it is long and seldom read."""

    def __init__(self, most: int = 1_000_000) -> None:
        self._lines: deque[str] = deque(maxlen=most)

    def add(
        self,
        *,
        at: float,
        operation: str,
        request: Any,
        status: int,
        error: str | None,
        applied: bool,
    ) -> None:
        job_id = request.get("jobId") if isinstance(request, dict) else None
        entry = {
            "at": at,
            "operation": operation,
            "jobId": job_id,
            "request": mask(request),
            "status": status,
            "error": error,
            "applied": applied,
        }
        self._lines.append(json.dumps(entry))

    def text(self) -> str:
        return f"[{','.join(self._lines)}]"


def mask(value: Any, deep: int = 0) -> Any:
    if deep > DEEPEST:
        return MASK
    if isinstance(value, dict):
        return {
            key: MASK if SECRET.search(key) else mask(item, deep + 1) for key, item in value.items()
        }
    return [mask(item, deep + 1) for item in value] if isinstance(value, list) else value


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
    }


def show_result(result: Result) -> dict[str, Any]:
    """All of the request but the client's token: a judge reads the rest."""
    request = dict(result.request)
    if "clientToken" in request:
        request["clientToken"] = MASK
    return {"operation": result.operation, "request": request, "at": result.at}


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
    )
