"""The SDK refuses at the author's desk what AWS would refuse, and shows no secret."""

import copy
import functools
import logging
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from dispatcher import sdk
from dispatcher.sdk import (
    ActionSpec,
    ActionType,
    ConfigurationError,
    Continue,
    Failure,
    Job,
    JobFailed,
    Key,
    OnCrash,
    Owner,
    PermissionDenied,
    Pipeline,
    Retry,
    Revision,
    RevisionOutOfSync,
    RevisionUnavailable,
    Secret,
    Succeeded,
    SystemUnavailable,
    action,
    spec_of,
)


@dataclass(frozen=True)
class Config:
    app: str
    api_key: Secret


class Model(BaseModel):
    app: str


def handler(job: Job[Any]) -> sdk.Outcome:
    return Succeeded()


def mark(**changes: Any) -> Callable[..., Any]:
    values: dict[str, Any] = {"category": "Deploy", "provider": "Acme", "version": "1"} | changes
    return action(values.pop("category"), values.pop("provider"), **values)


def test_the_marked_function_comes_back_unchanged_with_its_spec() -> None:
    def deploy(job: Job[Config]) -> sdk.Outcome:
        return Succeeded()

    marked = action("Deploy", "Acme", version="1", config=Config)(deploy)

    assert marked is deploy
    assert spec_of(deploy) == ActionSpec(
        type=ActionType("Deploy", Owner.THIRD_PARTY, "Acme", "1"),
        config=Config,
        on_crash=OnCrash.FAIL,
        retry_on=(),
        max_attempts=3,
        time_limit=timedelta(hours=1),
    )


def test_every_option_reaches_the_spec() -> None:
    @action(
        "Build",
        "my_tool-2",
        version="v1",
        owner="Custom",
        config=Model,
        on_crash="rerun",
        retry_on=(OSError, KeyError),
        max_attempts=1,
        time_limit=timedelta(minutes=5),
    )
    def build(job: Job[Model]) -> sdk.Outcome:
        return Succeeded()

    spec = spec_of(build)

    assert spec is not None
    assert spec.type == ActionType("Build", Owner.CUSTOM, "my_tool-2", "v1")
    assert spec.on_crash is OnCrash.RERUN
    assert spec.retry_on == (OSError, KeyError)
    assert (spec.max_attempts, spec.time_limit) == (1, timedelta(minutes=5))


def test_a_function_without_the_mark_has_no_spec() -> None:
    assert spec_of(handler) is None
    assert spec_of(None) is None


def test_a_decorator_around_the_marked_function_keeps_the_mark() -> None:
    @action("Deploy", "Acme", version="1")
    def deploy(job: Job[None]) -> sdk.Outcome:
        return Succeeded()

    @functools.wraps(deploy)
    def timed(job: Job[None]) -> sdk.Outcome:
        return deploy(job)

    assert spec_of(timed) is spec_of(deploy)


def test_a_spec_cannot_be_changed() -> None:
    spec = ActionSpec(type=ActionType("Deploy", Owner.CUSTOM, "Acme", "1"))

    with pytest.raises(FrozenInstanceError):
        spec.max_attempts = 9  # type: ignore[misc]


def test_an_action_type_names_its_task_and_its_queue() -> None:
    of_aws = ActionType("Deploy", "ThirdParty", "Acme", "1")  # type: ignore[arg-type]

    assert of_aws.task_name == "ThirdParty.Deploy.Acme.1"
    assert of_aws.queue == "provider.Acme"
    assert of_aws.owner is Owner.THIRD_PARTY


