"""Decisions that must hold whatever a delivery knows.

No foreign nonce is sent, and no foreign job is ours."""

from datetime import timedelta

from hypothesis import example, given
from hypothesis import strategies as st

from dispatcher.engine import handshake, lifecycle
from dispatcher.engine.handshake import Acknowledged, Handshake, Leave, ReadAgain, Send
from dispatcher.engine.model import Ack, Again, Crew, Dead, How, Park, Release, Store
from dispatcher.engine.times import Pace, Times
from dispatcher.sdk import ActionSpec, ActionType, Owner, Retry

TYPE = ActionType("Deploy", Owner.THIRD_PARTY, "Acme", "1")
DAY = timedelta(hours=24)
nonces = st.sampled_from(["a", "b", "c"])
handshakes = st.builds(
    Handshake,
    how=st.sampled_from([How.FRESH, How.INHERITED, How.SEND]),
    nonce=nonces,
    tried=st.frozensets(nonces),
    unanswered=st.frozensets(nonces),
    read_again=st.booleans(),
)


@given(handshakes, st.booleans())
def test_no_nonce_is_sent_that_is_neither_fresh_nor_tried(known: Handshake, fresh: bool) -> None:
    step = handshake.next_try(known, fresh=fresh)

    assert (step == Send(known.nonce)) == (fresh or known.nonce in known.tried)


@given(handshakes)
def test_a_nonce_is_read_again_once_at_most(known: Handshake) -> None:
    step = handshake.next_try(known, fresh=False)

    assert not (known.read_again and isinstance(step, ReadAgain))


@given(handshakes, st.booleans())
def test_what_may_have_been_acknowledged_unseen_is_never_parked_for_its_age(
    known: Handshake, fresh: bool
) -> None:
    steps = [handshake.next_try(known, fresh=fresh), handshake.out_of_tries(known)]

    if known.unanswered:
        assert not any(isinstance(step, Park) for step in steps)
        assert steps[1] == Leave()


@given(handshakes, nonces, st.booleans())
def test_a_job_is_ours_only_by_a_current_nonce_of_which_we_have_evidence(
    known: Handshake, current: str, fresh: bool
) -> None:
    step = handshake.refused_nonce(known, current, fresh=fresh)

    evidence = current in known.tried | known.unanswered
    assert isinstance(step, Acknowledged) == (evidence and current == known.nonce)
    assert (step == Send(current)) == (evidence and current != known.nonce)
    assert isinstance(step, Park) == (not evidence)
    if isinstance(step, Acknowledged):
        assert step.ack is (Ack.SURE if fresh else Ack.PRESUMED)
        assert step.by_predecessor == (known.how is How.INHERITED)


@given(handshakes, nonces, st.text())
def test_only_a_stored_verdict_is_forgotten(known: Handshake, current: str, status: str) -> None:
    steps = [
        handshake.next_try(known, fresh=False),
        handshake.accepted(known, status),
        handshake.refused_nonce(known, current, fresh=True),
        handshake.refused_otherwise(known),
    ]

    for step in steps:
        if isinstance(step, Park):
            assert step.forget == (known.how is How.SEND)


@given(
    after=st.timedeltas(min_value=timedelta(), max_value=timedelta(days=1)),
    retries=st.integers(0, 15),
    most=st.integers(1, 15),
)
def test_retries_end_and_wait_ever_longer_up_to_a_quarter_of_an_hour(
    after: timedelta, retries: int, most: int
) -> None:
    spec = ActionSpec(TYPE, max_attempts=most)

    arm = lifecycle.raised_retry(Retry(after), spec, retries)
    later = lifecycle.raised_retry(Retry(after), spec, retries + 1)

    assert isinstance(arm, Store) == (retries + 1 >= most)
    if isinstance(arm, Again):
        assert min(after, timedelta(minutes=15)) <= arm.after <= timedelta(minutes=15)
    if isinstance(arm, Again) and isinstance(later, Again):
        assert later.after == min(2 * arm.after, timedelta(minutes=15))


@given(st.timedeltas(min_value=timedelta(), max_value=timedelta(days=3)))
@example(DAY)
@example(DAY - timedelta(microseconds=1))
def test_a_put_is_repeated_for_a_day_with_pauses_of_15_to_60_seconds(since: timedelta) -> None:
    arm = lifecycle.put_later(since, "why")

    assert (arm == Dead(why="why")) == (since >= DAY)
    if isinstance(arm, Release):
        assert timedelta(seconds=15) <= arm.after <= timedelta(seconds=60)


@given(
    interval=st.integers(1, 10_000),
    longer=st.integers(0, 10_000),
    polls=st.lists(st.sampled_from(["busy", "idle", "throttled", "unknown"]), max_size=30),
)
def test_a_type_never_rests_longer_than_it_may_nor_shorter_when_there_is_nothing(
    interval: int, longer: int, polls: list[str]
) -> None:
    least = timedelta(milliseconds=interval)
    most = least + timedelta(milliseconds=longer)
    pace = Pace(timedelta(), Times(poll_interval=least, poll_interval_max=most))

    for poll in polls:
        pace = getattr(pace, poll)()

        if poll == "busy":
            assert pace.rest == timedelta()
        elif poll == "idle":
            assert least <= pace.rest <= most
        else:
            assert min(2 * least, timedelta(minutes=1)) <= pace.rest <= timedelta(minutes=1)


@given(st.text(alphabet="0123456789abcdef", min_size=12, max_size=12))
def test_a_bugs_verdict_says_the_reference_and_nothing_else_that_varies(reference: str) -> None:
    verdict = lifecycle.bug(reference)

    assert verdict.message.replace(reference, "") == lifecycle.bug("").message


@given(st.integers(0, 50), st.integers(0, 100), st.integers(0, 100))
def test_no_more_is_asked_for_than_there_are_slots(slots: int, busy: int, waiting: int) -> None:
    room = lifecycle.room(Crew(slots, busy), waiting)

    assert 0 <= room <= slots
    assert room == 0 or room + busy + waiting == slots
