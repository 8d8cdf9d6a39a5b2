"""What one look hands to the next has been outside, and nothing but itself is taken back."""

import base64
import time
from collections.abc import Iterator

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dispatcher.sdk import ConfigurationError, Failure, Outcome, Secret
from dispatcher.testing import make_job
from tests.workers.webhook_receiver import JOB, KEY, SECRET, resolving
from workers.webhook import Config, webhook
from workers.webhook.answers import Token

URL = "https://hooks.test/runs/7?key=canary"
GOOD = Token(JOB, int(time.time()), 3, "run-7", URL).sealed(KEY)
ids = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=200)


@pytest.fixture(scope="module", autouse=True)
def operator() -> Iterator[None]:
    """Allows the host, which has no address: nothing is ever sent."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("WEBHOOK_ALLOWED_HOSTS", "hooks.test")
        resolving(monkeypatch, {}, [])
        yield


def run(token: str, secret: str = SECRET) -> Outcome:
    config = Config("https://hooks.test/start", Secret(secret))
    return webhook(make_job(config, continuation=token, client_id=None))


def refused(token: str, secret: str = SECRET) -> None:
    with pytest.raises(Failure) as caught:
        run(token, secret)
    assert isinstance(caught.value, ConfigurationError)
    assert caught.value.message.startswith("The continuation token is not one of this action's")
    assert caught.value.external_id is None
    assert caught.value.__context__ is None


def mutated() -> st.SearchStrategy[str]:
    places = st.integers(0, len(GOOD))
    return st.one_of(
        st.builds(lambda at, odd: GOOD[:at] + odd + GOOD[at:], places, st.text(min_size=1)),
        st.builds(lambda at, odd: GOOD[:at] + odd + GOOD[at + 1 :], places, st.characters()),
        st.builds(lambda at, to: GOOD[:at] + GOOD[to:], places, places),
        st.builds(lambda at: GOOD[at:] + GOOD[:at], places),
        st.text(),
    )


@given(mutated())
def test_a_changed_token_is_a_configuration_error_and_nothing_else(token: str) -> None:
    assume(token != GOOD)

    refused(token)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("v1 ", "v2 "),
        ("v1 ", ""),
        (" 3 ", " 0 "),
        ("hooks.test", "evil.test"),
        ("/runs/7", "/runs/8"),
        ("run-7", "run-8"),
        ("run-7", ""),
    ],
)
def test_each_part_of_a_token_is_sealed(old: str, new: str) -> None:
    refused(GOOD.replace(old, new))


def test_a_token_of_another_secret_is_refused() -> None:
    refused(GOOD, "whsec_" + base64.b64encode(bytes(32)).decode())


def test_a_token_as_it_was_given_is_taken() -> None:
    assert run(GOOD).external_id == "run-7"


@given(
    started=st.integers(0, 10**11 - 1),
    misses=st.integers(0, 9),
    external=ids,
    path=st.text("abc/?=&%-._~", max_size=950),
)
def test_every_token_fits_and_comes_back(
    started: int, misses: int, external: str, path: str
) -> None:
    token = Token(JOB, started, misses, external, f"https://hooks.test/{path}")

    sealed = token.sealed(KEY)

    assert len(sealed) <= 2_048
    assert Token.opened(sealed, KEY) == token


def test_a_token_is_not_shown() -> None:
    token = Token(JOB, 1, 0, "run-7", URL)

    assert "canary" not in repr(token)
