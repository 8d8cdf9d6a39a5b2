"""From a message to an acknowledged job: whose it is, whatever AWS, Redis or the tokens answer."""

from datetime import timedelta

import pytest

from dispatcher.emulator import jobs as aws
from dispatcher.engine.model import (
    Denied,
    InvalidClientToken,
    InvalidNonce,
    JobNotFound,
    JobRef,
    LedgerDown,
    Malformed,
    PortError,
    Refused,
    Release,
    Throttled,
    TokensDown,
    UnknownClient,
)
from dispatcher.engine.ports import Event
from dispatcher.sdk import OnCrash, Owner, Retry
from tests.engine.line import failing, first, losing, reply_lost, then, unanswered
from tests.engine.outside import CLIENT, TOKEN, their
from tests.engine.world import World, doing, failure_type, raising

OWNERS = pytest.mark.parametrize("owner", list(Owner))
POLICIES = pytest.mark.parametrize("on_crash", list(OnCrash))


def parked(world: World, ref: JobRef) -> bool:
    """Nobody's: only a fresh offer brings it back, and then at once."""
    record = world.record(ref)
    in_index = world.redis.zscore(f"dispatcher:index:{ref.type.provider}", ref.job_id)
    return (record["state"], record["ack"], record.get("tried"), in_index) == (
        "queued",
        "no",
        None,
        None,
    )


def left(world: World, ref: JobRef) -> bool:
    """Still begun, with what the next delivery needs to know."""
    record = world.record(ref)
    return (record["state"], record["ack"], record["deaths"]) == ("running", "no", "0") and bool(
        record.get("tried")
    )


def acks(world: World) -> list[str]:
    return [str(one.fields["ack"]) for one in world.saw(Event.ACKNOWLEDGED)]


# Nobody began it before.


@OWNERS
@POLICIES
def test_an_accepted_acknowledgement_starts_the_handler(
    world: World, owner: Owner, on_crash: OnCrash
) -> None:
    ref = world.offered(world.action(owner, on_crash))
    worker = world.worker()

    worker.job(ref)

    assert acks(world) == ["sure"]
    assert len(world.runs) == 1
    assert world.status(ref) is aws.Status.SUCCEEDED
    assert world.record(ref)["state"] == "reported"


@OWNERS
@POLICIES
def test_an_acknowledgement_whose_reply_was_lost_is_known_for_ours_when_it_is_refused(
    world: World, owner: Owner, on_crash: OnCrash
) -> None:
    ref = world.offered(world.action(owner, on_crash))
    worker = world.worker()
    worker.line.next("acknowledge", reply_lost)

    worker.job(ref)

    assert worker.line.count("acknowledge") == 2
    assert acks(world) == ["sure"]
    assert len(world.runs) == 1
    assert world.status(ref) is aws.Status.SUCCEEDED


@OWNERS
def test_an_acknowledgement_that_never_arrived_is_sent_again(world: World, owner: Owner) -> None:
    ref = world.offered(world.action(owner))
    worker = world.worker()
    worker.line.next("acknowledge", unanswered, unanswered)

    worker.job(ref)

    assert worker.line.count("acknowledge") == 3
    assert acks(world) == ["sure"]
    assert world.status(ref) is aws.Status.SUCCEEDED


@pytest.mark.parametrize(
    "error", [Throttled, Denied, InvalidClientToken, TokensDown, UnknownClient]
)
def test_an_answer_that_says_nothing_of_the_job_is_followed_by_another_try(
    world: World, error: type[PortError]
) -> None:
    ref = world.offered(world.action())
    worker = world.worker()
    # A token that AWS refuses is looked up anew at once: that try counts for the same.
    times = 2 if error is InvalidClientToken else 1
    worker.line.next("acknowledge", *[failing(error)] * times)

    worker.job(ref)

    assert acks(world) == ["sure"]
    assert len(world.saw(Event.ACK_FAILED)) == 1
    assert world.status(ref) is aws.Status.SUCCEEDED


@POLICIES
def test_an_answer_that_cannot_be_read_may_have_been_a_yes(world: World, on_crash: OnCrash) -> None:
    ref = world.offered(world.action(on_crash=on_crash))
    worker = world.worker()
    worker.line.next("acknowledge", losing(Malformed))

    worker.job(ref)

    assert acks(world) == ["sure"]
    assert world.status(ref) is aws.Status.SUCCEEDED


def test_tries_pause_ever_longer_and_end_with_half_of_the_window(world: World) -> None:
    ref = world.offered(world.action())
    worker = world.worker()
    worker.line.always(unanswered, "acknowledge")
    begun = world.clock.monotonic()

    worker.job(ref)

    assert 15 <= world.clock.monotonic() - begun < 20
    assert worker.line.count("acknowledge") == 7


