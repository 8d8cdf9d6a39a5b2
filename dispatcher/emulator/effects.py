"""What a fault does to a job right before a call is handled, and to what the call then shows.

It must not know HTTP, nor which rule takes effect when.
"""

from typing import Any

from dispatcher.emulator.calls import CALLS
from dispatcher.emulator.faults import POLLS, Kind, Rule
from dispatcher.emulator.jobs import ENDED, Job, Status
from dispatcher.emulator.machine import Machine

NEVER_CURRENT = "0" * 32  # stands for the previous nonce of a job that was handed out but once
ENDS = {Kind.ABANDON: Machine.abandon, Kind.TIME_OUT: Machine.time_out}
ABOUT_A_JOB = {Kind.DUPLICATE_OFFER, Kind.STALE_NONCE, Kind.FOREIGN_ACKNOWLEDGE, *ENDS}


def possible(machine: Machine, rule: Rule, operation: str, request: dict[str, Any]) -> bool:
    """Whether the fault would change anything for this call."""
    return rule.kind not in ABOUT_A_JOB or subject(machine, rule, operation, request) is not None


def subject(machine: Machine, rule: Rule, operation: str, request: dict[str, Any]) -> Job | None:
    """The job that the fault would be about, if there is one."""
    if operation in POLLS:
        wanted = Status.DISPATCHED if rule.kind is Kind.DUPLICATE_OFFER else Status.QUEUED
        chosen = rule.job_id if rule.chooses else None
        found = [job for job in machine.jobs(chosen) if job.status is wanted]
        return next((job for job in found if asks_for(operation, request, job)), None)
    job_id = request.get("jobId")
    named = machine.jobs(job_id) if isinstance(job_id, str) else []
    return next((job for job in named if fits(rule.kind, job)), None)


def asks_for(operation: str, request: dict[str, Any], job: Job) -> bool:
    """Whether this poll's queue is the job's."""
    action_type, query = job.work.action_type, request.get("queryParam") or {}
    return (
        action_type.owner == CALLS[operation].owner
        and vars(action_type) == request.get("actionTypeId")
        and isinstance(query, dict)
        and query.items() <= job.work.configuration.items()
    )


def fits(kind: Kind, job: Job) -> bool:
    if kind in ENDS:
        return job.status not in ENDED
    if kind is Kind.FOREIGN_ACKNOWLEDGE and job.status not in {Status.DISPATCHED, Status.QUEUED}:
        return False
    return job.nonce is not None


def strike(machine: Machine, rule: Rule, operation: str, request: dict[str, Any]) -> None:
    """Raises nothing: a fault that became impossible does nothing."""
    job = subject(machine, rule, operation, request)
    if job is None:
        return
    if rule.kind is Kind.DUPLICATE_OFFER:
        machine.offer_again(job)
    elif rule.kind is Kind.FOREIGN_ACKNOWLEDGE:
        machine.begin_elsewhere(job)
    elif rule.kind in ENDS:
        ENDS[rule.kind](machine, job.id)


def show_stale_nonces(machine: Machine, body: dict[str, Any]) -> None:
    shown = body["jobs"] if "jobs" in body else [body["jobDetails"]]
    for entry in shown:
        (job,) = machine.jobs(entry["id"])
        entry["nonce"] = job.previous_nonce or NEVER_CURRENT
