"""A job's session keys: renewed in time, once after S3 refused them, and never forgotten early."""

import threading

import pytest

from dispatcher.aws.s3_requests import RENEW_AFTER, RENEW_AGAIN, Keyring
from dispatcher.engine.model import SessionKeys, Throttled


class Watch:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Pipeline:
    """Gives new keys at each call, unless it is away."""

    def __init__(self) -> None:
        self.asked = 0
        self.away = False

    def __call__(self) -> SessionKeys:
        self.asked += 1
        if self.away:
            raise Throttled
        return keys(self.asked)


def keys(number: int) -> SessionKeys:
    return SessionKeys(f"ASIA{number}", f"secret{number}", f"token{number}")


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def pipeline() -> Pipeline:
    return Pipeline()


@pytest.fixture
def keyring(watch: Watch, pipeline: Pipeline) -> Keyring:
    return Keyring(keys(0), pipeline, watch)


def access(keyring: Keyring) -> str:
    return str(keyring.current().get_frozen_credentials().access_key)


def test_keys_are_renewed_before_their_15_minutes_end(
    keyring: Keyring, watch: Watch, pipeline: Pipeline
) -> None:
    watch.now += RENEW_AFTER - 1
    assert access(keyring) == "ASIA0"

    watch.now += 1
    assert access(keyring) == "ASIA1"
    assert access(keyring) == "ASIA1"

    watch.now += RENEW_AFTER
    assert access(keyring) == "ASIA2"
    assert pipeline.asked == 2
    assert RENEW_AFTER + 60 < 15 * 60


def test_while_codepipeline_is_away_the_old_keys_are_used_and_it_is_not_asked_at_each_request(
    keyring: Keyring, watch: Watch, pipeline: Pipeline
) -> None:
    pipeline.away = True
    watch.now += RENEW_AFTER

    assert [access(keyring) for _ in range(3)] == ["ASIA0"] * 3
    assert pipeline.asked == 1

    pipeline.away = False
    watch.now += RENEW_AGAIN
    assert access(keyring) == "ASIA2"


def test_refused_keys_are_replaced_once_however_many_requests_had_them(
    keyring: Keyring, pipeline: Pipeline
) -> None:
    refused = keyring.current()
    threads = [threading.Thread(target=keyring.replace, args=(refused,)) for _ in range(8)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert pipeline.asked == 1
    assert access(keyring) == "ASIA1"


def test_a_renewal_that_s3_asked_for_and_that_fails_is_told(
    keyring: Keyring, pipeline: Pipeline
) -> None:
    pipeline.away = True

    with pytest.raises(Throttled):
        keyring.replace(keyring.current())


def test_keys_are_shown_nowhere() -> None:
    assert "secret" not in repr(keys(1))