@OWNERS
@POLICIES
def test_what_nobody_answered_is_left_and_the_next_delivery_finds_it_was_taken(
    world: World, owner: Owner, on_crash: OnCrash
) -> None:
    ref = world.offered(world.action(owner, on_crash))
    worker = world.worker()
    worker.line.always(reply_lost, "acknowledge")
    worker.job(ref)
    assert left(world, ref)
    assert len(world.saw(Event.ACK_UNKNOWN)) == 1

    world.recover(after=6)

    rerun = on_crash is OnCrash.RERUN
    assert len(world.runs) == (1 if rerun else 0)
    assert failure_type(world.verdict(ref)) == (None if rerun else "SystemUnavailable")
    assert world.accepted[ref.job_id] == 1


@OWNERS
@POLICIES
def test_what_nobody_answered_is_left_and_the_next_delivery_finds_it_was_not_taken(
    world: World, owner: Owner, on_crash: OnCrash
) -> None:
    ref = world.offered(world.action(owner, on_crash))
    worker = world.worker()
    worker.line.always(unanswered, "acknowledge")
    worker.job(ref)
    assert left(world, ref)

    world.recover(after=6)

    assert acks(world) == ["sure"]
    assert len(world.runs) == 1
    assert world.status(ref) is aws.Status.SUCCEEDED


@pytest.mark.parametrize(
    "error",
    [Throttled, Denied, Malformed, InvalidClientToken, TokensDown, UnknownClient],
)
@POLICIES
def test_an_unanswered_try_that_was_applied_is_not_forgotten_for_later_answers_that_say_nothing(
    world: World, error: type[PortError], on_crash: OnCrash
) -> None:
    ref = world.offered(world.action(on_crash=on_crash))
    worker = world.worker()
    worker.line.next("acknowledge", reply_lost)
    worker.line.always(failing(error), "acknowledge")

    worker.job(ref)

    assert left(world, ref)
    world.recover(after=6)
    assert world.accepted[ref.job_id] == 1
    assert len(world.runs) == (1 if on_crash is OnCrash.RERUN else 0)


def test_an_unanswered_try_is_not_forgotten_when_the_nonce_cannot_be_read_again(
    world: World,
) -> None:
    ref = world.offered(world.action(on_crash=OnCrash.RERUN))
    worker = world.worker()
    worker.line.next("acknowledge", reply_lost)
    worker.line.next("details", None)
    worker.line.always(unanswered, "details")

    worker.job(ref)

    assert left(world, ref)
    world.recover(after=6)
    assert world.status(ref) is aws.Status.SUCCEEDED


def test_a_custom_job_is_left_when_redis_fails_while_its_nonce_is_read_again(world: World) -> None:
    ref = world.offered(world.action(Owner.CUSTOM, OnCrash.RERUN))
    worker = world.worker()
    worker.line.next("acknowledge", reply_lost)
    worker.line.always(failing(LedgerDown), "nonce")

    worker.job(ref)

    assert left(world, ref)
    world.recover(after=6)
    assert world.status(ref) is aws.Status.SUCCEEDED


@pytest.mark.parametrize("error", [Throttled, Denied, InvalidClientToken])
def test_a_fresh_job_of_which_aws_surely_took_nothing_is_parked(
    world: World, error: type[PortError]
) -> None:
    action = world.action()
    ref = world.offered(action)
    worker = world.worker()
    worker.line.always(failing(error), "acknowledge")

    worker.job(ref)

    assert parked(world, ref)
    assert world.puts == []
    world.clock.advance(30)
    assert world.offer(action) == [ref]


@OWNERS
@pytest.mark.parametrize("error", [JobNotFound, Refused])
def test_an_acknowledgement_refused_for_good_parks_the_job_without_a_result(
    world: World, owner: Owner, error: type[PortError]
) -> None:
    ref = world.offered(world.action(owner))
    worker = world.worker()
    worker.line.next("acknowledge", failing(error))

    worker.job(ref)

    assert parked(world, ref)
    assert len(world.saw(Event.ACK_REFUSED)) == 1
    assert (world.runs, world.puts) == ([], [])


def test_an_acknowledgement_answered_with_another_status_parks_the_job(world: World) -> None:
    ref = world.offered(world.action())
    worker = world.worker()
    worker.line.next("acknowledge", lambda call: "Succeeded")

    worker.job(ref)

    assert parked(world, ref)
    assert (world.runs, world.puts) == ([], [])