@pytest.mark.parametrize(
    "category", ["Source", "Build", "Deploy", "Test", "Invoke", "Approval", "Compute"]
)
def test_every_category_of_aws_is_taken(category: str) -> None:
    assert ActionType(category, Owner.CUSTOM, "A" * 35, "1" * 9).category == category


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"category": "Ship"}, "category is 'Ship'; give one of Source, Build, Deploy, Test"),
        ({"owner": "AWS"}, "owner is 'AWS'; give one of ThirdParty, Custom"),
        ({"provider": ""}, "provider has 0 characters; give 1 to 35"),
        ({"provider": "a" * 36}, "provider has 36 characters; give 1 to 35"),
        ({"provider": "my tool"}, "provider is 'my tool'; use letters"),
        ({"provider": "tool\n"}, "provider is 'tool.n'; use letters"),
        ({"provider": 7}, "provider must be a str, not int"),
        ({"version": "1" * 10}, "version has 10 characters; give 1 to 9"),
        ({"version": "1.0"}, "version is '1.0'; use letters"),
        ({"version": 1}, "version must be a str, not int"),
        ({"on_crash": "again"}, "on_crash is 'again'; give one of fail, rerun"),
        ({"config": dict}, "config is <class 'dict'>; give a frozen dataclass"),
        ({"config": Config("a", Secret("hunter2"))}, "config is .*; give a frozen dataclass"),
        ({"retry_on": OSError}, "retry_on is .*; give a tuple of Exception classes"),
        ({"retry_on": ["OSError"]}, "retry_on is .*; give a tuple of Exception classes"),
        ({"retry_on": (KeyboardInterrupt,)}, "retry_on is .*; give a tuple of Exception classes"),
        ({"max_attempts": 0}, "max_attempts is 0; give 1 or more"),
        ({"max_attempts": True}, "max_attempts must be an int, not bool"),
        ({"max_attempts": 1.5}, "max_attempts must be an int, not float"),
        ({"time_limit": 60}, "time_limit must be a timedelta, not int"),
        ({"time_limit": timedelta(0)}, "time_limit is 0:00:00; give a time above 0"),
        ({"time_limit": timedelta(seconds=-1)}, "time_limit is .*; give a time above 0"),
    ],
)
def test_a_wrong_value_is_refused_with_one_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises((TypeError, ValueError), match=sentence) as caught:
        mark(**changes)

    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


async def asynchronous(job: Job[None]) -> sdk.Outcome:
    return Succeeded()


async def asynchronously_yielding(job: Job[None]) -> Any:
    yield Succeeded()


def yielding(job: Job[None]) -> Any:
    yield Succeeded()


def without_argument() -> sdk.Outcome:
    return Succeeded()


def with_two_arguments(job: Job[None], other: int) -> sdk.Outcome:
    return Succeeded()


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (asynchronous, "asynchronous is async; write it as a plain function"),
        (asynchronously_yielding, "asynchronously_yielding is async"),
        (yielding, "yielding yields; write a function that returns its outcome"),
        (without_argument, "without_argument must take one argument, the job"),
        (with_two_arguments, "with_two_arguments must take one argument, the job"),
        ("deploy", "action marks a function; 'deploy' is none"),
        (Config, "action marks a function; .* is none"),
    ],
)
def test_what_cannot_be_a_handler_is_refused(function: Any, sentence: str) -> None:
    with pytest.raises(TypeError, match=sentence):
        mark()(function)


def test_one_function_is_one_action() -> None:
    def deploy(job: Job[None]) -> sdk.Outcome:
        return Succeeded()

    mark()(deploy)

    with pytest.raises(ValueError, match="deploy is an action already"):
        mark(version="2")(deploy)


@pytest.mark.parametrize("length", [1, 2_048])
def test_a_token_of_a_length_that_aws_takes_is_taken(length: int) -> None:
    assert Continue("t" * length).token == "t" * length


@pytest.mark.parametrize("length", [0, 2_049])
def test_a_token_of_another_length_is_refused_without_being_shown(length: int) -> None:
    with pytest.raises(ValueError, match=f"token has {length} characters; give 1 to 2048"):
        Continue("t" * length)


@pytest.mark.parametrize("percent", [None, 0, 100])
def test_percent_may_be_zero_to_a_hundred(percent: int | None) -> None:
    assert Continue("t", percent).percent == percent


@pytest.mark.parametrize("percent", [-1, 101, True, 1.5, "7"])
def test_another_percent_is_refused(percent: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="percent"):
        Continue("t", percent)


