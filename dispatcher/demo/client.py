"""What the demo asks of the emulator, and whether a server is up; never through a proxy."""

import http.client
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from dispatcher.demo.processes import DemoError
from dispatcher.demo.scenario import ActionType, Planned, Shown
from dispatcher.emulator.client import Emulator, EmulatorError
from dispatcher.testing import zipped

POLLS = {"PollForJobs", "PollForThirdPartyJobs"}
IN, OUT = "Site", "Copy"  # artifacts


class Client:
    """Each call raises DemoError when the emulator does not answer as it should."""

    def __init__(self, address: str, token: Callable[[str], str]) -> None:
        """`address`: host:port. `token`: the client token of a client."""
        self._emulator = Emulator(f"http://{address}")
        self._token = token

    def define(self, action_type: ActionType) -> None:
        with _told():
            self._emulator.define(**vars(action_type))

    def submit(self, planned: Planned) -> str:
        """The job's id."""
        more: dict[str, Any] = {
            "pipelineName": f"{planned.client or 'own'}-pipeline",
            "stageName": planned.action_type.category,
            "actionName": planned.title.replace(" ", "-"),
        }
        if planned.client is not None:
            more |= {"client_id": planned.client, "client_token": self._token(planned.client)}
        if planned.carries is not None:
            more |= {"inputs": {IN: zipped(planned.carries)}, "outputs": [OUT]}
        with _told():
            return self._emulator.submit(
                configuration=dict(planned.configuration), **vars(planned.action_type), **more
            )

    def jobs(self) -> dict[str, Shown]:
        with _told():
            return {job["id"]: job for job in self._emulator.ask("/_admin/jobs")}

    def carried(self, job_id: str) -> bool:
        """Whether the job's output artifact is its input, byte for byte."""
        with _told():
            made = self._emulator.artifact(job_id, OUT)
            return made is not None and made == self._emulator.artifact(job_id, IN)

    def polled(self) -> bool:
        """Both owners' jobs were asked for: beat, both workers, Redis and the emulator work."""
        with _told():
            return {call.operation for call in self._emulator.calls()} >= POLLS


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except EmulatorError as error:
        raise DemoError(str(error)) from error


def answers(address: str, path: str) -> bool:
    """Whether an HTTP server is up there."""
    try:
        with closing(http.client.HTTPConnection(address, timeout=1)) as connection:
            connection.request("GET", path)
            return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