@OWNERS
@POLICIES
def test_a_job_that_another_fleet_was_handed_and_took_is_never_put(
    world: World, owner: Owner, on_crash: OnCrash
) -> None:
    action = world.action(owner, on_crash)
    ref = world.offered(action)
    worker = world.worker()

    def taken() -> None:
        """AWS hands it out anew, to others."""
        world.clock.advance(30)
        world.machine.poll(aws.Owner(owner), their(action.spec.type), 1, {})
        world.acknowledge_elsewhere(ref)

    worker.line.next("acknowledge", first(taken))
    worker.job(ref)
    for _ in range(6):
        world.recover()

    assert world.runs == []
    assert world.puts == []
    assert world.status(ref) is aws.Status.IN_PROGRESS


@OWNERS
def test_a_nonce_older_than_most_of_the_window_is_not_sent_and_the_next_offer_brings_the_job(
    world: World, owner: Owner
) -> None:
    action = world.action(owner)
    ref = world.offered(action)
    world.clock.advance(24)
    worker = world.worker()

    worker.job(ref)

    assert worker.line.count("acknowledge") == 0
    assert parked(world, ref)
    world.clock.advance(6)
    assert world.offer(action) == [ref]
    worker.job(ref)
    assert world.status(ref) is aws.Status.SUCCEEDED


def test_tries_end_when_the_nonce_grows_too_old_between_them(world: World) -> None:
    ref = world.offered(world.action())
    worker = world.worker()
    world.clock.advance(20)
    worker.line.always(unanswered, "acknowledge")

    worker.job(ref)

    assert worker.line.count("acknowledge") == 5
    assert left(world, ref)


# A predecessor began it, and is gone.


@OWNERS
@POLICIES
@pytest.mark.parametrize("applied", [True, False])
def test_an_heir_learns_from_the_refusal_whether_its_predecessor_acknowledged(
    world: World, owner: Owner, on_crash: OnCrash, applied: bool
) -> None:
    ref = world.offered(world.action(owner, on_crash))
    dead = world.worker().line
    (dead.dies_after if applied else dead.dies_before)("acknowledge")
    world.workers[-1].job(ref)

    world.recover(after=31)

    given_up = applied and on_crash is OnCrash.FAIL
    assert len(world.runs) == (0 if given_up else 1)
    assert failure_type(world.verdict(ref)) == ("SystemUnavailable" if given_up else None)
    assert acks(world) == ["presumed" if applied else "sure"]
    assert world.accepted[ref.job_id] == 1


@OWNERS
def test_an_heir_is_sure_if_it_was_refused_before_a_foreigner_can_have_been_asked(
    world: World, owner: Owner
) -> None:
    ref = world.offered(world.action(owner, OnCrash.RERUN))
    world.worker().line.dies_after("acknowledge")
    world.workers[-1].job(ref)
    world.ledger.release(ref.job_id, f"{world.workers[-1].name}/", Release(timedelta(), "gone"))

    world.worker().job(ref)

    assert acks(world) == ["sure"]


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("applied", [True, False])
@POLICIES
def test_an_heir_that_read_an_older_nonce_finds_the_one_that_its_predecessor_sent(
    world: World, on_crash: OnCrash, fresh: bool, applied: bool
) -> None:
    action = world.action(on_crash=on_crash)
    ref = world.offered(action)
    late = world.worker()

    def another_is_faster() -> None:
        late.frozen = True
        world.clock.advance(30)
        world.offer(action)
        dead = world.worker()
        (dead.line.dies_after if applied else dead.line.dies_before)("acknowledge")
        dead.job(ref)
        owner = f"{dead.name}/"
        world.clock.advance(1 if fresh else 25)
        world.ledger.release(ref.job_id, owner, Release(timedelta(), "gone"))
        late.frozen = False

    late.line.next("details", then(another_is_faster))
    late.job(ref)

    # Old and refused, then the one that was sent; or that one at once.
    assert late.line.count("acknowledge") == (2 if fresh else 1)
    given_up = applied and on_crash is OnCrash.FAIL
    assert len(world.runs) == (0 if given_up else 1)
    assert failure_type(world.verdict(ref)) == ("SystemUnavailable" if given_up else None)


