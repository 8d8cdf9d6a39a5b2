"""The decisions in a job's life: pure functions that say what AWS's answers and policies mean.

Whose a job is, when AWS answers an acknowledgement, `handshake` says."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, assert_never

from dispatcher.engine.handshake import Acknowledged
from dispatcher.engine.model import (
    Ack,
    Again,
    Arm,
    Begun,
    Crew,
    Dead,
    Done,
    How,
    JobDetails,
    Kind,
    Overdue,
    Park,
    Release,
    Store,
    Verdict,
)
from dispatcher.engine.times import (
    LEAVE_FOR,
    PUT_FOR,
    PUT_PAUSE_LEAST,
    PUT_PAUSE_MOST,
    RETRY_AFTER,
    RETRY_MOST,
)
from dispatcher.sdk import (
    ActionSpec,
    ConfigurationError,
    Continue,
    Failure,
    OnCrash,
    Outcome,
    Owner,
    Retry,
    Revision,
    Succeeded,
)

MAX_STARTS = 3  # of a `rerun` handler, asked-for retries apart
POISON = 2  # predecessors in a row that were gone before they acknowledged


def leave() -> Release:
    """Not a death: its owner lives, and gives the job back."""
    return Release(LEAVE_FOR, "the acknowledgement is unknown")


@dataclass(frozen=True)
class Start:
    """Run the handler."""


@dataclass(frozen=True)
class Put:
    """Send the verdict that is stored since `age`."""

    verdict: Verdict
    age: timedelta


Next = Start | Store | Put


def must_acknowledge(begun: Begun) -> bool:
    return begun.ack is Ack.NO


def after_begin(begun: Begun, spec: ActionSpec) -> Next:
    """For what needs no acknowledgement: ACKED, AGAIN, and SEND of an acknowledged job."""
    match begun.how:
        case How.SEND:
            return _stored(begun)
        case How.AGAIN:
            return Start()
        case How.ACKED:
            return _after_a_crash(begun, spec)
        case How.FRESH | How.INHERITED:
            raise ValueError(f"{begun.how} acknowledges first")
    assert_never(begun.how)


def after_acknowledgement(begun: Begun, step: Acknowledged, spec: ActionSpec) -> Next:
    if begun.how is How.SEND:
        return _stored(begun)
    if begun.how is How.INHERITED and begun.deaths >= POISON:
        return Store(gave_up("The worker died again and again before it could take the job."))
    return _after_a_crash(begun, spec) if step.by_predecessor else Start()


def _after_a_crash(begun: Begun, spec: ActionSpec) -> Next:
    if spec.on_crash is OnCrash.RERUN and begun.starts - begun.retries < MAX_STARTS:
        return Start()
    return Store(
        gave_up("The worker that ran the job died. The work may be done in part, or whole.")
    )


def _stored(begun: Begun) -> Put:
    if begun.verdict is None:
        raise ValueError("SEND without a verdict")
    return Put(begun.verdict, begun.verdict_age)


# How a job that was acknowledged may be begun.
ACKNOWLEDGED = frozenset({How.ACKED, How.AGAIN, How.SEND})


def without_details(begun: Begun) -> Next:
    if begun.how is How.SEND:
        return _stored(begun)
    return Store(gave_up("CodePipeline does not give the job's details any more."))


def may_settle(spec: ActionSpec) -> frozenset[How]:
    """What a settle message, which never starts a handler, may take."""
    fail = spec.on_crash is OnCrash.FAIL
    return frozenset({How.SEND, How.ACKED}) if fail else frozenset({How.SEND})


def settles(overdue: Overdue, spec: ActionSpec) -> bool:
    """Whether the sweep publishes this as a settle message, or as the job's own."""
    if overdue.ack is Ack.NO or overdue.waits:
        return False
    return overdue.verdict or spec.on_crash is OnCrash.FAIL


def gave_up(message: str) -> Verdict:
    return Verdict(Kind.FAILURE, message, failure_type="SystemUnavailable", ours=True)


def timed_out(spec: ActionSpec) -> Verdict:
    minutes = spec.time_limit / timedelta(minutes=1)
    text = f"The job ran longer than its time limit of {minutes:g} minutes."
    return Verdict(Kind.FAILURE, text, failure_type="JobFailed", ours=True)


