"""The page of the webhook: its receiver works, and its tables name what there is."""

import json
import re
import ssl
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from dispatcher.configuration import config_fields
from dispatcher.sdk import Continue, PermissionDenied, Secret, Succeeded
from tests.workers.webhook_receiver import JOB, SECRET, Authority, Stage, serving
from workers.webhook import Config
from workers.webhook.answers import Report

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "dispatcher/docs/webhook.md").read_text()


def code(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


def table(heading: str) -> list[str]:
    """The first column of the table under this heading of its first column."""
    rows = PAGE.split(f"| {heading} |")[1].split("\n\n")[0].splitlines()[2:]
    return [row.split("|")[1].strip().strip("`") for row in rows]


@pytest.fixture
def example(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, authority: Authority
) -> Iterator[dict[str, Any]]:
    """The page's receiver, behind TLS, at the port where the stage's own was expected."""
    monkeypatch.setenv("SIGNING_SECRET", SECRET)
    names: dict[str, Any] = {"__name__": "receiver"}
    exec(compile(code("python"), "webhook.md", "exec"), names)  # noqa: S102 - our own page
    server = ThreadingHTTPServer(("127.0.0.1", 0), names["Receiver"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.certificate("hooks.test").configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    names["url"] = f"https://hooks.test:{server.server_address[1]}/start"
    monkeypatch.setenv("WEBHOOK_ALLOWED_HOSTS", f"hooks.test:{server.server_address[1]}")
    with serving(server):
        yield names


def test_the_receiver_of_the_page_starts_an_operation_and_lets_it_end(
    stage: Stage, example: dict[str, Any]
) -> None:
    first = stage.run(url=example["url"])
    assert isinstance(first, Continue)
    example["RUNS"][JOB] -= 42
    second = stage.run(first.token, url=example["url"])
    assert isinstance(second, Continue)
    example["RUNS"][JOB] -= 60
    third = stage.run(second.token, url=example["url"])

    assert (first.percent, first.external_id) == (0, JOB)
    assert second.percent in (42, 43)
    assert third == Succeeded("Slept well", JOB)


def test_the_receiver_of_the_page_starts_one_operation_per_id(
    stage: Stage, example: dict[str, Any]
) -> None:
    stage.run(url=example["url"])
    started = dict(example["RUNS"])

    stage.run(url=example["url"])

    assert example["RUNS"] == started


def test_the_receiver_of_the_page_believes_nobody_else(
    stage: Stage, example: dict[str, Any], authority: Authority
) -> None:
    with pytest.raises(PermissionDenied):
        stage.run(url=example["url"], signing_secret=Secret("whsec_" + "A" * 44))
    trust = ssl.create_default_context(cafile=str(authority.file))
    with httpx.Client(verify=trust, trust_env=False) as client:
        unsigned = client.post(example["url"], json={})

    assert unsigned.status_code == 401
    assert example["RUNS"] == {}


def test_the_receiver_of_the_page_is_short() -> None:
    text = code("python").split("class Receiver")[1].split("\n\n\n")[0]

    assert len(text.splitlines()) <= 25


def test_every_key_is_in_the_table() -> None:
    assert table("key") == [key.key for key in config_fields(Config)]


def test_every_variable_is_in_the_table() -> None:
    text = "".join(path.read_text() for path in (ROOT / "workers/webhook").glob("*.py"))

    assert set(table("variable")) == set(re.findall(r"WEBHOOK_[A-Z_]+", text))


def test_every_member_of_an_answer_is_in_the_table() -> None:
    assert set(table("member")) == set(Report.model_fields)


def test_the_request_is_the_one_that_is_sent(stage: Stage) -> None:
    told = json.loads(code("json"))

    stage.run()

    sent = stage.receiver.requests[0].told
    assert told.keys() == sent.keys()
    assert told["job"].keys() == sent["job"].keys()
    assert sent["pipeline"].keys() < told["pipeline"].keys()