@POLICIES
def test_a_custom_job_that_was_handed_out_unheard_is_only_presumed_and_told_after_a_real_one(
    world: World, on_crash: OnCrash
) -> None:
    action = world.action(Owner.CUSTOM, on_crash)
    ref = world.offered(action)
    world.worker().line.dies_before("acknowledge")
    world.workers[-1].job(ref)
    world.clock.advance(31)
    handed_out = world.machine.poll(aws.Owner.CUSTOM, their(action.spec.type), 1, {})
    assert len(handed_out) == 1  # with a new nonce; the answer is lost

    world.worker().job(ref)

    assert acks(world) == ["presumed"]
    assert world.accepted[ref.job_id] == 0
    assert parked(world, ref)
    world.clock.advance(31)
    assert world.offer(action) == [ref]
    world.worker().job(ref)
    assert acks(world)[1:] == ["sure"]
    assert len(world.runs) == 1
    assert world.status(ref) is aws.Status.SUCCEEDED


@OWNERS
def test_an_heir_of_what_another_fleet_took_parks_it(world: World, owner: Owner) -> None:
    action = world.action(owner)
    ref = world.offered(action)
    world.worker().line.dies_before("acknowledge")
    world.workers[-1].job(ref)
    world.clock.advance(31)
    assert world.offer(action) == [ref]  # the newest hand-out, which we saw and did not use
    world.clock.advance(30)
    world.machine.poll(aws.Owner(owner), their(action.spec.type), 1, {})
    world.acknowledge_elsewhere(ref)

    for _ in range(4):
        world.recover()

    assert (world.runs, world.accepted[ref.job_id]) == ([], 0)
    assert world.puts == []


@OWNERS
@POLICIES
def test_a_job_that_killed_three_workers_before_they_took_it_is_given_up_without_a_start(
    world: World, owner: Owner, on_crash: OnCrash
) -> None:
    ref = world.offered(world.action(owner, on_crash))
    world.worker().line.dies_before("acknowledge")
    world.workers[-1].job(ref)
    world.worker().line.dies_before("acknowledge")
    world.clock.advance(31)
    world.workers[-1].job(ref)

    world.recover(after=31)

    assert world.runs == []
    assert failure_type(world.verdict(ref)) == "SystemUnavailable"


def test_workers_that_gave_a_job_back_are_no_deaths(world: World) -> None:
    ref = world.offered(world.action())
    for _ in range(4):
        worker = world.worker()
        worker.line.always(unanswered, "acknowledge")
        worker.job(ref)
        world.clock.advance(31)

    world.recover(after=1)

    assert len(world.runs) == 1
    assert world.status(ref) is aws.Status.SUCCEEDED


# Details and tokens: before anything else.


@pytest.mark.parametrize("error", [Throttled, Denied, Malformed])
def test_without_details_nothing_begins_and_the_next_offer_brings_the_job(
    world: World, error: type[PortError]
) -> None:
    action = world.action()
    ref = world.offered(action)
    world.clock.advance(30)
    assert world.offer(action) == [ref]  # the next offers are quiet for 48 s
    worker = world.worker()
    worker.line.next("details", failing(error))

    worker.job(ref)

    assert worker.line.count("begin") == 0
    assert parked(world, ref)
    world.clock.advance(30)
    assert world.offer(action) == [ref]
    worker.job(ref)
    assert world.status(ref) is aws.Status.SUCCEEDED


def test_a_job_of_an_unknown_client_is_never_begun_nor_failed_and_others_go_on(
    world: World,
) -> None:
    action = world.action()
    foreign = world.offered(action, client="nobody")
    ours = world.offered(action)
    worker = world.worker()

    worker.job(foreign)
    worker.job(ours)

    assert [seen.ref for seen in world.saw(Event.UNKNOWN_CLIENT)] == [foreign]
    assert parked(world, foreign)
    assert worker.line.count("details") == 1
    assert world.puts == [ours.job_id]


def test_while_the_token_store_is_down_third_party_jobs_wait_and_custom_jobs_go_on(
    world: World,
) -> None:
    action = world.action()
    theirs = world.offered(action)
    ours = world.offered(world.action(Owner.CUSTOM))
    worker = world.worker()
    worker.line.always(failing(TokensDown), "token", "fresh token")

    worker.job(theirs)
    worker.job(ours)

    assert parked(world, theirs)
    assert len(world.saw(Event.TOKENS_DOWN)) == 1
    assert world.puts == [ours.job_id]
    worker.line.mend()
    world.clock.advance(30)
    assert world.offer(action) == [theirs]
    worker.job(theirs)
    assert world.status(theirs) is aws.Status.SUCCEEDED


@pytest.mark.parametrize("error", [JobNotFound, Refused])
def test_a_retry_whose_details_aws_refuses_for_good_gets_a_result(
    world: World, error: type[PortError]
) -> None:
    ref = world.offered(world.action())
    world.handler = raising(Retry())
    world.worker().job(ref)
    world.clock.advance(11)
    worker = world.worker()
    worker.line.next("details", failing(error))

    worker.job(ref)

    assert failure_type(world.verdict(ref)) == "SystemUnavailable"
    assert len(world.runs) == 1