@pytest.mark.parametrize("make", [Succeeded, lambda **more: Continue("t", **more)])
def test_a_summary_is_cut_and_an_external_id_is_not(make: Callable[..., Any]) -> None:
    assert make(summary="s" * 2_048).summary == "s" * 2_048
    assert make(summary="s" * 2_049).summary == "s" * 2_047 + "…"
    assert make(external_id="e" * 1_500).external_id == "e" * 1_500
    with pytest.raises(ValueError, match="external_id has 1501 characters; give 1 to 1500"):
        make(external_id="e" * 1_501)
    with pytest.raises(ValueError, match="external_id has 0 characters"):
        make(external_id="")
    with pytest.raises(TypeError, match="summary must be a str, not int"):
        make(summary=7)


def test_a_token_is_not_shown() -> None:
    assert "hunter2" not in repr(Continue("hunter2"))


def test_a_revision_keeps_aws_limits() -> None:
    revision = Revision("r" * 1_500, "c" * 100, datetime.now(UTC), "s" * 2_049)

    assert revision.summary == "s" * 2_047 + "…"
    assert Revision("r", "c").summary is None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"revision": ""}, "revision has 0 characters; give 1 to 1500"),
        ({"revision": "r" * 1_501}, "revision has 1501 characters"),
        ({"change_identifier": "c" * 101}, "change_identifier has 101 characters; give 1 to 100"),
        ({"summary": ""}, "summary has 0 characters; give 1 to 2048"),
        ({"created": datetime(2026, 1, 1)}, "created has no time zone"),  # noqa: DTZ001
        ({"created": "today"}, "created must be a datetime, not str"),
    ],
)
def test_a_revision_that_aws_would_refuse_is_refused(
    changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=sentence):
        Revision(**({"revision": "r", "change_identifier": "c"} | changes))


def test_a_revision_is_a_revision() -> None:
    with pytest.raises(TypeError, match="revision must be a Revision, not str"):
        Succeeded(revision="abc")  # type: ignore[arg-type]


def test_output_variables_may_fill_all_the_room_there_is() -> None:
    # "ü" is two bytes: AWS counts bytes.
    full = {"a@-9": "ü" * 61_438}

    assert Succeeded(variables=full).variables == full
    with pytest.raises(ValueError, match="variables has 122881 bytes; give at most 122880"):
        Succeeded(variables=full | {"b": ""})


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"a b": "hunter2"}, "variables has the key 'a b'; use letters"),
        ({"": "hunter2"}, "variables has the key ''; use letters"),
        ({7: "hunter2"}, "variables has the key 7; use letters"),
        ({"a": 7}, "variables\\['a'\\] must be a str, not int"),
        (["a"], "variables must be a mapping, not list"),
    ],
)
def test_wrong_output_variables_are_refused_without_their_values(
    variables: Any, sentence: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=sentence) as caught:
        Succeeded(variables=variables)

    assert "hunter2" not in str(caught.value)


def test_an_outcome_does_not_follow_later_changes_of_the_authors_variables() -> None:
    variables = {"a": "1"}
    outcome = Succeeded(variables=variables)

    variables["a"] = "2"

    assert outcome.variables == {"a": "1"}
    assert hash(outcome) == hash(Succeeded())


@pytest.mark.parametrize(
    ("failure", "word"),
    [
        (JobFailed, "JobFailed"),
        (ConfigurationError, "ConfigurationError"),
        (PermissionDenied, "PermissionError"),
        (RevisionOutOfSync, "RevisionOutOfSync"),
        (RevisionUnavailable, "RevisionUnavailable"),
        (SystemUnavailable, "SystemUnavailable"),
    ],
)
def test_each_failure_carries_aws_word(failure: type[Failure], word: str) -> None:
    raised = failure("It broke.", external_id="e-1")

    assert (raised.type, raised.message, raised.external_id) == (word, "It broke.", "e-1")
    assert str(raised) == "It broke."
    assert issubclass(failure, Failure)


def test_a_message_is_cut_and_an_empty_one_gets_a_text() -> None:
    assert JobFailed("m" * 5_000).message == "m" * 5_000
    assert JobFailed("m" * 5_001).message == "m" * 4_999 + "…"
    assert (
        JobFailed("").message
        == JobFailed(" \n").message
        == "The action failed and gave no message."
    )