def bug(reference: str) -> Verdict:
    """Never the exception's text: it may quote a secret. The log knows the reference."""
    text = f"The action's worker failed unexpectedly. Its log has the details under {reference}."
    return Verdict(Kind.FAILURE, text, failure_type="JobFailed", ours=True)


def ended_by_operator(reason: str) -> Verdict:
    text = f"An operator ended the job: {reason}" if reason else "An operator ended the job."
    return Verdict(Kind.FAILURE, text, failure_type="JobFailed", ours=True)


def check_outputs(
    outcome: Outcome, details: JobDetails, written: Collection[str], starts: int
) -> None:
    """A green action whose artifact is not there fails a later one, far from its cause.

    What an earlier run, or an earlier job of a continued action, wrote is not known here.
    """
    if isinstance(outcome, Continue) or details.continuation is not None or starts > 1:
        return
    for place in details.belongings.outputs:
        if place.name not in written:
            raise ConfigurationError(
                f"The action declares the output artifact {place.name}, which its provider did not "
                "write; take it out of the action, or correct the action's configuration."
            )


def returned(outcome: Outcome, owner: Owner) -> Verdict:
    match outcome:
        case Succeeded():
            return Verdict(
                Kind.SUCCESS,
                outcome.summary,
                external_id=outcome.external_id,
                revision=_as_aws(outcome.revision),
                # AWS has no place for the variables of a third-party action.
                variables=outcome.variables if owner is Owner.CUSTOM else None,
            )
        case Continue():
            return Verdict(
                Kind.CONTINUE,
                outcome.summary,
                external_id=outcome.external_id,
                percent=outcome.percent,
                token=outcome.token,
            )
    assert_never(outcome)


def _as_aws(revision: Revision | None) -> Mapping[str, Any] | None:
    if revision is None:
        return None
    fields = {
        "revision": revision.revision,
        "changeIdentifier": revision.change_identifier,
        "created": revision.created and revision.created.isoformat(),
        "revisionSummary": revision.summary,
    }
    return {name: value for name, value in fields.items() if value is not None}


def failed(failure: Failure) -> Verdict:
    return Verdict(
        Kind.FAILURE,
        failure.message,
        failure_type=failure.type,
        external_id=failure.external_id,
    )


def raised_retry(error: BaseException, spec: ActionSpec, retries: int) -> Again | Store | None:
    """What a Retry, or an exception named in `retry_on`, asks for; None for any other."""
    if not isinstance(error, (Retry, *spec.retry_on)):
        return None
    if retries >= spec.max_attempts - 1:
        text = f"The action asked to be run again more than {spec.max_attempts - 1} times."
        return Store(gave_up(text))
    after = error.after if isinstance(error, Retry) else RETRY_AFTER
    # Capped before it is doubled: neither a long delay nor many retries may overflow.
    delay = min(min(after, RETRY_MOST) * 2 ** min(retries, 20), RETRY_MOST)
    return Again(delay, type(error).__name__)


def put_accepted(verdict: Verdict) -> Done:
    return Done(accepted=True, outcome=verdict.kind)


def put_in_wrong_state(verdict: Verdict, ack: Ack) -> Done | Park:
    """InvalidJobState: over, or already told, if we surely acknowledged; else not our job."""
    if ack is Ack.SURE:
        return Done(accepted=False, outcome="closed")
    return Park("AWS has the job in another state", forget=verdict.ours)


def may_put_unstored(spec: ActionSpec) -> bool:
    """Without the ledger's leave: nobody else may start a `fail` job, and AWS takes one result."""
    return spec.on_crash is OnCrash.FAIL


def put_refused(why: str) -> Dead:
    """AWS would refuse the same result again; what it is stays for an operator."""
    return Dead(why=why)


def put_later(since: timedelta, why: str) -> Arm:
    """AWS has not taken it yet. `since`: the age of the verdict; the pause grows with it."""
    if since >= PUT_FOR:
        return Dead(why=why)
    pause = min(max(since / 4, PUT_PAUSE_LEAST), PUT_PAUSE_MOST)
    return Release(pause, f"not put yet, {why}")


def room(crew: Crew, waiting: int) -> int:
    """How many jobs to ask for. Queued records are not counted: a lost message takes no room."""
    return 0 if crew.paused else max(crew.slots - crew.busy - waiting, 0)
