"""Another fleet of the same action types, as during a migration: AWS hands jobs to both."""

from collections.abc import Callable
from random import Random

from dispatcher.emulator import jobs as aws
from dispatcher.emulator.machine import Machine


class Foreigners:
    """They poll, acknowledge what they were handed, at once or late or never, and put a result."""

    def __init__(self, machine: Machine, random: Random, polls: int) -> None:
        self.acknowledged: list[str] = []
        self._machine = machine
        self._random = random
        self._polls = polls
        self._handed: list[tuple[aws.Job, str]] = []

    def step(self, action_type: aws.ActionType) -> str:
        """Says what they did."""
        steps: list[tuple[Callable[[], str], float]] = [(lambda: "rest", 1)]
        if self._polls:
            steps.append((lambda: self._poll(action_type), 1))
        if self._handed:
            steps.append((self._acknowledge, 1))
        if self.acknowledged:
            steps.append((self._put, 0.1))
        step: Callable[[], str] = self._random.choices(*zip(*steps, strict=True))[0]
        return step()

    def _poll(self, action_type: aws.ActionType) -> str:
        jobs = self._machine.poll(aws.Owner(action_type.owner), action_type, 1, {})
        self._polls -= len(jobs)
        self._handed += [(job, job.nonce or "") for job in jobs]
        return f"are handed {len(jobs)}"

    def _acknowledge(self) -> str:
        job, nonce = self._handed.pop()
        try:
            _, began = self._machine.acknowledge(_caller(job), nonce)
        except aws.CallError:
            return "acknowledge in vain"
        if began:
            self.acknowledged.append(job.id)
        return "acknowledge"

    def _put(self) -> str:
        [job] = self._machine.jobs(self._random.choice(self.acknowledged))
        if job.status is aws.Status.IN_PROGRESS:
            self._machine.succeed(_caller(job), "theirs", {})
        return "put their result"


def _caller(job: aws.Job) -> aws.Caller:
    owner = aws.Owner(job.work.action_type.owner)
    return aws.Caller(owner, job.id, job.work.client_token)
