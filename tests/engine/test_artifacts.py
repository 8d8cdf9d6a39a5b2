"""The handler's artifacts: what it is given, and what must be there at its end."""

from datetime import timedelta

from dispatcher.engine.model import Belongings, Place, SessionKeys
from dispatcher.engine.ports import Event, Transfers
from dispatcher.sdk import Continue, Job, JobFailed, Outcome, Owner, Retry, Succeeded
from tests.engine.world import World, doing, failure_type, raising

KEYS = SessionKeys("ASIA-canary", "secret-canary", "token-canary")
BELONGINGS = Belongings(
    inputs=(Place("Source", "bucket", "in", "commit-7"),),
    outputs=(Place("App", "bucket", "app"), Place("Log", "bucket", "log")),
    keys=KEYS,
)


def building(*names: str) -> Belongings:
    return Belongings(outputs=tuple(Place(name, "bucket", name) for name in names), keys=KEYS)


def test_a_handler_is_given_its_artifacts_by_name_and_in_order(world: World) -> None:
    world.asked.belongings = BELONGINGS
    world.store.objects["in"] = b"source"

    def build(job: Job[None]) -> Outcome:
        assert list(job.inputs) == ["Source"]
        assert list(job.outputs) == ["App", "Log"]
        assert job.inputs.only().revision == "commit-7"
        job.outputs["App"].write_bytes(job.inputs["Source"].read_bytes().upper())
        job.outputs["Log"].write_bytes(b"built")
        assert list(job.workdir.iterdir()) == []
        return Succeeded()

    world.handler = build
    ref = world.offered(world.action(Owner.CUSTOM))

    world.worker().job(ref)

    assert world.accepted[ref.job_id] == 1
    assert world.store.objects == {"in": b"source", "app": b"SOURCE", "log": b"built"}


def test_success_without_a_declared_output_is_told_as_a_failure(world: World) -> None:
    world.asked.belongings = building("App", "Log")

    def build(job: Job[None]) -> Outcome:
        job.outputs["App"].write_bytes(b"x")
        return Succeeded()

    world.handler = build
    ref = world.offered(world.action())

    world.worker().job(ref)

    assert failure_type(world.verdict(ref)) == "ConfigurationError"


def test_a_step_that_goes_on_need_not_have_written_its_outputs_nor_the_last_one_again(
    world: World,
) -> None:
    world.asked.belongings = building("App")
    action = world.action()
    first = world.offered(action)
    world.handler = lambda job: Continue("1") if job.continuation is None else Succeeded()

    world.worker().job(first)
    world.clock.advance(30)
    (second,) = world.offer(action)
    world.worker().job(second)

    assert [world.accepted[ref.job_id] for ref in (first, second)] == [1, 1]
    assert world.status(second) == "Succeeded"


def test_a_run_after_a_retry_need_not_write_its_outputs_again(world: World) -> None:
    world.asked.belongings = building("App")

    def build(job: Job[None]) -> Outcome:
        if job.attempt == 1:
            job.outputs["App"].write_bytes(b"x")
            raise Retry(timedelta(seconds=1))
        return Succeeded()

    world.handler = build
    ref = world.offered(world.action())
    world.worker().job(ref)
    world.clock.advance(2)

    world.worker().job(ref)

    assert world.status(ref) == "Succeeded"


def test_a_failure_is_told_as_it_is_whatever_was_not_written(world: World) -> None:
    world.asked.belongings = building("App")
    world.handler = raising(JobFailed("broken"))
    ref = world.offered(world.action())

    world.worker().job(ref)

    assert failure_type(world.verdict(ref)) == "JobFailed"


def test_the_jobs_session_keys_are_secrets_to_the_log_of_a_bug(world: World) -> None:
    world.asked.belongings = BELONGINGS
    world.handler = raising(ValueError("token-canary"))
    ref = world.offered(world.action())

    world.worker().job(ref)

    (bug,) = world.observer.all(Event.BUG)
    secrets = bug.fields["secrets"]
    assert isinstance(secrets, tuple)
    assert {"ASIA-canary", "secret-canary", "token-canary", "bucket", "app"} <= set(secrets)


def test_new_keys_come_from_the_jobs_details(world: World) -> None:
    world.asked.belongings = BELONGINGS
    renewed = SessionKeys("ASIA2", "s2", "t2")

    def renew() -> None:
        world.asked.belongings = Belongings(keys=renewed)

    world.store.before_renewal = renew
    ref = world.offered(world.action(Owner.CUSTOM))
    world.handler = doing(lambda: None)

    world.worker().job(ref)

    assert world.store.renewed == [renewed]


def test_a_long_transfer_is_told_every_ten_seconds_and_noted_beside_the_authors_percent(
    world: World,
) -> None:
    notes: list[tuple[int | None, str]] = []

    def transfer(transfers: Transfers) -> None:
        for second in range(26):
            assert transfers.moved("download", "Source", second * 2**20, 25 * 2**20)
            world.clock.sleep(1)
        look()
        transfers.ended("download", "Source", 25 * 2**20)
        transfers.ended("download", "Other", None)

    def watch(job: Job[None]) -> Outcome:
        job.progress(40, "mine")
        world.store.transfer(transfer)
        look()
        return Succeeded()

    def look() -> None:
        (held,) = worker.leases.holding()
        beat = held.beat()
        notes.append((beat.percent, beat.note))

    worker = world.worker()
    world.handler = watch
    ref = world.offered(world.action(Owner.CUSTOM))

    worker.job(ref)

    told = world.observer.all(Event.TRANSFERRING)
    assert [one.fields["bytes"] for one in told] == [10 * 2**20, 20 * 2**20]
    assert notes == [(40, "download of Source: 20 of 25 MiB"), (40, "mine")]
    (ended,) = world.observer.all(Event.TRANSFERRED)
    assert ended.fields["bytes"] == 25 * 2**20


def test_a_transfer_is_told_to_end_once_the_jobs_time_is_over(world: World) -> None:
    answers: list[bool] = []

    def watch(job: Job[None]) -> Outcome:
        def transfer(transfers: Transfers) -> None:
            answers.append(transfers.moved("upload", "App", 1, 2))
            (held,) = worker.leases.holding()
            held.lost = True
            answers.append(transfers.moved("upload", "App", 2, 2))

        world.store.transfer(transfer)
        return Succeeded()

    worker = world.worker()
    world.handler = watch
    ref = world.offered(world.action(Owner.CUSTOM))

    worker.job(ref)

    assert answers == [True, False]