def test_a_failure_refuses_what_aws_would_refuse() -> None:
    with pytest.raises(ValueError, match="external_id has 1501 characters"):
        JobFailed("m", "e" * 1_501)
    with pytest.raises(TypeError, match="message must be a str, not OSError"):
        JobFailed(OSError("hunter2"))  # type: ignore[arg-type]


def test_a_failure_survives_the_way_between_processes() -> None:
    there = pickle.loads(pickle.dumps(JobFailed("m" * 6_000, "e-1")))  # noqa: S301
    again = copy.copy(Retry(timedelta(seconds=3)))

    assert (there.message, there.external_id) == ("m" * 4_999 + "…", "e-1")
    assert again.after == timedelta(seconds=3)


def test_a_retry_has_a_time_of_its_own() -> None:
    assert Retry().after > timedelta(0)
    assert Retry(after=timedelta(0)).after == timedelta(0)
    with pytest.raises(ValueError, match=r"after is .*; give a time of 0 or more"):
        Retry(timedelta(seconds=-1))
    with pytest.raises(TypeError, match="after must be a timedelta, not int"):
        Retry(30)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"name": ""}, "Key's name has 0 characters; give 1 to 50"),
        ({"name": "k" * 51}, "Key's name has 51 characters"),
        ({"description": "d" * 161}, "Key's description has 161 characters; give 1 to 160"),
        ({"queryable": True, "secret": True}, "A queryable key must be required and not secret"),
        ({"queryable": True, "required": False}, "A queryable key must be required"),
    ],
)
def test_a_key_that_aws_would_refuse_is_refused(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Key(**values)


class Told:
    """A control that remembers."""

    def __init__(self) -> None:
        self.calls: list[object] = []

    def stopping(self) -> bool:
        return True

    def wait(self, seconds: float) -> bool:
        self.calls.append(seconds)
        return False

    def progress(self, percent: int | None, note: str) -> None:
        self.calls.append((percent, note))


def running(control: sdk.Control) -> Job[Config]:
    return Job(
        id="job-1",
        config=Config("app", Secret("hunter2")),
        client_id=None,
        action=ActionType("Deploy", Owner.CUSTOM, "Acme", "1"),
        pipeline=Pipeline("pipeline", "Stage", "Action"),
        continuation="hunter2",
        deadline=datetime.now(UTC),
        workdir=Path("work"),
        log=logging.getLogger("test"),
        control=control,
    )


def test_a_job_asks_its_control() -> None:
    told = Told()
    job = running(told)

    assert job.stopping
    assert not job.wait(1.5)
    job.wait(timedelta(minutes=1))
    job.wait(-3)
    job.progress(50, "n" * 2_049)
    job.progress()
    assert told.calls == [1.5, 60.0, 0.0, (50, "n" * 2_047 + "…"), (None, "")]


def test_a_job_passes_nothing_wrong_on() -> None:
    told = Told()
    job = running(told)

    with pytest.raises(ValueError, match="percent is 101; give 0 to 100"):
        job.progress(101)
    with pytest.raises(ValueError, match="seconds is nan; give a finite time"):
        job.wait(float("nan"))
    assert told.calls == []


def test_a_job_shows_no_secret_and_cannot_be_changed() -> None:
    job = running(Told())

    assert "hunter2" not in repr(job)
    assert "config" not in repr(job)
    with pytest.raises(FrozenInstanceError):
        job.attempt = 2  # type: ignore[misc]


def test_the_sdk_exports_what_it_says() -> None:
    assert all(hasattr(sdk, name) for name in sdk.__all__)
    assert sorted(sdk.__all__) == sdk.__all__


def test_importing_the_sdk_loads_no_broker_store_or_aws_client() -> None:
    heavy = "{'celery', 'kombu', 'redis', 'boto3', 'botocore'}"
    code = f"import sys, dispatcher.sdk; print(sorted({heavy} & set(sys.modules)))"

    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert found.stdout.strip() == "[]"
