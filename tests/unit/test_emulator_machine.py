"""The emulator's state machine under a clock of our own."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from dispatcher.emulator.jobs import (
    ActionType,
    Caller,
    CallError,
    Code,
    Job,
    Owner,
    Rules,
    Status,
    Work,
)
from dispatcher.emulator.machine import Machine
from dispatcher.emulator.options import Options

DEPLOY = ActionType("Deploy", "ThirdParty", "Acme", "1")
BUILD = ActionType("Build", "Custom", "Mine", "1")
START = 1000.0


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def machine(clock: Clock) -> Machine:
    return Machine(Options(), clock)


def work(action_type: ActionType = DEPLOY, **configuration: str) -> Work:
    return Work(action_type, configuration, "P", "S", "A", client_id="c", client_token="t")


def poll(
    machine: Machine, action_type: ActionType = DEPLOY, batch: int = 1, **query: str
) -> list[Job]:
    return machine.poll(Owner(action_type.owner), action_type, batch, query)


def asking(job: Job) -> Caller:
    return Caller(Owner(job.work.action_type.owner), job.id, job.work.client_token)


def nonce_of(job: Job) -> str:
    assert job.nonce is not None
    return job.nonce


def acknowledge(machine: Machine, job: Job) -> Status:
    return machine.acknowledge(asking(job), nonce_of(job))[0]


def running(machine: Machine, action_type: ActionType = DEPLOY) -> Job:
    machine.submit([work(action_type)])
    (job,) = poll(machine, action_type)
    acknowledge(machine, job)
    return job


def history(job: Job) -> list[tuple[str, float]]:
    return [(status.value, at - START) for status, at in job.history]


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(CallError) as caught:
        call()
    return caught.value.code


@pytest.mark.parametrize("action_type", [DEPLOY, BUILD])
def test_a_job_goes_from_the_queue_to_its_result(
    machine: Machine, clock: Clock, action_type: ActionType
) -> None:
    (job,) = machine.submit([work(action_type)])
    clock.now += 1
    assert poll(machine, action_type) == [job]
    clock.now += 1
    assert acknowledge(machine, job) is Status.IN_PROGRESS
    clock.now += 1
    machine.succeed(asking(job), "Put", {"jobId": job.id})

    assert history(job) == [
        ("Created", 0),
        ("Queued", 0),
        ("Dispatched", 1),
        ("InProgress", 2),
        ("Succeeded", 3),
    ]
    assert job.result is not None
    assert (job.result.operation, job.result.at, job.next) == ("Put", START + 3, None)


def test_a_failure_put_fails_the_job(machine: Machine) -> None:
    job = running(machine)

    machine.fail(asking(job), "Put", {})

    assert job.status is Status.FAILED


def test_jobs_are_handed_out_first_come_first_served_and_one_by_one(machine: Machine) -> None:
    jobs = machine.submit([work() for _ in range(5)])

    assert poll(machine) == jobs[:1]
    assert poll(machine, batch=3) == jobs[1:4]
    assert poll(machine, batch=3) == jobs[4:]
    assert poll(machine, batch=3) == []


def test_a_batch_is_no_larger_than_the_cap(clock: Clock) -> None:
    machine = Machine(Options(batch_cap=2), clock)
    machine.submit([work() for _ in range(5)])

    assert len(poll(machine, batch=1_000_000)) == 2


def test_an_action_type_has_a_queue_of_its_own(machine: Machine) -> None:
    other = ActionType("Deploy", "ThirdParty", "Acme", "2")
    machine.submit([work()])
    (job,) = machine.submit([work(other)])

    assert poll(machine, other, batch=9) == [job]


def test_an_unacknowledged_job_is_offered_again_after_the_window_with_a_new_nonce(
    machine: Machine, clock: Clock
) -> None:
    machine.submit([work()])
    (job,) = poll(machine)
    first = nonce_of(job)

    clock.now += 29.999
    assert poll(machine) == []
    clock.now += 0.001
    assert poll(machine) == [job]

    assert nonce_of(job) != first
    assert code_of(lambda: machine.acknowledge(asking(job), first)) == Code.INVALID_NONCE
    assert acknowledge(machine, job) is Status.IN_PROGRESS


def test_the_window_starts_anew_with_each_offer(machine: Machine, clock: Clock) -> None:
    machine.submit([work()])
    (job,) = poll(machine)
    clock.now += 40
    poll(machine)

    clock.now += 29
    assert poll(machine) == []
    clock.now += 1
    assert poll(machine) == [job]


def test_a_late_acknowledgement_counts_until_the_job_is_offered_again(
    machine: Machine, clock: Clock
) -> None:
    machine.submit([work()])
    (job,) = poll(machine)

    clock.now += 31
    assert acknowledge(machine, job) is Status.IN_PROGRESS

    assert poll(machine) == []
    machine.succeed(asking(job), "Put", {})
    assert history(job)[2:] == [
        ("Dispatched", 0),
        ("Queued", 30),
        ("InProgress", 31),
        ("Succeeded", 31),
    ]


def test_details_give_the_same_nonce_between_two_offers(machine: Machine, clock: Clock) -> None:
    machine.submit([work()])
    (job,) = poll(machine)
    nonce = nonce_of(job)

    assert machine.details(asking(job)).nonce == nonce
    clock.now += 30
    assert machine.details(asking(job)).nonce == nonce


def test_a_second_acknowledgement_is_refused(machine: Machine) -> None:
    job = running(machine)

    assert code_of(lambda: acknowledge(machine, job)) == Code.INVALID_NONCE


def test_a_second_or_stale_acknowledgement_may_be_told_the_status_instead(clock: Clock) -> None:
    machine = Machine(Options(second_ack="status"), clock)
    job = running(machine)
    machine.submit([work()])
    (offered,) = poll(machine)

    assert machine.acknowledge(asking(job), nonce_of(job)) == (Status.IN_PROGRESS, False)
    assert machine.acknowledge(asking(offered), "stale") == (Status.DISPATCHED, False)


def test_an_acknowledgement_before_any_offer_is_refused(machine: Machine) -> None:
    (job,) = machine.submit([work()])

    assert code_of(lambda: machine.acknowledge(asking(job), "1")) == Code.INVALID_NONCE


def test_a_put_counts_long_after_the_window_and_not_after_the_job_timeout(
    machine: Machine, clock: Clock
) -> None:
    early, late = running(machine), running(machine)

    clock.now += 3599
    machine.succeed(asking(early), "Put", {})
    clock.now += 1
    refused = code_of(lambda: machine.succeed(asking(late), "Put", {}))

    assert refused == Code.INVALID_JOB_STATE
    assert history(late)[-1] == ("TimedOut", 3600)
    assert early.status is Status.SUCCEEDED


def test_an_action_type_may_have_a_job_timeout_of_its_own(machine: Machine, clock: Clock) -> None:
    machine.define(DEPLOY, Rules(job_timeout=timedelta(seconds=60)))
    job = running(machine)

    clock.now += 60

    assert machine.details(asking(job)).status is Status.TIMED_OUT


@pytest.mark.parametrize("state", [s for s in Status if s is not Status.IN_PROGRESS])
def test_a_put_is_refused_in_every_state_but_in_progress(
    machine: Machine, clock: Clock, state: Status
) -> None:
    job = job_in(machine, clock, state)
    assert job.status is state

    assert (
        code_of(lambda: machine.succeed(asking(job), "Put", {}, "token")) == Code.INVALID_JOB_STATE
    )
    assert code_of(lambda: machine.fail(asking(job), "Put", {})) == Code.INVALID_JOB_STATE
    assert job.status is state


def job_in(machine: Machine, clock: Clock, state: Status) -> Job:
    if state in {Status.QUEUED, Status.DISPATCHED}:
        (job,) = machine.submit([work()])
        if state is Status.DISPATCHED:
            poll(machine)
        return job
    job = running(machine)
    if state is Status.TIMED_OUT:
        clock.now += 3600
        machine.advance()
    elif state is Status.FAILED:
        machine.fail(asking(job), "Put", {})
    else:
        machine.succeed(asking(job), "Put", {}, "token")
    return machine.jobs(job.next)[0] if state is Status.CREATED else job


@pytest.mark.parametrize("state", list(Status))
def test_a_wrong_client_token_is_told_before_any_state_is_looked_at(
    machine: Machine, clock: Clock, state: Status
) -> None:
    job = running(machine) if state is Status.IN_PROGRESS else job_in(machine, clock, state)
    stranger = Caller(Owner.THIRD_PARTY, job.id, "of another tenant")

    for call in (
        lambda: machine.details(stranger),
        lambda: machine.acknowledge(stranger, job.nonce or "1"),
        lambda: machine.succeed(stranger, "Put", {}),
        lambda: machine.fail(stranger, "Put", {}),
    ):
        assert code_of(call) == Code.INVALID_CLIENT_TOKEN
    assert job.status is state


def test_an_unknown_id_is_not_found(machine: Machine) -> None:
    for owner in Owner:
        nobody = Caller(owner, "no such job", "t")
        for call in (
            lambda nobody=nobody: machine.details(nobody),
            lambda nobody=nobody: machine.acknowledge(nobody, "1"),
            lambda nobody=nobody: machine.succeed(nobody, "Put", {}),
            lambda nobody=nobody: machine.fail(nobody, "Put", {}),
        ):
            assert code_of(call) == Code.JOB_NOT_FOUND


@pytest.mark.parametrize(
    ("action_type", "asked_by", "of_details"),
    [
        (BUILD, Owner.THIRD_PARTY, Code.INVALID_JOB),
        (DEPLOY, Owner.CUSTOM, Code.JOB_NOT_FOUND),
    ],
)
def test_a_job_of_the_other_family_is_refused(
    machine: Machine, action_type: ActionType, asked_by: Owner, of_details: Code
) -> None:
    job = running(machine, action_type)
    caller = Caller(asked_by, job.id, "t")

    assert code_of(lambda: machine.details(caller)) == of_details
    assert code_of(lambda: machine.succeed(caller, "Put", {})) == Code.JOB_NOT_FOUND
    assert job.status is Status.IN_PROGRESS


def test_a_continuation_is_a_new_job_of_the_same_work_after_the_delay(
    machine: Machine, clock: Clock
) -> None:
    job = running(machine)

    machine.succeed(asking(job), "Put", {}, "step 2")
    clock.now += 29
    assert poll(machine) == []
    clock.now += 1
    (following,) = poll(machine)

    assert job.status is Status.SUCCEEDED
    assert job.next == following.id != job.id
    assert following.work is job.work
    assert following.continuation_token == "step 2"
    assert history(following) == [("Created", 0), ("Queued", 30), ("Dispatched", 30)]


def test_a_job_ends_once_however_often_its_result_is_put(machine: Machine) -> None:
    job = running(machine)
    machine.succeed(asking(job), "Put", {}, "step 2")
    first = (job.result, job.next)

    assert (
        code_of(lambda: machine.succeed(asking(job), "Put", {}, "step 2")) == Code.INVALID_JOB_STATE
    )

    assert (job.result, job.next) == first
    assert len(machine.jobs()) == 2


def test_moves_that_nobody_watched_are_made_in_the_order_of_their_times(clock: Clock) -> None:
    machine = Machine(Options(action_timeout=timedelta(days=1)), clock)
    chained, timed = running(machine), running(machine)
    clock.now += 3580
    machine.succeed(asking(chained), "Put", {}, "step 2")
    machine.submit([work()])
    (offered,) = poll(machine)
    clock.now += 10_000

    (following,) = machine.jobs(chained.next)
    assert history(timed)[-1] == ("TimedOut", 3600)
    assert history(offered)[-1] == ("Queued", 3610)
    assert history(following)[-1] == ("Queued", 3610)
    # Both were due at once; the continuation's delay was set first.
    assert poll(machine, batch=9) == [following, offered]


def test_re_offers_queue_behind_what_was_queued_before_them(machine: Machine, clock: Clock) -> None:
    machine.submit([work()])
    (again,) = poll(machine)
    clock.now += 10
    (before,) = machine.submit([work()])
    clock.now += 25
    (after,) = machine.submit([work()])

    assert poll(machine, batch=9) == [before, again, after]


def test_the_clock_set_back_moves_nothing_back(machine: Machine, clock: Clock) -> None:
    machine.submit([work()])
    clock.now -= 500

    (job,) = poll(machine)

    assert history(job)[-1] == ("Dispatched", 0)


@pytest.mark.parametrize(
    ("owner", "action_type", "text"),
    [
        (Owner.CUSTOM, DEPLOY, "ActionType with owner 'ThirdParty' is not supported"),
        (Owner.THIRD_PARTY, BUILD, "ActionType with owner 'Custom' is not supported"),
        (
            Owner.CUSTOM,
            ActionType("Deploy", "AWS", "S3", "1"),
            "ActionType with owner 'AWS' is not supported",
        ),
    ],
)
def test_a_poll_for_the_wrong_owner_is_refused_in_aws_words(
    machine: Machine, owner: Owner, action_type: ActionType, text: str
) -> None:
    with pytest.raises(CallError, match=text) as caught:
        machine.poll(owner, action_type, 1, {})

    assert caught.value.code == Code.VALIDATION


def test_a_poll_for_an_unknown_action_type_is_refused_in_aws_words(machine: Machine) -> None:
    with pytest.raises(CallError) as caught:
        poll(machine, ActionType("Build", "Custom", "X", "1"))

    assert caught.value.code == Code.ACTION_TYPE_NOT_FOUND
    assert caught.value.message == (
        "ActionType (Category: 'Build', Owner: 'Custom', Provider: 'X', Version: '1') "
        "is not available"
    )


def test_a_declared_action_type_may_be_polled_before_any_job(machine: Machine) -> None:
    machine.define(BUILD, Rules())

    assert poll(machine, BUILD) == []


def test_a_poll_by_the_queryable_property_gets_the_jobs_that_match(machine: Machine) -> None:
    machine.define(BUILD, Rules(queryable="Project"))
    one, two, three, _ = machine.submit(
        [
            work(BUILD, Project="a"),
            work(BUILD, Project="b"),
            work(BUILD, Project="a"),
            work(BUILD),
        ]
    )

    assert poll(machine, BUILD, batch=9, Project="a") == [one, three]
    assert poll(machine, BUILD, batch=9, Project="b") == [two]
    assert poll(machine, BUILD, batch=9, Project="c") == []


@pytest.mark.parametrize(
    ("queryable", "query"),
    [("Project", {}), ("Project", {"Other": "a"}), (None, {"Project": "a"})],
)
def test_the_query_must_name_the_queryable_property_and_no_other(
    machine: Machine, queryable: str | None, query: dict[str, str]
) -> None:
    machine.define(BUILD, Rules(queryable))

    assert code_of(lambda: machine.poll(Owner.CUSTOM, BUILD, 1, query)) == Code.VALIDATION


def test_a_queryable_property_cannot_change(machine: Machine) -> None:
    machine.submit([work(BUILD)])

    with pytest.raises(ValueError, match="cannot change"):
        machine.define(BUILD, Rules(queryable="Project"))


@pytest.mark.parametrize(
    "options",
    [
        {"ack_window": timedelta(0)},
        {"job_timeout": timedelta(0)},
        {"continuation_delay": timedelta(seconds=-1)},
        {"batch_cap": 0},
        {"default_batch": 0},
        {"action_timeout": timedelta(0)},
        {"rate": -1},
        {"second_ack": "maybe"},
        {"wrong_owner": "no name"},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, timedelta | int]) -> None:
    with pytest.raises(ValueError, match="must"):
        Options(**options)  # type: ignore[arg-type] # on purpose


def test_no_secret_stands_in_the_text_of_a_value(machine: Machine) -> None:
    machine.submit([Work(DEPLOY, {"ApiKey": "api-key"}, "P", "S", "A", "client", "tenant-token")])
    (job,) = poll(machine)
    caller = asking(job)
    acknowledge(machine, job)
    machine.succeed(caller, "Put", {"clientToken": "tenant-token"}, "step-2-token")

    shown = repr([machine.jobs(), caller])

    for secret in ("api-key", "tenant-token", "step-2-token", nonce_of(job)):
        assert secret not in shown
