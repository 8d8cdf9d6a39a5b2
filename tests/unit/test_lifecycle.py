"""Each decision in a job's life, one row of the rules a test."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dispatcher.engine import handshake, lifecycle
from dispatcher.engine.handshake import Acknowledged, Handshake, Leave, ReadAgain, Send
from dispatcher.engine.lifecycle import (
    Put,
    Start,
)
from dispatcher.engine.model import (
    Ack,
    Again,
    Begun,
    Crew,
    Dead,
    Done,
    How,
    JobRef,
    Kind,
    Overdue,
    Park,
    Release,
    Store,
    Verdict,
)
from dispatcher.engine.times import Pace, Times
from dispatcher.sdk import (
    ActionSpec,
    ActionType,
    Continue,
    JobFailed,
    OnCrash,
    Owner,
    Retry,
    Revision,
    Succeeded,
    SystemUnavailable,
)

TYPE = ActionType("Deploy", Owner.THIRD_PARTY, "Acme", "1")
REF = JobRef("job-1", "client-1", TYPE, "eu-west-1")
FAIL = ActionSpec(TYPE)
RERUN = ActionSpec(TYPE, on_crash=OnCrash.RERUN)
WELL = Verdict(Kind.SUCCESS, "well")
FRESH = Handshake(How.FRESH, "nonce-1", frozenset())
INHERITED = Handshake(How.INHERITED, "nonce-1", frozenset({"nonce-1"}))
SEND = Handshake(How.SEND, "nonce-1", frozenset())
UNANSWERED = replace(FRESH, unanswered=frozenset({"nonce-1"}))
NONE = timedelta()


def begun(
    how: How, ack: Ack = Ack.SURE, starts: int = 0, retries: int = 0, deaths: int = 0
) -> Begun:
    return Begun(
        how=how,
        ref=REF,
        attempt=1,
        starts=starts,
        retries=retries,
        deaths=deaths,
        ack=ack,
        offer_age=NONE,
        nonce="nonce-1",
        tried=frozenset(),
        verdict=WELL if how is How.SEND else None,
        verdict_age=timedelta(seconds=7),
    )


def gives_up(step: object) -> bool:
    return (
        isinstance(step, Store)
        and step.verdict.failure_type == "SystemUnavailable"
        and step.verdict.ours
    )


# Which nonce may be sent


def test_an_acknowledgement_sets_out_with_what_begin_answered() -> None:
    inherited = replace(begun(How.INHERITED, Ack.NO), tried=frozenset({"nonce-1"}))

    assert handshake.opening(inherited) == INHERITED


def test_a_job_whose_nonce_nobody_knows_is_parked() -> None:
    def unknown(how: How) -> object:
        return handshake.opening(replace(begun(how, Ack.NO), nonce=None))

    assert unknown(How.INHERITED) == Park("no nonce is known")
    assert unknown(How.SEND) == Park("no nonce is known", forget=True)


def test_a_nonce_that_was_read_in_time_is_sent() -> None:
    assert handshake.next_try(FRESH, fresh=True) == Send("nonce-1")


def test_a_nonce_that_was_read_late_is_not_sent() -> None:
    assert isinstance(handshake.next_try(FRESH, fresh=False), Park)


def test_a_nonce_that_was_tried_is_sent_however_late() -> None:
    assert handshake.next_try(INHERITED, fresh=False) == Send("nonce-1")


def test_a_late_nonce_that_was_not_tried_is_read_once_more() -> None:
    known = replace(INHERITED, nonce="nonce-2")

    assert handshake.next_try(known, fresh=False) == ReadAgain()
    assert isinstance(handshake.next_try(replace(known, read_again=True), fresh=False), Park)


def test_a_late_nonce_whose_try_was_unanswered_leaves_the_record_running() -> None:
    assert handshake.next_try(UNANSWERED, fresh=False) == Leave()


def test_a_window_that_is_over_forgets_a_stored_verdict_only_of_what_would_have_sent_it() -> None:
    late, sent = handshake.next_try(FRESH, fresh=False), handshake.next_try(SEND, fresh=False)

    assert isinstance(late, Park)
    assert isinstance(sent, Park)
    assert (late.forget, sent.forget) == (False, True)


# What AWS answers to an acknowledgement


@pytest.mark.parametrize("known", [FRESH, INHERITED, SEND])
def test_an_accepted_acknowledgement_is_sure(known: Handshake) -> None:
    assert handshake.accepted(known, "InProgress") == Acknowledged(Ack.SURE)


@pytest.mark.parametrize("status", ["Queued", "Succeeded", "Failed", "TimedOut", ""])
def test_another_status_is_parked(status: str) -> None:
    assert handshake.accepted(FRESH, status) == Park(f"acknowledged as {status}")
    assert handshake.accepted(SEND, status) == Park(f"acknowledged as {status}", forget=True)


def test_a_fresh_jobs_refused_nonce_is_somebody_elses() -> None:
    assert handshake.refused_nonce(FRESH, "nonce-1", fresh=True) == Park("somebody else's")
    assert handshake.refused_nonce(FRESH, "nonce-2", fresh=True) == Park("somebody else's")


def test_a_refused_nonce_whose_earlier_try_was_unanswered_was_acknowledged_by_that_try() -> None:
    assert handshake.refused_nonce(UNANSWERED, "nonce-1", fresh=True) == Acknowledged(Ack.SURE)
    assert handshake.refused_nonce(UNANSWERED, "nonce-1", fresh=False) == Acknowledged(Ack.PRESUMED)


def test_an_unanswered_try_with_a_nonce_that_is_no_longer_current_is_somebody_elses() -> None:
    assert isinstance(handshake.refused_nonce(UNANSWERED, "nonce-2", fresh=True), Park)


def test_an_inherited_jobs_refused_nonce_was_acknowledged_by_the_predecessor() -> None:
    assert handshake.refused_nonce(INHERITED, "nonce-1", fresh=True) == Acknowledged(
        Ack.SURE, by_predecessor=True
    )
    assert handshake.refused_nonce(INHERITED, "nonce-1", fresh=False) == Acknowledged(
        Ack.PRESUMED, by_predecessor=True
    )


def test_an_inherited_jobs_own_unanswered_try_may_have_been_the_predecessors_too() -> None:
    known = replace(UNANSWERED, how=How.INHERITED)

    assert handshake.refused_nonce(known, "nonce-1", fresh=True) == Acknowledged(
        Ack.SURE, by_predecessor=True
    )


def test_another_current_nonce_that_was_tried_is_sent() -> None:
    known = replace(INHERITED, nonce="nonce-2")

    assert handshake.refused_nonce(known, "nonce-1", fresh=True) == Send("nonce-1")


def test_another_current_nonce_that_nobody_of_us_tried_is_somebody_elses() -> None:
    assert handshake.refused_nonce(INHERITED, "nonce-9", fresh=True) == Park("somebody else's")


def test_a_stored_verdict_of_a_job_that_is_somebody_elses_is_forgotten() -> None:
    assert handshake.refused_nonce(SEND, "nonce-1", fresh=True) == Park("somebody else's", True)


def test_a_stored_verdict_of_a_job_that_is_ours_by_evidence_is_put() -> None:
    known = replace(SEND, tried=frozenset({"nonce-1"}))

    assert handshake.refused_nonce(known, "nonce-1", fresh=True) == Acknowledged(Ack.SURE)


def test_any_other_refusal_is_parked() -> None:
    assert handshake.refused_otherwise(INHERITED) == Park("acknowledgement refused")
    assert handshake.refused_otherwise(SEND) == Park("acknowledgement refused", forget=True)


def test_unanswered_tries_leave_the_record_running() -> None:
    assert handshake.out_of_tries(UNANSWERED) == Leave()


def test_throttled_tries_leave_only_what_has_evidence() -> None:
    assert isinstance(handshake.out_of_tries(FRESH), Park)
    assert handshake.out_of_tries(INHERITED) == Leave()
    assert handshake.out_of_tries(SEND) == Leave()


def test_what_is_left_for_recovery_is_tried_again_soon() -> None:
    assert lifecycle.leave() == Release(timedelta(seconds=5), "the acknowledgement is unknown")


# What follows begin and the acknowledgement


@pytest.mark.parametrize("how", How)
def test_only_what_is_not_acknowledged_is_acknowledged(how: How) -> None:
    assert lifecycle.must_acknowledge(begun(how, Ack.NO))
    assert not lifecycle.must_acknowledge(begun(how, Ack.PRESUMED))
    assert not lifecycle.must_acknowledge(begun(how, Ack.SURE))


def test_a_due_retry_starts_the_handler() -> None:
    assert lifecycle.after_begin(begun(How.AGAIN, starts=3, retries=1), FAIL) == Start()


def test_a_stored_verdict_is_put() -> None:
    assert lifecycle.after_begin(begun(How.SEND), FAIL) == Put(WELL, timedelta(seconds=7))


def test_a_stored_verdict_that_is_not_there_is_a_bug() -> None:
    with pytest.raises(ValueError, match="without a verdict"):
        lifecycle.after_begin(replace(begun(How.SEND), verdict=None), FAIL)


@pytest.mark.parametrize("how", [How.FRESH, How.INHERITED])
def test_what_must_be_acknowledged_first_goes_no_further(how: How) -> None:
    with pytest.raises(ValueError, match="acknowledges first"):
        lifecycle.after_begin(begun(how), FAIL)


def test_a_job_whose_worker_died_fails() -> None:
    assert gives_up(lifecycle.after_begin(begun(How.ACKED, starts=0), FAIL))


def test_a_job_that_may_run_again_does_so_at_most_three_times_besides_retries() -> None:
    steps = [
        lifecycle.after_begin(begun(How.ACKED, starts=starts, retries=retries), RERUN)
        for starts, retries in [(0, 0), (2, 0), (4, 2), (3, 0), (5, 2)]
    ]

    assert steps[:3] == [Start()] * 3
    assert all(gives_up(step) for step in steps[3:])


@pytest.mark.parametrize("how", [How.FRESH, How.INHERITED])
@pytest.mark.parametrize("spec", [FAIL, RERUN])
def test_an_acknowledged_job_starts_its_handler(how: How, spec: ActionSpec) -> None:
    step = lifecycle.after_acknowledgement(begun(how, Ack.NO), Acknowledged(Ack.SURE), spec)

    assert step == Start()


def test_a_job_that_a_dead_predecessor_acknowledged_goes_by_the_policy() -> None:
    by_predecessor = Acknowledged(Ack.SURE, by_predecessor=True)
    inherited = begun(How.INHERITED, Ack.NO)

    assert gives_up(lifecycle.after_acknowledgement(inherited, by_predecessor, FAIL))
    assert lifecycle.after_acknowledgement(inherited, by_predecessor, RERUN) == Start()


@pytest.mark.parametrize("spec", [FAIL, RERUN])
@pytest.mark.parametrize("by_predecessor", [True, False])
def test_a_job_that_kills_its_workers_is_not_started_a_third_time(
    spec: ActionSpec, by_predecessor: bool
) -> None:
    third = begun(How.INHERITED, Ack.NO, deaths=2)
    step = Acknowledged(Ack.SURE, by_predecessor=by_predecessor)

    assert gives_up(lifecycle.after_acknowledgement(third, step, spec))
    assert not gives_up(
        lifecycle.after_acknowledgement(replace(third, deaths=1), Acknowledged(Ack.SURE), spec)
    )


def test_a_parked_verdict_is_put_after_the_new_acknowledgement() -> None:
    step = lifecycle.after_acknowledgement(begun(How.SEND, Ack.NO), Acknowledged(Ack.SURE), FAIL)

    assert step == Put(WELL, timedelta(seconds=7))


# Without details


def test_an_acknowledged_job_without_details_is_put_or_given_up() -> None:
    assert {How.ACKED, How.AGAIN, How.SEND} == lifecycle.ACKNOWLEDGED
    assert lifecycle.without_details(begun(How.SEND)) == Put(WELL, timedelta(seconds=7))
    assert gives_up(lifecycle.without_details(begun(How.ACKED)))
    assert gives_up(lifecycle.without_details(begun(How.AGAIN)))


# Settle messages


def test_a_settle_message_takes_the_dead_owners_jobs_only_where_the_policy_is_to_fail() -> None:
    assert lifecycle.may_settle(FAIL) == {How.SEND, How.ACKED}
    assert lifecycle.may_settle(RERUN) == {How.SEND}


@pytest.mark.parametrize(
    ("ack", "waits", "verdict", "of_fail", "of_rerun"),
    [
        (Ack.NO, False, False, False, False),
        (Ack.NO, False, True, False, False),
        (Ack.SURE, True, False, False, False),
        (Ack.SURE, False, True, True, True),
        (Ack.PRESUMED, False, True, True, True),
        (Ack.SURE, False, False, True, False),
        (Ack.PRESUMED, False, False, True, False),
    ],
)
def test_the_sweep_settles_what_needs_no_handler(
    ack: Ack, waits: bool, verdict: bool, of_fail: bool, of_rerun: bool
) -> None:
    overdue = Overdue(REF, ack, waits=waits, verdict=verdict)

    assert lifecycle.settles(overdue, FAIL) == of_fail
    assert lifecycle.settles(overdue, RERUN) == of_rerun


# What a handler's end means


def test_a_success_tells_all_that_aws_takes_of_a_custom_action() -> None:
    made = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    outcome = Succeeded(
        "done", "42", revision=Revision("r1", "c1", made, "why"), variables={"KEY": "value"}
    )

    assert lifecycle.returned(outcome, Owner.CUSTOM) == Verdict(
        Kind.SUCCESS,
        "done",
        external_id="42",
        revision={
            "revision": "r1",
            "changeIdentifier": "c1",
            "created": "2026-01-02T03:04:05+00:00",
            "revisionSummary": "why",
        },
        variables={"KEY": "value"},
    )


def test_a_third_party_success_brings_no_variables_and_a_revision_only_what_it_has() -> None:
    outcome = Succeeded(revision=Revision("r1", "c1"), variables={"KEY": "value"})

    verdict = lifecycle.returned(outcome, Owner.THIRD_PARTY)

    assert verdict.variables is None
    assert verdict.revision == {"revision": "r1", "changeIdentifier": "c1"}


def test_a_continuation_brings_its_token() -> None:
    verdict = lifecycle.returned(Continue("token", 50, "half", "42"), Owner.CUSTOM)

    assert verdict == Verdict(Kind.CONTINUE, "half", external_id="42", percent=50, token="token")
    assert "token'" not in repr(verdict)


def test_a_handlers_failure_is_its_own_and_not_ours() -> None:
    assert lifecycle.failed(SystemUnavailable("away", "42")) == Verdict(
        Kind.FAILURE, "away", failure_type="SystemUnavailable", external_id="42"
    )
    assert lifecycle.failed(JobFailed("no")).failure_type == "JobFailed"


def test_a_job_past_its_time_limit_failed() -> None:
    verdict = lifecycle.timed_out(replace(FAIL, time_limit=timedelta(minutes=90)))

    assert (verdict.kind, verdict.failure_type, verdict.ours) == (Kind.FAILURE, "JobFailed", True)
    assert "90 minutes" in verdict.message


def test_a_bug_names_its_log_lines_and_nothing_of_the_exception() -> None:
    verdict = lifecycle.bug("0123abc")

    assert (verdict.kind, verdict.failure_type, verdict.ours) == (Kind.FAILURE, "JobFailed", True)
    assert "0123abc" in verdict.message


def test_a_retry_asks_for_twice_the_time_each_time() -> None:
    spec = replace(FAIL, max_attempts=5)
    error = Retry(timedelta(seconds=10))

    asked = [lifecycle.raised_retry(error, spec, retries) for retries in range(4)]

    assert asked == [Again(timedelta(seconds=after)) for after in (10, 20, 40, 80)]


def test_a_retry_waits_a_quarter_of_an_hour_at_most() -> None:
    assert lifecycle.raised_retry(Retry(timedelta(hours=1)), FAIL, 0) == Again(
        timedelta(minutes=15)
    )


@pytest.mark.parametrize("after", [timedelta(seconds=1), timedelta.max])
@pytest.mark.parametrize("retries", [50, 5_000])
def test_neither_many_retries_nor_a_long_delay_overflow(after: timedelta, retries: int) -> None:
    spec = replace(FAIL, max_attempts=10_000)

    assert lifecycle.raised_retry(Retry(after), spec, retries) == Again(timedelta(minutes=15))


def test_one_retry_more_than_allowed_gives_up() -> None:
    assert isinstance(lifecycle.raised_retry(Retry(), FAIL, 1), Again)
    assert gives_up(lifecycle.raised_retry(Retry(), FAIL, 2))
    assert gives_up(lifecycle.raised_retry(Retry(), replace(FAIL, max_attempts=1), 0))


def test_an_exception_that_was_named_is_a_retry_and_any_other_is_none() -> None:
    spec = replace(FAIL, retry_on=(ConnectionError,))

    assert lifecycle.raised_retry(ConnectionResetError("x"), spec, 0) == Again(
        timedelta(seconds=10)
    )
    assert lifecycle.raised_retry(ValueError("x"), spec, 0) is None
    assert lifecycle.raised_retry(SystemExit(), spec, 0) is None


# What AWS answers to a put


def test_an_accepted_put_ends_the_job() -> None:
    assert lifecycle.put_accepted(WELL) == Done(accepted=True, outcome="success")


def test_a_job_that_we_surely_acknowledged_and_that_is_closed_is_done() -> None:
    assert lifecycle.put_in_wrong_state(WELL, Ack.SURE) == Done(accepted=False, outcome="closed")


@pytest.mark.parametrize("ack", [Ack.NO, Ack.PRESUMED])
def test_a_job_that_is_perhaps_not_ours_is_parked_and_a_handlers_verdict_kept(ack: Ack) -> None:
    ours, theirs = lifecycle.gave_up("gone"), WELL

    kept, forgotten = (lifecycle.put_in_wrong_state(one, ack) for one in (theirs, ours))

    assert isinstance(kept, Park)
    assert isinstance(forgotten, Park)
    assert (kept.forget, forgotten.forget) == (False, True)


@pytest.mark.parametrize(
    ("since", "pause"), [(0, 15), (60, 15), (120, 30), (240, 60), (80_000, 60)]
)
def test_a_put_without_an_answer_is_tried_again_ever_later(since: int, pause: int) -> None:
    arm = lifecycle.put_later(timedelta(seconds=since), "Throttled: x")

    assert isinstance(arm, Release)
    assert arm.after == timedelta(seconds=pause)
    assert "Throttled: x" in arm.why


def test_a_put_without_an_answer_for_a_day_is_a_dead_letter() -> None:
    assert lifecycle.put_later(timedelta(hours=24), "Throttled: x") == Dead(why="Throttled: x")


# Pace and room


def test_as_many_jobs_are_asked_for_as_there_is_room() -> None:
    assert lifecycle.room(Crew(slots=8, busy=3), waiting=1) == 4
    assert lifecycle.room(Crew(slots=2, busy=3), waiting=1) == 0
    assert lifecycle.room(Crew(slots=8, busy=3, paused=True), waiting=1) == 0


def test_an_action_type_is_asked_at_once_after_a_job_and_ever_later_without_one() -> None:
    times = Times(poll_interval=timedelta(seconds=1), poll_interval_max=timedelta(seconds=2))
    pace = Pace(timedelta(seconds=2), times).busy()

    rests = []
    for _ in range(4):
        rests.append(pace.rest.total_seconds())
        pace = pace.idle()

    assert rests == [0, 1, 1.5, 2]


def test_an_action_type_that_is_throttled_or_unknown_rests_up_to_a_minute() -> None:
    pace = Pace(NONE, Times())

    assert pace.throttled().rest == timedelta(seconds=2)
    assert pace.throttled().throttled().rest == timedelta(seconds=4)
    assert replace(pace, rest=timedelta(seconds=50)).throttled().rest == timedelta(seconds=60)
    assert pace.unknown().rest == timedelta(seconds=5)
    assert pace.unknown().unknown().rest == timedelta(seconds=10)
    assert replace(pace, rest=timedelta(seconds=50)).unknown().rest == timedelta(seconds=60)
    assert pace.unknown().idle().rest == timedelta(seconds=5)
