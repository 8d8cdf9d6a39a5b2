"""The emulator's admin calls, as the demo uses them. No proxy of the user's stands between."""

import http.client
import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from typing import Any

from dispatcher.demo.processes import DemoError
from dispatcher.demo.scenario import ActionType, Planned, Shown

ANSWER_WITHIN = 10.0  # seconds
FAULTS = (OSError, http.client.HTTPException)
POLLS = {"PollForJobs", "PollForThirdPartyJobs"}


class Client:
    """Each call raises DemoError when the emulator does not answer as it should."""

    def __init__(self, address: str, token: Callable[[str], str]) -> None:
        """`address`: host:port. `token`: the client token of a client."""
        self._address = address
        self._token = token

    def define(self, action_type: ActionType) -> None:
        self._call("POST", "/_admin/action-types", {"actionTypeId": asdict(action_type)})

    def submit(self, planned: Planned) -> str:
        """The job's id."""
        asked: dict[str, Any] = {
            "actionTypeId": asdict(planned.action_type),
            "configuration": dict(planned.configuration),
            "pipelineName": f"{planned.client or 'own'}-pipeline",
            "stageName": planned.action_type.category,
            "actionName": planned.title.replace(" ", "-"),
        }
        if planned.client is not None:
            asked |= {"clientId": planned.client, "clientToken": self._token(planned.client)}
        return str(self._call("POST", "/_admin/jobs", asked)["jobIds"][0])

    def jobs(self) -> dict[str, Shown]:
        return {job["id"]: job for job in self._call("GET", "/_admin/jobs")}

    def polled(self) -> bool:
        """Both owners' jobs were asked for: beat, both workers, Redis and the emulator work."""
        return {entry["operation"] for entry in self._call("GET", "/_admin/log")} >= POLLS

    def _call(self, method: str, path: str, body: object = None) -> Any:
        try:
            status, text = _answer(self._address, method, path, ANSWER_WITHIN, json.dumps(body))
        except FAULTS as error:
            raise DemoError(f"the emulator does not answer {method} {path}: {error}") from error
        if status != http.HTTPStatus.OK:
            raise DemoError(f"the emulator refused {method} {path}: {text.decode()}")
        return json.loads(text)


def answers(address: str, path: str) -> bool:
    """Whether an HTTP server is up there."""
    try:
        status, _ = _answer(address, "GET", path, 1)
    except FAULTS:
        return False
    return status == http.HTTPStatus.OK


def _answer(
    address: str, method: str, path: str, within: float, body: str | None = None
) -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection(address, timeout=within)) as connection:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
