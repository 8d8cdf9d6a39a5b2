"""CodePipeline's job state machine: states, queues, nonces, and timers that move jobs.

It must not know HTTP, the wire form or the wall clock (a callable giving epoch seconds is passed
in), nor anything of the dispatcher: what both got wrong would pass unseen.
"""

from collections import deque
from collections.abc import Callable, Mapping
from datetime import timedelta
from heapq import heappop, heappush
from itertools import count
from typing import Any

from dispatcher.emulator.jobs import (
    ENDED,
    ActionType,
    Caller,
    CallError,
    Code,
    Job,
    Owner,
    Result,
    Rules,
    Status,
    Work,
)
from dispatcher.emulator.keys import Keys, SessionKeys
from dispatcher.emulator.options import Options

# Where a job goes by itself when its time in a state is over.
WHEN_DUE = {
    Status.CREATED: Status.QUEUED,
    Status.DISPATCHED: Status.QUEUED,
    Status.IN_PROGRESS: Status.TIMED_OUT,
}
NOT_BEGUN = {Status.DISPATCHED, Status.QUEUED}
# One queue for each action type and, if it has a queryable property, for each value of it.
Queue = tuple[ActionType, str | None]
# By time, then by order of setting. Void once the job left the state: it comes back into none
# but Dispatched, and then only by its timer. Without a state it is the action's own time that ends.
Timer = tuple[float, int, Job, Status | None]
ACTION_TIMEOUTS = {Owner.THIRD_PARTY: timedelta(hours=1), Owner.CUSTOM: timedelta(days=1)}


