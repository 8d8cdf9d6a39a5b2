"""Client tokens out of Secrets Manager, as the emulator's endpoint serves it."""

import json
from typing import Any

import boto3
import pytest
from aws_secretsmanager_caching import SecretCacheConfig
from botocore.exceptions import EndpointConnectionError

from dispatcher.aws import secrets_manager
from dispatcher.aws.secrets_manager import SecretsManagerTokens
from dispatcher.aws.tokens import TokenStore, tokens
from dispatcher.emulator.client import Emulator
from dispatcher.engine.model import TokensDown

HUSH = "hush-12345"
TEMPLATE = "secretsmanager:acme/{client_id}"


@pytest.fixture
def secrets(codepipeline_emulator: Emulator) -> Any:
    return boto3.client("secretsmanager")


@pytest.fixture
def store(secrets: Any) -> TokenStore:
    secrets.create_secret(Name="acme/one", SecretString=HUSH)
    return tokens(TEMPLATE, {})


def clear(store: TokenStore, client_id: str, *, fresh: bool = False) -> str | None:
    token = store.get(client_id, fresh=fresh)
    return None if token is None else token.get_secret_value()


def test_each_client_has_a_secret_and_who_has_none_is_unknown(store: TokenStore) -> None:
    assert clear(store, "one") == HUSH
    assert clear(store, "two") is None
    assert store.load() is None


@pytest.mark.parametrize(
    "text",
    [
        f"{HUSH}\n",
        json.dumps({"clientToken": HUSH, "since": "2026"}),
        f'{{"clientToken":"{HUSH}"}}',
    ],
)
def test_a_secret_is_a_text_or_json_as_the_console_makes_it(
    store: TokenStore, secrets: Any, text: str
) -> None:
    secrets.create_secret(Name="acme/two", SecretString=text)

    assert clear(store, "two") == HUSH


@pytest.mark.parametrize(
    "text", [" ", "x" * 257, '{"token": "hush-12345"}', '{"clientToken": 12345}', "{hush-12345"]
)
def test_what_is_no_token_is_named_and_not_shown(
    store: TokenStore, secrets: Any, text: str
) -> None:
    secrets.create_secret(Name="acme/two", SecretString=text)

    with pytest.raises(
        TokensDown, match="DISPATCHER_CLIENT_TOKENS: the secret acme/two must"
    ) as down:
        store.get("two")
    assert "12345" not in repr(down.value)
    assert down.value.__context__ is None


def test_a_token_is_kept_until_a_fresh_one_is_asked_for(store: TokenStore, secrets: Any) -> None:
    assert clear(store, "one") == HUSH
    secrets.put_secret_value(SecretId="acme/one", SecretString="rotated")

    assert clear(store, "one") == HUSH
    assert clear(store, "one", fresh=True) == "rotated"
    assert clear(store, "one") == "rotated"


def test_a_deleted_secrets_client_is_unknown_when_it_is_looked_for_anew(
    store: TokenStore, secrets: Any
) -> None:
    assert clear(store, "one") == HUSH
    secrets.delete_secret(SecretId="acme/one")

    assert clear(store, "one", fresh=True) is None


def test_a_missing_secret_is_not_asked_for_at_each_job(store: TokenStore, secrets: Any) -> None:
    assert clear(store, "two") is None
    secrets.create_secret(Name="acme/two", SecretString=HUSH)

    assert clear(store, "two") is None
    assert clear(store, "two", fresh=True) == HUSH


def test_a_service_that_does_not_answer_is_a_store_that_is_down(
    store: TokenStore, codepipeline_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", "http://127.0.0.1:1")

    with pytest.raises(TokensDown, match=r"acme/one cannot be read \(EndpointConnectionError\)"):
        store.get("one")


def test_a_known_token_is_used_on_while_the_service_does_not_answer(
    secrets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_each_look = SecretCacheConfig(max_cache_size=1, secret_refresh_interval=0)
    monkeypatch.setattr(secrets_manager, "CACHING", at_each_look)
    secrets.create_secret(Name="acme/one", SecretString=HUSH)
    store = SecretsManagerTokens("acme/{}".format, None)
    assert clear(store, "one") == HUSH
    asked = []

    def away(**_: object) -> None:
        asked.append(1)
        raise EndpointConnectionError(endpoint_url="nowhere")

    store._client.meta.events.register("before-send.secretsmanager", away)

    assert clear(store, "one") == HUSH
    assert asked
    with pytest.raises(TokensDown, match="EndpointConnectionError"):
        store.get("one", fresh=True)


def test_no_token_shows_in_a_store(store: TokenStore) -> None:
    token = store.get("one")

    assert HUSH not in f"{token} {token!r} {store} {store!r} {vars(store)}"
