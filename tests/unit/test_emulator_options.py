"""Each thing that AWS leaves open: what the emulator does by default, and when told otherwise."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from dispatcher.emulator.calls import CALLS
from dispatcher.emulator.jobs import ActionType, Caller, CallError, Job, Owner, Status, Work
from dispatcher.emulator.machine import Machine
from dispatcher.emulator.options import KINDS, MEANINGS, Options
from dispatcher.emulator.throttle import Throttle

DEPLOY = ActionType("Deploy", "ThirdParty", "Acme", "1")
BUILD = ActionType("Build", "Custom", "Mine", "1")


class Scene:
    """A machine under some options, and the calls as a worker makes them."""

    def __init__(self, **options: Any) -> None:
        self.now = 1000.0
        self.machine = Machine(Options(**options), lambda: self.now)

    def submit(self, action_type: ActionType = DEPLOY, count: int = 1) -> list[Job]:
        return self.machine.submit(
            [Work(action_type, {}, "P", "S", "A", "client", "token") for _ in range(count)]
        )

    def call(self, operation: str, **request: Any) -> Any:
        return CALLS[operation].run(self.machine, request)

    def poll(self, action_type: ActionType = DEPLOY, **more: Any) -> list[str]:
        operation = "PollForJobs" if action_type.owner == "Custom" else "PollForThirdPartyJobs"
        answer = self.call(operation, actionTypeId=vars(action_type), **more)
        return [job.get("jobId") or job["id"] for job in answer.body["jobs"]]

    def details(self, job: Job) -> dict[str, Any]:
        answer = self.call("GetThirdPartyJobDetails", jobId=job.id, clientToken="token")
        return dict(answer.body["jobDetails"])

    def acknowledge(self, job: Job, nonce: str | None = None) -> str:
        answer = self.call(
            "AcknowledgeThirdPartyJob",
            jobId=job.id,
            clientToken="token",
            nonce=nonce or job.nonce,
        )
        return str(answer.body["status"])

    def succeed(self, job: Job, token: str | None = None) -> bool:
        answer = self.call(
            "PutThirdPartyJobSuccessResult",
            jobId=job.id,
            clientToken="token",
            continuationToken=token,
        )
        return bool(answer.applied)

    def running(self) -> Job:
        (job,) = self.submit()
        self.poll()
        self.acknowledge(job)
        return job


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(CallError) as caught:
        call()
    return caught.value.code


def test_every_one_is_told_in_a_sentence() -> None:
    assert KINDS.keys() == MEANINGS.keys() == vars(Options()).keys()
    assert all(text.endswith(".") for text in MEANINGS.values())


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, "ValidationException"), ({"wrong_owner": "InvalidJobException"}, "InvalidJobException")],
)
def test_a_poll_for_another_owner(options: dict[str, str], expected: str) -> None:
    scene = Scene(**options)

    assert code_of(lambda: scene.call("PollForJobs", actionTypeId=vars(DEPLOY))) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "InvalidClientTokenException"),
        ({"wrong_client_token": "JobNotFoundException"}, "JobNotFoundException"),
    ],
)
def test_a_wrong_client_token(options: dict[str, str], expected: str) -> None:
    scene = Scene(**options)
    (job,) = scene.submit()
    request = {"jobId": job.id, "clientToken": "other"}

    assert code_of(lambda: scene.call("GetThirdPartyJobDetails", **request)) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, "InvalidJobException"), ({"custom_job": "JobNotFoundException"}, "JobNotFoundException")],
)
def test_details_of_a_custom_job(options: dict[str, str], expected: str) -> None:
    scene = Scene(**options)
    (job,) = scene.submit(BUILD)

    assert code_of(lambda: scene.details(job)) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "ValidationException"),
        ({"constraint": "SerializationException"}, "SerializationException"),
    ],
)
def test_a_request_that_breaks_the_model(options: dict[str, str], expected: str) -> None:
    assert code_of(lambda: Scene(**options).call("PollForJobs")) == expected


def test_a_second_acknowledgement() -> None:
    strict, mild = Scene(), Scene(second_ack="status")
    first, second = strict.running(), mild.running()

    assert code_of(lambda: strict.acknowledge(first)) == "InvalidNonceException"
    assert mild.acknowledge(second) == "InProgress"


def test_a_late_acknowledgement() -> None:
    mild, strict = Scene(), Scene(late_ack="error")
    for scene in (mild, strict):
        scene.submit()
        scene.poll()
        scene.now += 31

    assert mild.acknowledge(mild.machine.jobs()[0]) == "InProgress"
    assert code_of(lambda: strict.acknowledge(strict.machine.jobs()[0])) == "InvalidNonceException"


def test_a_second_result() -> None:
    strict, mild = Scene(), Scene(second_put="ignore")
    first, second = strict.running(), mild.running()
    assert strict.succeed(first)
    assert mild.succeed(second)

    assert code_of(lambda: strict.succeed(first)) == "InvalidJobStateException"
    assert not mild.succeed(second, "step 2")
    assert second.next is None


@pytest.mark.parametrize(
    ("new_nonce", "by_details", "by_offer"),
    [("dispatch", False, True), ("details", True, True), ("never", False, False)],
)
def test_when_a_nonce_changes(new_nonce: str, by_details: bool, by_offer: bool) -> None:
    scene = Scene(new_nonce=new_nonce)
    (job,) = scene.submit()
    scene.poll()
    seen = [scene.details(job)["nonce"] for _ in range(2)]
    scene.now += 31
    scene.poll()
    again = str(job.nonce)

    assert (seen[0] != seen[1]) is by_details
    assert (again != seen[1]) is by_offer
    assert scene.acknowledge(job, again) == "InProgress"


def test_details_of_a_running_job() -> None:
    mild, strict = Scene(), Scene(running_details="error")
    job = mild.running()

    keys = [mild.details(job)["data"]["artifactCredentials"] for _ in range(2)]
    assert keys[0] != keys[1]
    assert code_of(lambda: strict.details(strict.running())) == "InvalidJobException"


def test_an_abandoned_action() -> None:
    told, untold = Scene(), Scene(abandoned="unseen")
    first, second = told.running(), untold.running()
    told.machine.abandon(first.id)
    untold.machine.abandon(second.id)

    assert code_of(lambda: told.succeed(first)) == "InvalidJobStateException"
    assert untold.succeed(second)


@pytest.mark.parametrize(
    ("execution_id", "same", "there"),
    [("action", True, True), ("job", False, True), ("absent", True, False)],
)
def test_the_id_of_an_action_s_execution(execution_id: str, same: bool, there: bool) -> None:
    scene = Scene(execution_id=execution_id, continuation_delay=timedelta())
    job = scene.running()
    scene.succeed(job, "step 2")
    following = scene.machine.jobs(job.next)[0]

    ids = [
        scene.details(each)["data"]["pipelineContext"]["action"].get("actionExecutionId")
        for each in (job, following)
    ]

    assert (ids[0] == ids[1]) is same
    assert all(ids) is there


def test_which_job_is_offered_first() -> None:
    oldest, newest = Scene(), Scene(order="lifo")
    expected = [job.id for job in oldest.submit(count=3)]
    backwards = [job.id for job in newest.submit(count=3)][::-1]

    assert oldest.poll(maxBatchSize=9) == expected
    assert newest.poll(maxBatchSize=9) == backwards


@pytest.mark.parametrize("order", ["fifo", "lifo"])
def test_a_job_shown_twice_comes_first_in_either_order(order: str) -> None:
    scene = Scene(order=order)
    scene.submit(count=2)
    (shown,) = scene.poll()
    scene.machine.offer_again(scene.machine.jobs(shown)[0])

    assert scene.poll() == [shown]


def test_how_many_come_when_no_number_is_asked_for() -> None:
    scenes = Scene(), Scene(default_batch=2), Scene(default_batch=5, batch_cap=3)
    for scene in scenes:
        scene.submit(count=9)

    assert [len(scene.poll()) for scene in scenes] == [1, 2, 3]


@pytest.mark.parametrize(
    ("options", "action_type", "hours"),
    [
        ({}, DEPLOY, 1),
        ({}, BUILD, 24),
        ({"action_timeout": timedelta(hours=2)}, DEPLOY, 2),
        ({"action_timeout": timedelta(hours=2)}, BUILD, 2),
    ],
)
def test_an_action_s_own_time_ends_a_job_in_any_state(
    options: dict[str, timedelta], action_type: ActionType, hours: float
) -> None:
    scene = Scene(**options)
    (job,) = scene.submit(action_type)

    scene.now += hours * 3600 - 1
    scene.machine.advance()
    before = job.status
    scene.now += 1
    scene.machine.advance()

    assert (before, job.status) == (Status.QUEUED, Status.TIMED_OUT)
    assert scene.poll(action_type) == []


def test_a_continuation_does_not_prolong_its_action() -> None:
    scene = Scene(continuation_delay=timedelta())
    job = scene.running()
    scene.now += 3000
    scene.succeed(job, "step 2")
    following = scene.machine.jobs(job.next)[0]

    scene.now += 600
    scene.machine.advance()

    assert following.status is Status.TIMED_OUT
    assert job.status is Status.SUCCEEDED


def test_a_rate_lets_a_second_s_worth_through_and_then_its_share() -> None:
    now = [0.0]
    throttle = Throttle(4, lambda: now[0])

    at_once = [throttle.takes() for _ in range(6)]
    now[0] += 0.5
    later = [throttle.takes() for _ in range(3)]
    now[0] -= 10  # a clock that is put back takes nothing away
    now[0] += 3600
    much_later = [throttle.takes() for _ in range(5)]

    assert at_once == [True] * 4 + [False] * 2
    assert later == [True] * 2 + [False]
    assert much_later == [True] * 4 + [False]


def test_a_rate_below_one_a_second_lets_calls_through_some_day() -> None:
    now = [0.0]
    throttle = Throttle(0.5, lambda: now[0])
    taken = []
    for _ in range(5):
        taken.append(throttle.takes())
        now[0] += 1

    assert taken == [True, False, True, False, True]


def test_without_a_rate_all_calls_are_answered() -> None:
    throttle = Throttle(0, lambda: 0.0)

    assert all(throttle.takes() for _ in range(1000))


def test_artifacts_are_handed_out_as_given() -> None:
    scene = Scene()
    artifacts = {"inputArtifacts": [{"name": "App"}], "encryptionKey": {"id": "k", "type": "KMS"}}
    scene.machine.submit([Work(DEPLOY, {}, "P", "S", "A", "client", "token", artifacts=artifacts)])

    data = scene.details(scene.machine.jobs()[0])["data"]

    assert data["inputArtifacts"] == artifacts["inputArtifacts"]
    assert data["encryptionKey"] == artifacts["encryptionKey"]
    assert data["outputArtifacts"] == []


def test_a_caller_names_the_owner_of_its_calls() -> None:
    scene = Scene()
    (job,) = scene.submit(BUILD)

    with pytest.raises(CallError):
        scene.machine.details(Caller(Owner.THIRD_PARTY, job.id, "token"))
