"""The demo's scenario, and how ends are told from what the emulator shows."""

import json
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dispatcher.demo import parts, terminal
from dispatcher.demo.scenario import End, Planned, Progress, count, progress, scenario
from dispatcher.demo.screen import summary

KINDS = ["echo an artifact", "3 steps", "fails on purpose", "misconfigured", "unknown client"]


def shown(*history: str, following: str | None = None, failure: str | None = None) -> Any:
    """A job as the emulator shows it, a second in each state."""
    details = {"failureDetails": {"type": failure, "message": "why"}}
    return {
        "status": history[-1],
        "history": [{"status": status, "at": 100.0 + at} for at, status in enumerate(history)],
        "next": following,
        "result": None if failure is None else {"request": details},
    }


def planned(kind: str) -> Planned:
    return next(one for one in scenario(5) if one.title == kind)


def seen(kind: str, *history: str, failure: str | None = None) -> Progress:
    return progress(planned(kind), "a", {"a": shown(*history, failure=failure)})


RUN = ("Created", "Queued", "Dispatched", "InProgress")


@pytest.mark.parametrize("jobs", range(1, 6))
def test_few_jobs_are_the_first_kinds(jobs: int) -> None:
    assert [one.title for one in scenario(jobs)] == KINDS[:jobs]


def test_twenty_jobs_hold_every_kind_several_tenants_and_both_owners() -> None:
    jobs = scenario(20)

    assert len(jobs) == 20
    assert {one.title for one in jobs} >= set(KINDS)
    assert len({one.client for one in jobs if one.client}) == 4
    assert {one.action_type.owner for one in jobs} == {"ThirdParty", "Custom"}
    assert [one.should for one in jobs].count(End.FAILED) == 2
    assert [one.should for one in jobs].count(End.WAITING) == 1


def test_the_scenario_is_the_same_every_time() -> None:
    assert scenario(30) == scenario(30)
    assert scenario(30)[:20] == scenario(20)


@pytest.mark.parametrize(
    ("kind", "history", "failure"),
    [
        ("echo an artifact", (*RUN, "Succeeded"), None),
        ("fails on purpose", (*RUN, "Failed"), "JobFailed"),
        ("misconfigured", (*RUN, "Failed"), "ConfigurationError"),
        ("unknown client", ("Created", "Queued", "Dispatched", "Queued"), None),
    ],
)
def test_a_job_that_ends_as_it_should_is_well(
    kind: str, history: tuple[str, ...], failure: str | None
) -> None:
    one = seen(kind, *history, failure=failure)

    assert one.well
    assert one.settled


@pytest.mark.parametrize(
    ("kind", "history", "failure"),
    [
        ("echo an artifact", (*RUN, "Failed"), "JobFailed"),
        ("echo an artifact", (*RUN, "TimedOut"), None),
        ("fails on purpose", (*RUN, "Succeeded"), None),
        ("misconfigured", (*RUN, "Failed"), "JobFailed"),
        ("unknown client", (*RUN, "Failed"), "SystemUnavailable"),
    ],
)
def test_a_job_that_ends_otherwise_is_over_but_not_well(
    kind: str, history: tuple[str, ...], failure: str | None
) -> None:
    one = seen(kind, *history, failure=failure)

    assert not one.well
    assert one.settled


@pytest.mark.parametrize("kind", ["echo an artifact", "fails on purpose"])
def test_a_job_on_offer_that_should_end_is_not_settled(kind: str) -> None:
    assert not seen(kind, "Created", "Queued", "Dispatched").settled


def test_the_unknown_clients_job_must_have_been_offered() -> None:
    assert not seen("unknown client", "Created", "Queued").well


def test_the_unknown_clients_job_must_not_have_begun() -> None:
    assert not seen("unknown client", *RUN).well


def test_a_chain_counts_by_its_last_job() -> None:
    jobs = {
        "a": shown(*RUN, "Succeeded", following="b"),
        "b": shown(*RUN, "Succeeded", following="c"),
        "c": shown("Created"),
    }

    one = progress(planned("3 steps"), "a", jobs)

    assert (one.step, one.status, one.end) == (3, "Created", End.WAITING)
    assert not one.settled
    assert progress(planned("3 steps"), "a", {**jobs, "c": shown(*RUN, "Succeeded")}).well


