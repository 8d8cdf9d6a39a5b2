"""What must hold whatever happens, told by AWS's history and by what handlers did: by no record."""

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum

from dispatcher.emulator import jobs as aws
from dispatcher.engine.model import Verdict
from dispatcher.sdk import OnCrash
from tests.engine.world import OVER, Worker, World

MOST_STARTS = {OnCrash.FAIL: 1, OnCrash.RERUN: 3}


class Broken(StrEnum):
    STARTS = "a handler started too often"
    AT_ONCE = "two handlers of one job ran at once"
    NOT_OURS = "a handler started without our acknowledgement"
    TWICE = "AWS took two results of one job"
    THEIRS = "AWS took our result of another fleet's job"
    UNTOLD = "a handler's end is not what AWS was told"
    NO_RESULT = "a job never got a result"
    REFUSED = "AWS refused more of our results than faults explain"


@dataclass(eq=False)
class Run:
    """One start of a handler."""

    job_id: str
    worker: Worker
    since: float  # when its first heartbeat was sent
    over: bool = False
    said: str | None = None  # with what it ended, unless with a Retry
    asked_again: bool = False
    heard: bool = False  # after its end the process had an answer from outside


class Judge:
    """`theirs`: jobs that another fleet acknowledged. `stood_still`: whether a process did, after a
    time, for so long that others may go on in its place.
    """

    def __init__(
        self, world: World, theirs: Collection[str], stood_still: Callable[[Worker, float], bool]
    ) -> None:
        self.runs: list[Run] = []
        self._world = world
        self._theirs = theirs
        self._stood_still = stood_still
        self._seen: set[Broken] = set()

    def starts(self, job_id: str, worker: Worker, since: float, *, presumed: bool) -> Run:
        """`presumed`: that AWS took our acknowledgement may be presumed."""
        if not presumed and job_id not in self._world.asked.acknowledged:
            self._seen.add(Broken.NOT_OURS)
        run = Run(job_id, worker, since)
        others = [one for one in self.runs if one.job_id == job_id]
        if self._goes_on(run) and any(map(self._goes_on, others)):
            self._seen.add(Broken.AT_ONCE)
        self.runs.append(run)
        return run

    def broken(self, faults: int | None = None) -> set[Broken]:
        """At the end of it all. `faults`: how many befell it, where they were few."""
        found = {
            Broken.STARTS: any(map(self._too_many, self._world.machine.jobs())),
            Broken.TWICE: max(self._world.accepted.values(), default=0) > 1,
            Broken.THEIRS: any(job in self._world.accepted for job in self._theirs),
            Broken.UNTOLD: any(map(self._untold, self.runs)),
            Broken.NO_RESULT: bool(self.open()),
            Broken.REFUSED: faults is not None and self._refused() > faults,
        }
        return self._seen | {broken for broken, is_so in found.items() if is_so}

    def open(self) -> list[str]:
        """Jobs that are neither another fleet's nor at their end."""
        jobs = self._world.machine.jobs()
        return [job.id for job in jobs if job.id not in self._theirs and job.status not in OVER]

    def starts_of(self, job_id: str) -> int:
        """Those that no Retry asked for."""
        return sum(1 - run.asked_again for run in self.runs if run.job_id == job_id)

    def told(self, job_id: str) -> str | None:
        result = self._world.machine.jobs(job_id)[0].result
        verdict: Verdict | None = result.request.get("verdict") if result else None
        return verdict.message if verdict else None

    def _too_many(self, job: aws.Job) -> bool:
        action = self._world.action_of(job)
        return self.starts_of(job.id) > MOST_STARTS[action.spec.on_crash]

    def _goes_on(self, run: Run) -> bool:
        gone = run.over or run.worker.line.dead
        return not gone and not self._stood_still(run.worker, run.since)

    def _untold(self, run: Run) -> bool:
        """Only its own process knows how a handler ended, until the outside answers that."""
        known = run.heard or not run.worker.line.dead
        if run.said is None or not known or self._stood_still(run.worker, run.since):
            return False
        return self.told(run.job_id) != run.said

    def _refused(self) -> int:
        puts = Counter(self._world.puts)
        return max((puts[job] - self._world.accepted[job] for job in puts), default=0)
