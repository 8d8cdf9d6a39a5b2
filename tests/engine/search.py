"""The search for a life that breaks what must hold."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from redis import Redis

from tests.engine.judge import Broken
from tests.engine.lives import Life
from tests.engine.settings import Setting
from tests.engine.troubles import Where


@dataclass(frozen=True)
class Violation:
    seed: int
    broken: frozenset[Broken]
    story: tuple[str, ...]

    def __str__(self) -> str:
        return f"seed {self.seed}: {', '.join(sorted(self.broken))}"

    def told(self) -> str:
        return "\n".join([str(self), *self.story])


def lives(
    redis: Redis, setting: Setting, seeds: Iterable[int], at: Where | None = None
) -> Iterator[Life]:
    """`at`: where its one fault is, if the seed shall not choose."""
    for seed in seeds:
        redis.flushall()
        life = Life(redis, seed, setting, None if at is None else [at])
        life.run()
        yield life


def violation(life: Life) -> Violation | None:
    broken = life.judge.broken(life.setting.faults)
    return Violation(life.seed, frozenset(broken), tuple(life.story)) if broken else None


def search(redis: Redis, setting: Setting, first: int) -> Violation | None:
    """Through all of the setting's seeds, beginning with one."""
    seeds = [*setting.seeds[first:], *setting.seeds[:first]]
    return next(filter(None, map(violation, lives(redis, setting, seeds))), None)
