"""Small faults put into the engine, each of which the search finds that the engine itself passes.

-rP shows by which seed, and what broke."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from redis import Redis

from dispatcher.engine import delivery, handshake, lifecycle
from dispatcher.engine.handshake import Handshake, Step
from dispatcher.engine.leases import Held, Leases
from dispatcher.engine.model import Ack, Again, Begun, How, Overdue, Store
from dispatcher.engine.report import Reporter
from dispatcher.engine.sweep import Sweeper
from dispatcher.store import ledger
from tests.engine.search import search
from tests.engine.settings import SETTINGS
from tests.engine.world import World, doing

Change = Callable[[pytest.MonkeyPatch], None]


def lua(*texts: tuple[str, str]) -> Change:
    """In the ledger's scripts the second text stands for the first."""

    def change(patch: pytest.MonkeyPatch) -> None:
        prelude, scripts = ledger._sources()
        for old, new in texts:
            assert prelude.count(old) + sum(body.count(old) for _, body in scripts) == 1, old
            prelude = prelude.replace(old, new)
            scripts = [(name, body.replace(old, new)) for name, body in scripts]
        patch.setattr(ledger, "_sources", lambda: (prelude, scripts))

    return change


def all_of(*changes: Change) -> Change:
    def change(patch: pytest.MonkeyPatch) -> None:
        for one in changes:
            one(patch)

    return change


def no_first_heartbeat(patch: pytest.MonkeyPatch) -> None:
    def start(leases: Leases, held: Held) -> bool:
        held.deadline = leases._clock.monotonic() + held.spec.time_limit.total_seconds()
        return True

    patch.setattr(Leases, "start", start)


def no_outbox(patch: pytest.MonkeyPatch) -> None:
    store = Reporter._store

    def unstored(reporter: Reporter, held: Held, arm: Store | Again) -> bool | None:
        return True if isinstance(arm, Store) else store(reporter, held, arm)

    patch.setattr(Reporter, "_store", unstored)


def no_second_put(patch: pytest.MonkeyPatch) -> None:
    hand_on = Sweeper.hand_on

    def without_verdicts(sweeper: Sweeper, overdue: Overdue, why: str) -> bool:
        return True if overdue.verdict else hand_on(sweeper, overdue, why)

    patch.setattr(Sweeper, "hand_on", without_verdicts)


def no_random_part(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(delivery, "_owner", lambda actor: actor)


def any_age(patch: pytest.MonkeyPatch) -> None:
    next_try = handshake.next_try

    def always(known: Handshake, *, fresh: bool) -> Step:
        return next_try(known, fresh=True)

    patch.setattr(handshake, "next_try", always)


def no_new_acknowledgement(patch: pytest.MonkeyPatch) -> None:
    def must(begun: Begun) -> bool:
        return begun.ack is Ack.NO and begun.how is not How.SEND

    patch.setattr(lifecycle, "must_acknowledge", must)


FORGETS_A_DEATH = lua(
    ("r.ack == 'no' and 'inherited' or 'acked'", "r.ack == 'no' and 'fresh' or 'acked'")
)
FORGETS_NONCES = lua(("tried = calls and r.tried or nil", "tried = nil"))
IGNORES_ACK = lua(
    (
        "if not r then return drop('no record') end",
        "if not r then return drop('no record') end\nif r.state == 'running' then r.ack = 'no' end",
    )
)
DELETES = lua(
    (
        """write(args.job, {state = 'queued', ack = 'no', deaths = 0, publish_at = 0, lease = 0})
  unlook(args.job, r.type)
  list('waiting', args.job, r.type)
  keep(args.job, DAY)
  note(args.job, 'parked', args.why)""",
        """unlook(args.job, r.type)
  redis.call('DEL', key, key .. ':timeline')""",
    )
)
OUTRANKS = lua(
    (
        "claim.ack == 'sure' and r.ack ~= 'sure' and r.attempt <= claim.attempt",
        "claim.ack == 'sure'",
    )
)
REMEMBERS_OLD = lua(
    (
        "if not nonce or now - offered >= args.fresh then return tried",
        "if not nonce then return tried",
    )
)


@dataclass(frozen=True)
class Mutant:
    """`seed`: where it was found, hence where the search begins."""

    change: Change
    setting: str
    seed: int


MUTANTS = {
    "begin forgets an earlier begin": Mutant(all_of(FORGETS_A_DEATH, FORGETS_NONCES), "late", 3),
    "begin ignores the acknowledgement": Mutant(IGNORES_ACK, "fail", 1),
    "no first heartbeat": Mutant(no_first_heartbeat, "status", 1),
    "the record is deleted instead of parked": Mutant(DELETES, "late", 6),
    "an acknowledgement outranks any owner": Mutant(OUTRANKS, "frozen", 32),
    "no verdict is stored": Mutant(no_outbox, "rerun", 30),
    "no stored verdict is published again": Mutant(no_second_put, "rerun", 9),
    "an owner has no random part": Mutant(no_random_part, "status", 7),
    "a nonce is sent however old": Mutant(any_age, "foreign", 133),
    "a nonce is sent and remembered however old": Mutant(
        all_of(any_age, REMEMBERS_OLD), "foreign", 74
    ),
    "a parked verdict is sent without a new acknowledgement": Mutant(
        no_new_acknowledgement, "late", 6
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_of_the_engine_is_found(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    mutant = MUTANTS[name]
    mutant.change(monkeypatch)

    found = search(redis, SETTINGS[mutant.setting], mutant.seed)

    print(f"{name}: {mutant.setting}, {found}")  # noqa: T201 - which invariant broke
    assert found is not None


@pytest.mark.parametrize("forgets", [False, True])
def test_an_heir_that_takes_itself_for_the_first_starts_what_a_forgotten_heartbeat_started(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, forgets: bool
) -> None:
    """The nonces alone tell it whose the job is, so that the search finds no harm in this one."""
    if forgets:
        FORGETS_A_DEATH(monkeypatch)
    world = World(redis)
    ref = world.offered(world.action())
    worker = world.worker()
    worker.line.next("heartbeat", world.forgetting)
    world.handler = doing(lambda: None if worker.line.dead else worker.line.die())
    worker.job(ref)

    world.recover()

    assert len(world.runs) == (2 if forgets else 1)
