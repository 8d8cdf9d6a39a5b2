"""What lives are made of. Small ones with few faults, which a search takes seed by seed.

A setting leaves out what no design can hide there: Redis that forgets comes without another fault;
beside another fleet neither a status for a second acknowledgement, nor a custom job's nonce, which
cannot be read again, proves anything."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from dispatcher.sdk import OnCrash, Owner
from tests.engine.troubles import POINTS, USUAL, Trouble


@dataclass(frozen=True)
class Setting:
    """Of a tuple each job, fault or life takes one."""

    on_crash: tuple[OnCrash, ...] = tuple(OnCrash)
    owners: tuple[Owner, ...] = (Owner.THIRD_PARTY,)
    faults: int | None = 2  # None: ever more
    troubles: tuple[Trouble, ...] = USUAL
    points: tuple[str, ...] = POINTS
    second_ack: tuple[Literal["error", "status"], ...] = ("error",)
    late_ack: tuple[Literal["accept", "error"], ...] = ("accept",)
    foreign: bool = False
    retry: bool = False
    pause: bool = False
    jobs: int = 1
    steps: int = 150
    punctual: bool = False  # messages take no time
    gentle: bool = False  # calls take none either
    seeds: range = range(100)

    @property
    def presumes(self) -> bool:
        """Where an heir cannot always know whether AWS took its predecessor's acknowledgement."""
        return Owner.CUSTOM in self.owners or "error" in self.late_ack


# Where a fault leaves it open whose the job is.
TAKING = Setting(troubles=(Trouble.CRASH, Trouble.ANSWER), points=("begin", "acknowledge"))
SETTINGS: Mapping[str, Setting] = {
    "fail": Setting(on_crash=(OnCrash.FAIL,)),
    "rerun": Setting(on_crash=(OnCrash.RERUN,)),
    "status": Setting(on_crash=(OnCrash.FAIL,), second_ack=("status",)),
    "retry and pause": Setting(retry=True, pause=True),
    "custom": Setting(owners=(Owner.CUSTOM,)),
    "late": replace(TAKING, late_ack=("error",), punctual=True),
    "foreign": replace(TAKING, foreign=True, seeds=range(250)),
    "frozen": Setting(
        troubles=(Trouble.FREEZE,),
        points=("acknowledge", "heartbeat", "handler", "finish", "put"),
        second_ack=("error", "status"),
        seeds=range(150),
    ),
    "forgetful": Setting(troubles=(Trouble.WRITE,), faults=1, retry=True),
    "wiped": Setting(troubles=(Trouble.WIPE,), faults=1),
}
