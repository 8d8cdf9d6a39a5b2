"""Which rule takes effect for which call, without a call being made."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.emulator.effects import possible
from dispatcher.emulator.faults import Fault, Faults, Kind, Rule, When
from dispatcher.emulator.jobs import ActionType, Caller, Owner, Rules, Status, Work
from dispatcher.emulator.machine import Machine
from dispatcher.emulator.options import Options
from dispatcher.emulator.wire import Waits

ACK, PUT, POLL = "AcknowledgeJob", "PutJobSuccessResult", "PollForJobs"
Calls = list[tuple[str, str]]

calls = st.lists(
    st.tuples(st.sampled_from([ACK, PUT, "GetJobDetails"]), st.sampled_from(["a", "b", "c"]))
)
rules = st.lists(
    st.builds(
        Rule,
        st.sampled_from([Kind.DROP_AFTER, Kind.THROTTLE, Kind.HOLD]),
        operation=st.none() | st.sampled_from([ACK, PUT]),
        job_id=st.none() | st.sampled_from(["a", "b"]),
        count=st.none() | st.integers(1, 5),
        probability=st.none() | st.floats(0, 1),
        after=st.integers(0, 3),
        seed=st.integers(),
    ),
    max_size=4,
)


def taken(rules: list[Rule], calls: Calls) -> list[str | None]:
    faults = Faults()
    faults.add(rules)
    found = [faults.take(operation, job_id) for operation, job_id in calls]
    return [None if fault is None else fault.id for fault in found]


def which(rule: Rule, times: int) -> list[int]:
    """The indexes of the calls it befalls, all of them acknowledgements of job a."""
    return [at for at, found in enumerate(taken([rule], [(ACK, "a")] * times)) if found]


@given(rules, calls)
def test_the_same_rules_and_calls_give_the_same_faults(rules: list[Rule], calls: Calls) -> None:
    assert taken(rules, calls) == taken(rules, calls)


@given(st.integers(), st.floats(0, 1), calls)
def test_a_rule_before_another_takes_calls_from_it_but_does_not_change_its_choice(
    seed: int, probability: float, calls: Calls
) -> None:
    first = Rule(Kind.THROTTLE, ACK, probability=0.5, seed=seed)
    second = Rule(Kind.DROP_AFTER, probability=probability, seed=seed)

    alone, both = taken([second], calls), taken([first, second], calls)

    chosen = {at for at, found in enumerate(alone) if found}
    for at, found in enumerate(both):
        assert (found == "2") == (at in chosen and found != "1")


@given(rules, calls)
def test_no_rule_takes_more_calls_than_its_limit_nor_one_that_it_does_not_match(
    rules: list[Rule], calls: Calls
) -> None:
    found = taken(rules, calls)

    for number, rule in enumerate(rules, 1):
        mine = [call for call, fault in zip(calls, found, strict=True) if fault == str(number)]
        assert rule.limit is None or len(mine) <= rule.limit
        assert all(rule.operation in {None, operation} for operation, _ in mine)
        assert all(rule.job_id in {None, job_id} for _, job_id in mine)


def test_a_seed_chooses_and_another_chooses_otherwise() -> None:
    chosen = [which(Rule(Kind.THROTTLE, probability=0.2, seed=seed), 1000) for seed in (1, 1, 2)]

    assert chosen[0] == chosen[1] != chosen[2]
    assert 150 < len(chosen[0]) < 250
    # Pinned, so that a campaign's seed still means the same calls in a later version.
    pinned = [4, 6, 15, 17, 23]
    assert which(Rule(Kind.DROP_AFTER, ACK, probability=0.2, seed=7), 30) == pinned


def test_two_rules_of_one_seed_do_not_choose_the_same_calls() -> None:
    throttled = which(Rule(Kind.THROTTLE, probability=0.2), 1000)
    dropped = which(Rule(Kind.DROP_AFTER, probability=0.2), 1000)

    assert len(set(throttled) & set(dropped)) < 80


@pytest.mark.parametrize(
    ("rule", "befallen"),
    [
        (Rule(Kind.THROTTLE), [0]),
        (Rule(Kind.THROTTLE, count=3), [0, 1, 2]),
        (Rule(Kind.THROTTLE, after=2), [2]),
        (Rule(Kind.THROTTLE, count=2, after=3), [3, 4]),
        (Rule(Kind.THROTTLE, probability=1), [0, 1, 2, 3, 4, 5]),
        (Rule(Kind.THROTTLE, probability=0), []),
        (Rule(Kind.THROTTLE, probability=1, count=2, after=1), [1, 2]),
        (Rule(Kind.THROTTLE, job_id="b"), []),
        (Rule(Kind.THROTTLE, PUT), []),
    ],
)
def test_count_probability_and_after_say_which_of_the_matching_calls(
    rule: Rule, befallen: list[int]
) -> None:
    assert which(rule, 6) == befallen


def test_of_two_rules_that_fall_on_a_call_the_elder_is_taken_and_the_other_kept() -> None:
    assert taken([Rule(Kind.THROTTLE), Rule(Kind.HOLD)], [(ACK, "a")] * 3) == ["1", "2", None]


def test_a_call_to_which_a_rule_can_do_nothing_does_not_match_it() -> None:
    faults = Faults()
    (fault,) = faults.add([Rule(Kind.DUPLICATE_OFFER)])

    assert faults.take(POLL, None, lambda _rule: False) is None
    assert fault.matched == 0
    assert faults.take(POLL, None, lambda _rule: True) is fault


@pytest.mark.parametrize(
    ("kind", "operation", "befalls"),
    [
        (Kind.DUPLICATE_OFFER, POLL, True),
        (Kind.DUPLICATE_OFFER, ACK, False),
        (Kind.STALE_NONCE, "GetThirdPartyJobDetails", True),
        (Kind.STALE_NONCE, "GetJobDetails", False),
        (Kind.FOREIGN_ACKNOWLEDGE, "AcknowledgeThirdPartyJob", True),
        (Kind.FOREIGN_ACKNOWLEDGE, PUT, False),
        (Kind.ABANDON, PUT, True),
        (Kind.ABANDON, POLL, False),
        (Kind.TIME_OUT, POLL, False),
        (Kind.DROP_BEFORE, POLL, True),
    ],
)
def test_a_rule_for_all_calls_befalls_those_that_its_kind_can(
    kind: Kind, operation: str, *, befalls: bool
) -> None:
    assert (taken([Rule(kind)], [(operation, "a")]) == ["1"]) is befalls


def test_a_duplicate_offer_names_the_job_that_the_poll_shows() -> None:
    assert Rule(Kind.DUPLICATE_OFFER, job_id="a").matches(POLL, None)
    assert not Rule(Kind.DROP_AFTER, job_id="a").matches(POLL, None)


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"kind": Kind.ERROR}, "needs error"),
        ({"kind": Kind.DELAY}, "needs seconds"),
        ({"kind": Kind.THROTTLE, "error": "X"}, "error means nothing"),
        ({"kind": Kind.DROP_AFTER, "status": 500}, "status means nothing"),
        ({"kind": Kind.HOLD, "seconds": 1}, "seconds means nothing"),
        ({"kind": Kind.DROP_AFTER, "bytes": 1}, "bytes means nothing"),
        ({"kind": Kind.TRUNCATE, "when": When.AFTER}, "when means nothing"),
        ({"kind": Kind.DUPLICATE_OFFER, "operation": ACK}, "cannot befall"),
        ({"kind": Kind.STALE_NONCE, "operation": "GetJobDetails"}, "cannot befall"),
        ({"kind": Kind.ABANDON, "operation": POLL}, "cannot befall"),
        ({"kind": Kind.DROP_AFTER, "operation": POLL, "job_id": "a"}, "names no job"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(members: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Rule(**members)


def test_rules_are_numbered_shown_and_removed() -> None:
    faults = Faults()
    assert not faults
    one, two = faults.add([Rule(Kind.HOLD, ACK, job_id="a", when=When.AFTER), Rule(Kind.THROTTLE)])
    faults.take(ACK, "a")

    assert faults.get() == [one, two]
    assert faults.get("2") == [two]
    assert faults.get("3") == []
    assert one.show() == {
        "id": "1",
        "kind": "hold",
        "operation": ACK,
        "jobId": "a",
        "after": 0,
        "seed": 0,
        "when": "after",
        "matched": 1,
        "taken": 1,
    }
    faults.remove([one])
    assert faults.get() == [two]
    faults.remove([two])
    assert not faults
    (three,) = faults.add([Rule(Kind.THROTTLE)])
    assert isinstance(three, Fault)
    assert three.id == "3"


@pytest.mark.parametrize(
    ("end", "status"), [(Machine.abandon, Status.FAILED), (Machine.time_out, Status.TIMED_OUT)]
)
def test_a_job_that_was_ended_from_outside_never_comes_back(
    end: Callable[[Machine, str], object], status: Status
) -> None:
    now = [1000.0]
    machine = Machine(Options(), lambda: now[0])
    build = ActionType("Build", "Custom", "Mine", "1")
    works = [Work(build, {}, "P", "S", "A") for _ in range(2)]
    dispatched, queued = machine.submit(works)
    machine.poll(Owner.CUSTOM, build, 1, {})
    machine.offer_again(dispatched)

    for job in (dispatched, queued):
        end(machine, job.id)
    now[0] += 100_000

    assert machine.poll(Owner.CUSTOM, build, 10, {}) == []
    assert [job.status for job in machine.jobs()] == [status] * 2
    with pytest.raises(ValueError, match="has ended"):
        end(machine, queued.id)
    with pytest.raises(ValueError, match="no job"):
        end(machine, "unknown")


def test_a_job_offered_again_is_not_lost_when_its_window_ends_first() -> None:
    now = [1000.0]
    machine = Machine(Options(), lambda: now[0])
    build = ActionType("Build", "Custom", "Mine", "1")
    (job,) = machine.submit([Work(build, {}, "P", "S", "A")])
    machine.poll(Owner.CUSTOM, build, 1, {})
    old = job.nonce
    machine.offer_again(job)
    now[0] += 31

    offers = [machine.poll(Owner.CUSTOM, build, 1, {}) for _ in range(2)]

    assert offers == [[job], []]
    assert job.nonce != old == job.previous_nonce


KEYED = ActionType("Build", "Custom", "Keyed", "1")


@pytest.mark.parametrize(
    ("operation", "more", "found"),
    [
        (POLL, {"queryParam": {"Project": "shop"}}, True),
        (POLL, {"queryParam": {"Project": "other"}}, False),
        (POLL, {"queryParam": ["Project"]}, False),
        (POLL, {"actionTypeId": vars(KEYED) | {"version": "2"}}, False),
        ("PollForThirdPartyJobs", {"queryParam": {"Project": "shop"}}, False),
    ],
)
def test_a_job_is_shown_again_only_to_polls_of_its_queue(
    operation: str, more: dict[str, Any], *, found: bool
) -> None:
    machine = Machine(Options(), lambda: 0.0)
    machine.define(KEYED, Rules("Project"))
    machine.submit([Work(KEYED, {"Project": "shop"}, "P", "S", "A")])
    request = {"actionTypeId": vars(KEYED)} | more
    rule = Rule(Kind.DUPLICATE_OFFER)

    before = possible(machine, rule, operation, request)
    machine.poll(Owner.CUSTOM, KEYED, 1, {"Project": "shop"})

    assert not before
    assert possible(machine, rule, operation, request) is found


def test_what_can_befall_a_job_depends_on_its_state() -> None:
    machine = Machine(Options(), lambda: 0.0)
    (job,) = machine.submit([Work(KEYED, {}, "P", "S", "A")])
    kinds = [Kind.FOREIGN_ACKNOWLEDGE, Kind.STALE_NONCE, Kind.ABANDON, Kind.TIME_OUT, Kind.HOLD]

    def can() -> list[Kind]:
        request = {"jobId": job.id}
        return [kind for kind in kinds if possible(machine, Rule(kind), ACK, request)]

    assert can() == kinds[2:]  # it has no nonce yet
    machine.poll(Owner.CUSTOM, KEYED, 1, {})
    assert can() == kinds
    machine.acknowledge(Caller(Owner.CUSTOM, job.id), job.nonce or "")
    assert can() == kinds[1:]
    machine.abandon(job.id)
    assert can() == [Kind.STALE_NONCE, Kind.HOLD]


def test_a_call_that_waits_is_released_once() -> None:
    async def scene() -> tuple[list[int], int, bool]:
        waits = Waits()
        call = asyncio.create_task(waits.wait("1", None))
        await asyncio.sleep(0)
        released = [waits.release(["1", "2"]) for _ in range(2)]
        return released, waits.held("1"), await call

    assert asyncio.run(scene()) == ([1, 0], 0, True)