def test_a_retry_whose_details_find_no_answer_waits_for_the_next_sweep(world: World) -> None:
    ref = world.offered(world.action())
    world.handler = raising(Retry())
    world.worker().job(ref)
    world.clock.advance(11)
    worker = world.worker()
    worker.line.next("details", unanswered)
    worker.job(ref)
    assert world.record(ref)["ack"] == "sure"

    world.recover(after=1)

    assert len(world.runs) == 2


def test_details_refused_for_good_of_a_job_that_is_not_ours_put_nothing(world: World) -> None:
    ref = world.offered(world.action())
    worker = world.worker()
    worker.line.next("details", failing(JobNotFound))

    worker.job(ref)

    assert parked(world, ref)
    assert world.puts == []


def test_a_rotated_token_is_fetched_anew_once(world: World) -> None:
    ref = world.offered(world.action())
    world.vault.remembered[CLIENT] = "yesterday's"
    worker = world.worker()

    worker.job(ref)

    assert worker.line.calls[:4] == ["token", "details", "fresh token", "details"]
    assert world.status(ref) is aws.Status.SUCCEEDED


def test_a_token_that_is_wrong_in_the_store_too_parks_the_job_as_an_unknown_client(
    world: World,
) -> None:
    ref = world.offered(world.action())
    world.vault.known[CLIENT] = "wrong"
    worker = world.worker()

    worker.job(ref)

    assert worker.line.count("fresh token") == 1
    assert parked(world, ref)
    assert len(world.saw(Event.UNKNOWN_CLIENT)) == 1
    assert TOKEN not in str(world.saw(Event.UNKNOWN_CLIENT))


# What begins nothing.


def test_a_stopping_process_begins_nothing(world: World) -> None:
    ref = world.offered(world.action())
    worker = world.worker()
    worker.stops = True

    worker.job(ref)

    assert worker.line.calls == []
    assert world.record(ref)["state"] == "queued"


def test_a_second_message_of_a_job_that_is_worked_on_is_dropped(world: World) -> None:
    ref = world.offered(world.action())
    other = world.worker()
    world.handler = doing(lambda: other.job(ref))

    world.worker().job(ref)

    assert len(world.runs) == 1
    assert [seen.fields["why"] for seen in world.saw(Event.DROPPED)] == ["leased"]
    assert other.line.count("acknowledge") == 0


def test_without_the_ledger_nothing_is_acknowledged(world: World) -> None:
    ref = world.offered(world.action())
    worker = world.worker()
    worker.lose_redis()

    worker.job(ref)

    assert worker.line.count("acknowledge") == 0
    assert world.saw(Event.LEDGER_DOWN)


def test_a_begin_whose_reply_was_lost_is_no_acknowledgement_and_another_delivery_inherits(
    world: World,
) -> None:
    ref = world.offered(world.action())
    worker = world.worker()
    worker.line.next("begin", losing(LedgerDown))
    worker.job(ref)

    world.recover(after=31)

    assert worker.line.count("acknowledge") == 0
    assert len(world.runs) == 1
    assert acks(world) == ["sure"]


def test_a_lost_reply_to_the_parking_costs_nothing(world: World) -> None:
    action = world.action()
    ref = world.offered(action)
    worker = world.worker()
    worker.line.next("acknowledge", failing(JobNotFound))
    worker.line.next("finish", losing(LedgerDown))

    worker.job(ref)

    assert parked(world, ref)
    assert world.saw(Event.LEDGER_DOWN)


def test_a_nonce_that_changed_between_details_and_acknowledgement_is_not_ours(
    world: World,
) -> None:
    action = world.action()
    ref = world.offered(action)
    worker = world.worker()

    def offered_again() -> None:
        world.clock.advance(31)
        world.offer(action)

    worker.line.next("details", then(offered_again))
    worker.job(ref)

    assert parked(world, ref) or world.record(ref)["state"] == "reported"
    assert world.saw(Event.ACK_PARKED)
    assert world.puts == []
    world.clock.advance(31)
    assert world.offer(action) == [ref]
    worker.job(ref)
    assert world.status(ref) is aws.Status.SUCCEEDED


def test_a_refusal_of_the_nonce_without_an_earlier_try_is_somebody_elses(world: World) -> None:
    ref = world.offered(world.action())
    worker = world.worker()
    worker.line.next("acknowledge", failing(InvalidNonce))

    worker.job(ref)

    assert parked(world, ref)
    assert world.puts == []
