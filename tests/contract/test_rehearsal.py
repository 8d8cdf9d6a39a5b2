"""The fixture `rehearse`: a handler, from the poll to the result, against the emulator."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dispatcher import sdk
from dispatcher.emulator.client import Emulator
from dispatcher.rehearsal import Rehearsal, RehearsalError
from dispatcher.sdk import Continue, Job, Outcome, Retry, Secret, Succeeded, action
from workers.countdown import countdown
from workers.echo import echo

PAGE = Path(__file__).parents[2] / "dispatcher/docs/providers.md"


@dataclass(frozen=True)
class Config:
    api_key: Secret


@action("Test", "Stubborn", version="2", owner="Custom", config=Config, max_attempts=3)
def stubborn(job: Job[Config]) -> Outcome:
    if job.attempt < 3:
        raise Retry(timedelta(minutes=5))
    return Succeeded(f"at last, in run {job.attempt}", variables={"Attempt": str(job.attempt)})


@action("Test", "Buggy", version="1", config=Config)
def buggy(job: Job[Config]) -> Outcome:
    raise ValueError(job.config.api_key.get_secret_value())


@action("Test", "Endless", version="1", owner="Custom")
def endless(job: Job[None]) -> Outcome:
    return Continue("again")


def test_a_partners_action_is_polled_with_its_client_and_token(
    rehearse: Rehearsal, codepipeline_emulator: Emulator
) -> None:
    done = rehearse(echo, {"Message": "Hello"}, inputs={"In": b"x"}, outputs=["Out"])

    assert (done.succeeded, done.summary, done.failure) == (True, "Hello", None)
    assert done.outputs == {"Out": b"x"}
    assert [call.operation for call in codepipeline_emulator.calls()] == [
        "PollForThirdPartyJobs",
        "GetThirdPartyJobDetails",
        "AcknowledgeThirdPartyJob",
        "PutThirdPartyJobSuccessResult",
    ]


def test_a_failure_is_told_as_aws_gets_it(rehearse: Rehearsal) -> None:
    done = rehearse(echo, {"Message": "Hello", "FailWith": "No disk"})

    assert not done.succeeded
    assert done.failure == ("JobFailed", "No disk")


def test_what_continues_a_job_follows_at_once(rehearse: Rehearsal) -> None:
    done = rehearse(countdown, {"Steps": "3"}, outputs=["Log"])

    percents = [one.request["executionDetails"].get("percentComplete") for one in done.results]
    assert percents == [33, 66, None]
    assert done.outputs["Log"] == b"step 1\nstep 2\nstep 3\n"


def test_a_retry_follows_at_once_and_is_counted(rehearse: Rehearsal) -> None:
    done = rehearse(stubborn, {"ApiKey": "canary"})

    assert done.summary == "at last, in run 3"
    assert done.variables == {"Attempt": "3"}


def test_a_bug_is_told_by_its_reference_alone(
    rehearse: Rehearsal, caplog: pytest.LogCaptureFixture
) -> None:
    done = rehearse(buggy, {"ApiKey": "canary-key"})

    assert done.failure is not None
    assert done.failure[0] == "JobFailed"
    assert "canary" not in done.failure[1] + caplog.text


def test_a_wrong_configuration_is_told_by_its_key(rehearse: Rehearsal) -> None:
    assert rehearse(countdown, {"Steps": "many"}).failure == (
        "ConfigurationError",
        "The action's configuration does not fit: Steps must be a whole number.",
    )


def test_an_action_without_an_end_and_a_function_without_a_mark_are_refused(
    rehearse: Rehearsal,
) -> None:
    with pytest.raises(RehearsalError, match="went on"):
        rehearse(endless)
    with pytest.raises(RehearsalError, match=r"dispatcher\.sdk\.action"):
        rehearse(lambda job: Succeeded())


def test_the_pages_examples_do_what_they_say(rehearse: Rehearsal) -> None:
    namespace: dict[str, Any] = {**vars(sdk), "Config": Theme, "generate": generate}
    namespace["make_job"] = __import__("dispatcher.testing").testing.make_job
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(compile(block, PAGE.name, "exec"), namespace)  # noqa: S102 - the page's own code
    tests: list[Callable[..., None]] = [
        found for name, found in namespace.items() if name.startswith("test_")
    ]

    assert len(tests) == 2
    for test in tests:
        test(*([rehearse] if test.__code__.co_argcount else []))


@dataclass(frozen=True)
class Theme:
    theme: str = "light"


def generate(source: Path, site: Path) -> None:
    site.mkdir()
    (site / "index.html").write_text((source / "index.md").read_text())
