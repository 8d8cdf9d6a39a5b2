"""The stores of client tokens: what they know, when they read again, what they say when down."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dispatcher.aws.tokens import TokenStore, tokens
from dispatcher.engine.model import TokensDown
from dispatcher.sdk import Secret

HUSH = "hush-12345"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps({"client-1": HUSH, "client-2": "other"}))
    return path


@pytest.fixture
def store(path: Path) -> TokenStore:
    return tokens(path.as_uri(), {})


def clear(token: Secret | None) -> str | None:
    return None if token is None else token.get_secret_value()


def replace(path: Path, content: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(content)
    new.replace(path)


def test_a_file_knows_its_clients_and_no_others(store: TokenStore) -> None:
    assert clear(store.get("client-1")) == HUSH
    assert store.get("client-3") is None
    assert store.load() == 2


def test_a_variable_knows_its_clients_and_no_others() -> None:
    store = tokens("env:TOKENS", {"TOKENS": json.dumps({"client-1": HUSH})})

    assert clear(store.get("client-1")) == HUSH
    assert store.get("client-2") is None
    assert store.load() == 1


@pytest.mark.parametrize("uri", [None, ""])
def test_without_a_store_nobody_is_known(uri: str | None) -> None:
    store = tokens(uri, {})

    assert store.get("client-1", fresh=True) is None
    assert store.load() == 0


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
def test_a_path_may_be_percent_encoded(tmp_path: Path, bom: bytes) -> None:
    path = tmp_path / "my tokens#1.json"
    path.write_bytes(bom + b'{"client-1": "one"}')

    assert clear(tokens(path.as_uri(), {}).get("client-1")) == "one"
    assert clear(tokens(f"file://{path}", {}).get("client-1")) == "one"


def test_a_replaced_file_is_read_again(store: TokenStore, path: Path) -> None:
    store.get("client-1")
    replace(path, '{"client-1": "rotated"}')

    assert clear(store.get("client-1")) == "rotated"
    assert store.get("client-2") is None


def test_a_file_of_the_same_size_and_time_is_read_again_by_its_inode(
    store: TokenStore, path: Path
) -> None:
    path.write_text('{"client-1": "one"}')
    store.get("client-1")
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    replace(path, '{"client-1": "two"}')
    os.utime(path, ns=times)

    assert clear(store.get("client-1")) == "two"


def test_an_unchanged_file_is_not_read_again_unless_asked(store: TokenStore, path: Path) -> None:
    path.write_text('{"client-1": "one"}')
    store.get("client-1")
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    path.write_text('{"client-1": "two"}')  # in place: the same inode
    os.utime(path, ns=times)

    assert clear(store.get("client-1")) == "one"
    assert clear(store.get("client-1", fresh=True)) == "two"
    assert clear(store.get("client-1")) == "two"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "hush-12345",
        '{"client-1": "hush-12345"',
        '["hush-12345"]',
        '{"client-1": 12345}',
        '{"client-1": ""}',
        '{"client-1": null}',
        json.dumps({"client-1": "hush-12345" * 26}),
        json.dumps({"client-1": {"token": "hush-12345"}}),
        "[" * 100_000,
    ],
    ids=range(10),
)
def test_broken_content_is_a_store_that_is_down_until_it_is_mended(
    store: TokenStore, path: Path, content: str
) -> None:
    store.get("client-1")
    replace(path, content)

    for _ in range(2):
        with pytest.raises(TokensDown) as down:
            store.get("client-1")
        assert str(path) in str(down.value)
        assert "12345" not in repr(down.value)
        assert down.value.__context__ is None

    replace(path, '{"client-1": "mended"}')
    assert clear(store.get("client-1")) == "mended"


def test_content_that_is_no_unicode_is_a_store_that_is_down(store: TokenStore, path: Path) -> None:
    path.write_bytes(b'{"client-1": "\xff\xfe"}')

    with pytest.raises(TokensDown):
        store.load()


def test_a_missing_file_is_a_store_that_is_down(store: TokenStore, path: Path) -> None:
    store.get("client-1")
    path.unlink()

    with pytest.raises(TokensDown, match=r"No such file or directory.*JSON object") as down:
        store.get("client-1")
    assert str(path) in str(down.value)


def test_a_directory_is_a_store_that_is_down(tmp_path: Path) -> None:
    with pytest.raises(TokensDown, match="Is a directory"):
        tokens(tmp_path.as_uri(), {}).load()


def test_a_failed_read_leaves_nothing_to_fall_back_on(store: TokenStore, path: Path) -> None:
    path.write_text('{"client-1": "one"}')
    store.get("client-1")
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    path.write_text('{"client-1": two}  ')  # in place, as long as before
    os.truncate(path, len('{"client-1": "one"}'))
    os.utime(path, ns=times)

    with pytest.raises(TokensDown):
        store.get("client-1", fresh=True)
    with pytest.raises(TokensDown):
        store.get("client-1")


def test_a_variable_that_is_not_set_or_broken_is_a_store_that_is_down() -> None:
    environ: dict[str, str] = {}
    store = tokens("env:TOKENS", environ)

    with pytest.raises(TokensDown, match="TOKENS is not set"):
        store.load()
    environ["TOKENS"] = HUSH
    with pytest.raises(TokensDown, match="TOKENS") as down:
        store.get("client-1")
    assert HUSH not in str(down.value)
    environ["TOKENS"] = json.dumps({"client-1": HUSH})
    assert clear(store.get("client-1")) == HUSH


@pytest.mark.parametrize(
    "uri",
    [
        "secretsmanager:codepipeline/tokens",
        "secretsmanager:",
        "file:tokens.json",
        "file://tokens.json",
        "file:///",
        "/etc/tokens.json",
        "env:",
        "env:A B",
        "https://example.com/tokens",
        '{"client-1": "hush-12345"}',
    ],
)
def test_any_other_uri_is_refused_with_the_forms_and_without_being_shown(uri: str) -> None:
    with pytest.raises(ValueError, match=r"file:///.*env:NAME") as refused:
        tokens(uri, {})

    assert HUSH not in str(refused.value)


def test_no_token_shows_in_a_token_or_a_store(store: TokenStore) -> None:
    token = store.get("client-1")

    assert HUSH not in f"{token} {token!r} {store} {store!r} {vars(store)}"


def test_many_threads_see_whole_contents_alone(store: TokenStore, path: Path) -> None:
    def look(number: int) -> bool:
        if number % 10 == 0:
            path.with_suffix(f".{number}").write_text(f'{{"client-1": "{number}"}}')
            path.with_suffix(f".{number}").replace(path)
        token = clear(store.get("client-1", fresh=number % 7 == 0))
        return token == HUSH or (token is not None and token.isdecimal())

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(look, range(400)))
