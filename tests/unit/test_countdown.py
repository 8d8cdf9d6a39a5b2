"""How a provider author tests a long operation: hand each token to the next job."""

import pytest

from dispatcher.sdk import ConfigurationError, Continue, Outcome, Succeeded
from dispatcher.testing import make_job
from workers.countdown import Config, countdown


def run(steps: int, continuation: str | None = None) -> Outcome:
    return countdown(make_job(Config(steps=steps), continuation=continuation, client_id=None))


def test_one_job_is_enough_for_one_step() -> None:
    assert isinstance(run(steps=1), Succeeded)


def test_each_job_hands_a_token_to_the_next_until_all_steps_are_done() -> None:
    percents: list[int | None] = []

    outcome = run(steps=4)
    while isinstance(outcome, Continue):
        percents.append(outcome.percent)
        outcome = run(steps=4, continuation=outcome.token)

    assert percents == [25, 50, 75]
    assert outcome == Succeeded(summary="All 4 steps are done.")


@pytest.mark.parametrize(
    "token",
    [
        "",
        "2",
        "v1:",
        "v1:0",
        "v1:-1",
        "v1:4",
        "v1:9",
        "v2:1",
        "v1:1 ",
        "v1:\N{ARABIC-INDIC DIGIT ONE}",
        "v1:1\n",
    ],
)
def test_a_token_that_no_step_gave_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(ConfigurationError, match="not one of this action's steps") as caught:
        run(steps=4, continuation=token)

    assert token == "" or token not in caught.value.message


@pytest.mark.parametrize("steps", [0, -1])
def test_there_must_be_a_step(steps: int) -> None:
    with pytest.raises(ConfigurationError, match="Steps must be 1 or more"):
        run(steps=steps)


def test_the_last_step_writes_what_was_done() -> None:
    first = make_job(Config(steps=2), client_id=None, outputs=["Log"])
    last = make_job(Config(steps=2), client_id=None, outputs=["Log"], continuation="v1:1")

    countdown(first)
    countdown(last)

    assert first.written == {}
    assert last.written == {"Log": b"step 1\nstep 2\n"}