def test_seconds_run_from_the_first_jobs_creation_to_the_last_ones_end() -> None:
    assert seen("echo an artifact", *RUN, "Succeeded").seconds == 4.0


def test_counts_add_up_to_the_jobs_submitted() -> None:
    ends = [
        seen("echo an artifact", *RUN, "Succeeded"),
        seen("echo an artifact", *RUN, "TimedOut"),
        seen("fails on purpose", *RUN, "Failed", failure="JobFailed"),
        seen("unknown client", "Created", "Queued", "Dispatched"),
        seen("echo an artifact", *RUN),
    ]

    assert count(ends) == {"jobs": 5, "succeeded": 1, "failed": 2, "waiting": 2}


def test_the_summary_says_why_and_what_is_not_as_it_should(
    capsys: pytest.CaptureFixture[str],
) -> None:
    summary(
        [
            seen("fails on purpose", *RUN, "Failed", failure="JobFailed"),
            seen("unknown client", "Created", "Queued", "Dispatched"),
            seen("echo an artifact", "Created", "Queued", "Dispatched"),
        ]
    )

    said = capsys.readouterr().out
    assert "JobFailed: why" in said
    assert "stays on offer" in said
    assert "NOT AS IT SHOULD: it should have succeeded, and nobody began it" in said
    assert said.splitlines()[-1] == "p50 4.00 s, longest 4.00 s"


def test_tokens_are_random_and_only_their_owner_may_read_them(tmp_path: Path) -> None:
    tokens = parts.new_tokens(tmp_path / "one.json")
    others = parts.new_tokens(tmp_path / "two.json")

    assert stat.S_IMODE((tmp_path / "one.json").stat().st_mode) == 0o600
    assert json.loads((tmp_path / "one.json").read_text()) == tokens
    assert not set(tokens.values()) & set(others.values())


def test_the_users_own_settings_do_not_reach_the_demos_processes(tmp_path: Path) -> None:
    given = {
        "HOME": "/home/me",
        "AWS_PROFILE": "production",
        "DISPATCHER_BROKER_URL": "amqp://production",
        "CELERY_BROKER_URL": "amqp://production",
        "FLOWER_BASIC_AUTH": "me:secret",
        "NO_PROXY": "internal",
    }

    env = parts.environment(
        given, redis="redis://r/3", emulator="127.0.0.1:1", tokens=tmp_path / "tokens.json"
    )

    assert env["HOME"] == "/home/me"
    assert env["DISPATCHER_REDIS_URL"] == "redis://r/3"
    assert env["NO_PROXY"] == "internal,127.0.0.1"
    assert not ({*given} - {"HOME", "NO_PROXY"}) & {*env}
    assert "production" not in str(env)


def test_an_artifact_that_did_not_come_out_as_it_went_in_is_not_well(
    capsys: pytest.CaptureFixture[str],
) -> None:
    jobs = {"a": shown(*RUN, "Succeeded")}

    one = progress(planned("echo an artifact"), "a", jobs, carried=False)
    summary([one])

    assert not one.well
    assert "its output artifact should be its input" in capsys.readouterr().out


def test_what_a_second_terminal_is_to_type_holds_in_odd_folders(tmp_path: Path) -> None:
    folder = tmp_path / "t a'b $(touch broken)"
    folder.mkdir()
    env = {"PATH": "/bin:/usr/bin", "AWS_REGION": "it's here", "HOME": "/root"}

    said = terminal.invite(folder, tmp_path, env, {"HOME": "/root"}, {"acme": "token"})

    [line] = [line.strip() for line in said.splitlines() if line.strip().startswith("cd ")]
    done = subprocess.run(
        ["sh", "-ec", f'{line}; echo "$AWS_REGION$AWS_PROFILE$OTEL_SERVICE_NAME"; pwd'],
        env={"PATH": "/bin:/usr/bin", "AWS_PROFILE": "mine", "OTEL_SERVICE_NAME": "mine"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"it's here\n{tmp_path}\n"
    assert {stat.S_IMODE(one.stat().st_mode) for one in folder.iterdir()} == {0o600}
    assert "HOME" not in (folder / "env").read_text()