class Machine:
    """All jobs of one account and region, for one thread.

    Timed moves are made at the next call, whenever that is, in the order of their due times, and
    the history says when they were due. A call costs O(log n) in the number of jobs.
    """

    def __init__(self, options: Options, clock: Callable[[], float]) -> None:
        self.options = options
        self._clock = clock
        self._now = clock()
        self._order = count()
        self._rules: dict[ActionType, Rules] = {}
        self._jobs: dict[str, Job] = {}
        self._queues: dict[Queue, deque[Job]] = {}
        self._timers: list[Timer] = []
        self._repeats: set[str] = set()
        self.keys = Keys(options.credentials_lifetime)

    def define(self, action_type: ActionType, rules: Rules) -> None:
        """Declare an action type. ValueError: it exists with another queryable property."""
        known = self._rules.get(action_type)
        if known is not None and known.queryable != rules.queryable:
            raise ValueError(
                f"the action type exists with queryable {known.queryable!r}, which cannot change: "
                "take another version"
            )
        self._rules[action_type] = rules

    def submit(self, works: list[Work]) -> list[Job]:
        """Queue a job for each, first come first served; their action types exist from now on."""
        now = self.advance()
        jobs = [Job(work, now + self._action_timeout(work.action_type)) for work in works]
        for job in jobs:
            self._rules.setdefault(job.work.action_type, Rules())
            self._add(job, now)
            self._move(job, Status.QUEUED, now)
        return jobs

    def poll(
        self, owner: Owner, action_type: ActionType, batch: int | None, query: Mapping[str, str]
    ) -> list[Job]:
        """Hand out waiting jobs, as many as asked for, and as there are."""
        now = self.advance()
        waiting = self._queues.get((action_type, self._query(owner, action_type, query)))
        most = min(batch or self.options.default_batch, self.options.batch_cap)
        jobs: list[Job] = []
        while waiting and len(jobs) < most:
            job = waiting.popleft() if self.options.order == "fifo" else waiting.pop()
            # It may have been acknowledged, late, while it waited here to be handed out again.
            if job.status is Status.QUEUED:
                self._dispatch(job, now)
                jobs.append(job)
            elif job.status is Status.DISPATCHED and job.id in self._repeats:
                jobs.append(job)
            self._repeats.discard(job.id)
        return jobs

    def details(self, caller: Caller) -> Job:
        """The job as it is; a long one renews its credentials this way."""
        self.advance()
        third_party = caller.owner is Owner.THIRD_PARTY
        foreign = self.options.custom_job if third_party else Code.JOB_NOT_FOUND
        job = self._find(caller, foreign)
        if job.status not in NOT_BEGUN and self.options.running_details == "error":
            invalid = Code.INVALID_JOB if third_party else Code.JOB_NOT_FOUND
            raise CallError(invalid, f"Job {job.id} is in state {job.status}")
        if third_party and self.options.new_nonce == "details" and job.status is Status.DISPATCHED:
            job.renew_nonce()
        return job

    def session_keys(self, job: Job) -> SessionKeys:
        """For what a call shows of the job, as of this call's time."""
        return self.keys.give(job.id, job.work.artifacts, self._now)

    def acknowledge(self, caller: Caller, nonce: str) -> tuple[Status, bool]:
        """The job's state now, and whether this call began it.

        A late acknowledgement may count until the job is handed out again: the job waits in its
        queue, and its nonce is still the current one.
        """
        now = self.advance()
        job = self._find(caller)
        in_time = NOT_BEGUN if self.options.late_ack == "accept" else {Status.DISPATCHED}
        if job.status in in_time and job.nonce == nonce:
            self._begin(job, now)
            return job.status, True
        if self.options.second_ack == "status":
            return job.status, False
        raise CallError(
            Code.INVALID_NONCE,
            "The nonce is not the job's current one, or the job was acknowledged before",
        )

    def succeed(
        self,
        caller: Caller,
        operation: str,
        request: Mapping[str, Any],
        continuation_token: str | None = None,
    ) -> bool:
        """End a running job well; with a continuation token a new job follows after the delay.

        Here and in `fail`: whether this call ended the job.
        """
        job = self._finish(caller, Status.SUCCEEDED, operation, request)
        if job is not None and continuation_token is not None:
            following = Job(job.work, job.deadline, continuation_token)
            job.next = following.id
            self._add(following, self._now)
            self._wait(following, self.options.continuation_delay)
        return job is not None

    def fail(self, caller: Caller, operation: str, request: Mapping[str, Any]) -> bool:
        return self._finish(caller, Status.FAILED, operation, request) is not None

    def offer_again(self, job: Job) -> None:
        """The next poll answers this dispatched job first, with the nonce that it has."""
        self._repeats.add(job.id)
        waiting = self._queues[self._queue(job.work)]
        waiting.appendleft(job) if self.options.order == "fifo" else waiting.append(job)

    def begin_elsewhere(self, job: Job) -> None:
        """A worker that nobody here knows acknowledges the job, and never puts a result.

        It was offered the job later, so it has a later nonce.
        """
        if self.options.new_nonce != "never":
            job.renew_nonce()
        self._begin(job, self.advance())

    def abandon(self, job_id: str) -> Job:
        """End a job whose action was abandoned. ValueError: no such job, or it has ended."""
        return self._end(job_id, Status.FAILED if self.options.abandoned == "ended" else None)

    def time_out(self, job_id: str) -> Job:
        """End a job as though its time was over. ValueError: no such job, or it has ended."""
        return self._end(job_id, Status.TIMED_OUT)

    def _end(self, job_id: str, status: Status | None) -> Job:
        now = self.advance()
        job = self._jobs.get(job_id)
        if job is None:
            raise ValueError(f"there is no job {job_id}")
        if job.status in ENDED:
            raise ValueError(f"the job has ended: it is {job.status}")
        if status is not None:
            self._move(job, status, now)
        return job

    def jobs(self, job_id: str | None = None) -> list[Job]:
        """All jobs in order of creation, or the one asked for, or none."""
        self.advance()
        if job_id is None:
            return list(self._jobs.values())
        return [self._jobs[job_id]] if job_id in self._jobs else []

    def advance(self) -> float:
        """Make every move that is due, and give the time, which never runs backwards."""
        self._now = max(self._now, self._clock())
        while self._timers and self._timers[0][0] <= self._now:
            due, _, job, status = heappop(self._timers)
            if status is None and job.status not in ENDED:
                self._move(job, Status.TIMED_OUT, due)
            elif status is not None and job.status is status:
                self._move(job, WHEN_DUE[status], due)
        return self._now

    def _action_timeout(self, action_type: ActionType) -> float:
        own = ACTION_TIMEOUTS[Owner(action_type.owner)]
        return (self.options.action_timeout or own).total_seconds()

    def _query(self, owner: Owner, action_type: ActionType, query: Mapping[str, str]) -> str | None:
        if action_type.owner != owner:
            raise CallError(
                self.options.wrong_owner,
                f"ActionType with owner '{action_type.owner}' is not supported",
            )
        rules = self._rules.get(action_type)
        if rules is None:
            raise CallError(
                Code.ACTION_TYPE_NOT_FOUND,
                f"ActionType (Category: '{action_type.category}', Owner: '{action_type.owner}', "
                f"Provider: '{action_type.provider}', Version: '{action_type.version}') "
                "is not available",
            )
        # AWS: with a queryable property the parameter is required, without one it must be empty.
        # The third-party poll has no such parameter, so the property means nothing there.
        queryable = rules.queryable if owner is Owner.CUSTOM else None
        if list(query) != ([] if queryable is None else [queryable]):
            wanted = "be empty" if queryable is None else f"name the queryable property {queryable}"
            raise CallError(Code.VALIDATION, f"queryParam must {wanted}")
        return None if queryable is None else query[queryable]

    def _find(self, caller: Caller, foreign: str = Code.JOB_NOT_FOUND) -> Job:
        job = self._jobs.get(caller.job_id)
        if job is None:
            raise CallError(Code.JOB_NOT_FOUND, f"Job {caller.job_id} not found")
        if job.work.action_type.owner != caller.owner:
            raise CallError(foreign, f"Job {caller.job_id} is not of owner {caller.owner}")
        if caller.owner is Owner.THIRD_PARTY and job.work.client_token != caller.client_token:
            raise CallError(
                self.options.wrong_client_token,
                "The client token is not that of the job's client",
            )
        return job

    def _add(self, job: Job, now: float) -> None:
        self._jobs[job.id] = job
        job.history.append((job.status, now))
        heappush(self._timers, (job.deadline, next(self._order), job, None))

    def _move(self, job: Job, status: Status, at: float) -> None:
        job.status = status
        job.history.append((status, at))
        if status is Status.QUEUED:
            self._queues.setdefault(self._queue(job.work), deque()).append(job)

    def _queue(self, work: Work) -> Queue:
        queryable = self._rules[work.action_type].queryable
        if queryable is None or work.action_type.owner != Owner.CUSTOM:
            return work.action_type, None
        return work.action_type, work.configuration.get(queryable)

    def _dispatch(self, job: Job, now: float) -> None:
        if job.nonce is None or self.options.new_nonce != "never":
            job.renew_nonce()
        self._move(job, Status.DISPATCHED, now)
        self._wait(job, self.options.ack_window)

    def _begin(self, job: Job, now: float) -> None:
        self._move(job, Status.IN_PROGRESS, now)
        own = self._rules[job.work.action_type].job_timeout
        self._wait(job, self.options.job_timeout if own is None else own)

    def _finish(
        self, caller: Caller, status: Status, operation: str, request: Mapping[str, Any]
    ) -> Job | None:
        now = self.advance()
        job = self._find(caller)
        # A repeated, late or early put is all the same, an identical one included.
        if job.status is not Status.IN_PROGRESS:
            if self.options.second_put == "ignore":
                return None
            raise CallError(
                Code.INVALID_JOB_STATE, f"Job {job.id} is in state {job.status}, not InProgress"
            )
        self._move(job, status, now)
        job.result = Result(operation, request, now)
        return job

    def _wait(self, job: Job, duration: timedelta) -> None:
        due = self._now + duration.total_seconds()
        heappush(self._timers, (due, next(self._order), job, job.status))
