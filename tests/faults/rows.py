"""The fault matrix: what befalls a fleet, each row on a stage of its own.

A row leaves the stage mended: what it broke works again, what it killed was started again."""

from dataclasses import dataclass, field

from tests.faults.aws import (
    away,
    clock_off,
    closed_while_running,
    flaky,
    foreign_acknowledgement,
    half_open_aws,
    late_handlers,
    offered_twice,
    slow,
    stale_nonces,
    throttled,
    unanswered,
    wrong_credentials,
)
from tests.faults.crashes import (
    after_lease,
    after_offers,
    crashes,
    kill_beat,
    kill_under_load,
    lost_machine,
    pairs,
    poison,
    term_under_load,
)
from tests.faults.outages import (
    cut_redis,
    doubled_messages,
    empty_redis,
    freeze_redis,
    freeze_worker,
    half_open_redis,
    lost_messages,
    no_tokens,
    redis_clock,
    refusing,
    restart_redis,
    revoked,
    two_of_each,
    workers_clocks,
)
from tests.faults.stage import Clocks, Run
from tests.faults.storage import flaky_storage, keys_end, killed_while_uploading, storage_away


@dataclass(frozen=True)
class Row:
    """`times`: in the long set. `pools`: one of them a run, in turns."""

    name: str
    run: Run
    times: int = 6
    pools: tuple[str, ...] = ("prefork", "threads")
    slots: int = 4
    emulator: tuple[str, ...] = ()
    settings: dict[str, str] = field(default_factory=dict, hash=False)
    long_only: bool = False
    clocks: bool = False  # it sets those of workers and Redis, which needs a C compiler


DEFAULTS = {
    f"DISPATCHER_{name}": value
    for name, value in {
        "POLL_INTERVAL": "1",
        "POLL_INTERVAL_MAX": "5",
        "ACK_WINDOW": "30",
        "LEASE": "60",
        "SWEEP_INTERVAL": "10",
        "SHUTDOWN_GRACE": "20",
    }.items()
}
FULL = {"maxmemory": "1"}
NOT_FULL = {"maxmemory": "0"}
REAL_LEASE = {"DISPATCHER_LEASE": "60"}
READ_ONLY = {"min-replicas-to-write": "1"}  # as a primary that lost its replicas: it refuses writes
WRITABLE = {"min-replicas-to-write": "0"}

ALL = [
    Row("child killed at a point", crashes("child", range(4, 17)), 26, ("prefork",), slots=1),
    Row("worker killed at a point", crashes("worker", range(4, 17)), 26, slots=1),
    Row("poller killed at a point", crashes("worker", range(1, 4)), 6, slots=1),
    Row("all killed at a point", crashes("all", range(1, 17)), 32, slots=1),
    Row("all killed under load", kill_under_load),
    Row("beat killed", kill_beat, 4),
    Row("SIGTERM under load", term_under_load),
    Row("worker frozen beyond its lease", freeze_worker),
    Row("Redis frozen 5 s", freeze_redis(5), 4, settings={"DISPATCHER_LEASE": "15"}),
    Row("Redis frozen 20 s", freeze_redis(20), 4, settings=REAL_LEASE, long_only=True),
    Row("Redis frozen 120 s", freeze_redis(120), 2, long_only=True),
    Row("Redis half-open", half_open_redis),
    Row("connections to Redis cut", cut_redis),
    Row("AWS half-open", half_open_aws, 4),
    Row("Redis killed, restarted", restart_redis),
    Row("Redis emptied", empty_redis),
    Row("Redis full", refusing("Redis full", FULL, NOT_FULL)),
    Row("Redis read-only", refusing("Redis read-only", READ_ONLY, WRITABLE)),
    Row("Redis's password changed", revoked),
    Row("messages lost", lost_messages),
    Row("messages doubled, and late", doubled_messages),
    Row("two beats, four pollers", two_of_each, 4),
    Row("answers lost after applying", unanswered),
    Row("AWS flaky, 1 % of calls", flaky(0.01), 4, long_only=True),
    Row("AWS flaky, 20 % of calls", flaky(0.2)),
    Row("AWS away", away(10), 4),
    Row("AWS away 10 minutes", away(600), 1, long_only=True),
    Row("AWS slow", slow, 4),
    Row("jobs offered twice", offered_twice),
    Row("stale nonces", stale_nonces),
    Row("another worker acknowledges first", foreign_acknowledgement),
    Row("closed while running", closed_while_running),
    Row("queue longer than the window", late_handlers, 2),
    Row("AWS credentials refused", wrong_credentials, 4),
    Row("AWS's clock off", clock_off, 4),
    Row("workers' clocks step by 5 minutes", workers_clocks, 4, clocks=True),
    Row("Redis's clock steps ahead", redis_clock(300), 4, clocks=True),
    Row("Redis's clock steps back", redis_clock(-8), 4, clocks=True),
    Row("AWS throttles", throttled, 4, emulator=("--rate", "12")),
    Row("machine lost in a handler", lost_machine(11, after_lease), 2),
    Row("machine lost unacknowledged", lost_machine(6, after_offers), 2),
    Row("machine lost in a handler, default times", lost_machine(11, after_lease), 2,
        settings=DEFAULTS, long_only=True),
    Row("machine lost unacknowledged, default times", lost_machine(6, after_offers), 2,
        settings=DEFAULTS, long_only=True),
    Row("token store down", no_tokens, 4),
    Row("S3 flaky", flaky_storage),
    Row("S3 away", storage_away, 4),
    Row("session keys end early", keys_end, 4, emulator=("--credentials-lifetime", "0.05")),
    Row("all killed while uploading", killed_while_uploading),
    Row("handlers that misbehave", poison, 4),
    Row("two faults at once", pairs, 12),
]  # fmt: skip
ROWS = [row for row in ALL if Clocks.COMPILER is not None or not row.clocks]
BY_NAME = {row.name: row for row in ROWS}
