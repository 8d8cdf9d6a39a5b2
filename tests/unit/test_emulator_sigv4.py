"""Signatures of Version 4, compared with those that botocore makes."""

from typing import Any
from urllib.parse import quote

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.emulator.operations import Asked
from dispatcher.emulator.sigv4 import read, verified
from tests.unit.test_emulator_operations import to_asked

SECRET = "secret/with+signs="
KEYS = Credentials("ASIA0123456789ABCDEF", SECRET, "a/token+=")
SIGNERS = {"header": S3SigV4Auth, "query": S3SigV4QueryAuth}
URL = "http://127.0.0.1:8765"


def signed(how: str, request: AWSRequest, secret: str = SECRET) -> Asked:
    signer: Any = SIGNERS[how]
    signer(Credentials(KEYS.access_key, secret, KEYS.token), "s3", "eu-west-1").add_auth(request)
    return to_asked(request.prepare())


def ordinary(name: str) -> bool:
    """Not one that a presigned address has of itself."""
    return not name.startswith("X-Amz-")


@pytest.mark.parametrize("how", SIGNERS)
@given(
    method=st.sampled_from(["GET", "PUT", "POST", "HEAD", "DELETE"]),
    key=st.text(min_size=1),
    query=st.dictionaries(st.text(min_size=1).filter(ordinary), st.text()),
    header=st.text(st.characters(min_codepoint=32, max_codepoint=126)),
    body=st.binary(),
)
def test_what_botocore_signs_is_verified(
    how: str, method: str, key: str, query: dict[str, str], header: str, body: bytes
) -> None:
    members = "&".join(
        f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in query.items()
    )
    url = f"{URL}/bucket/{quote(key, safe='/-_.~')}" + (f"?{members}" if members else "")

    sent = body if how == "header" else b""  # botocore makes a presigned body into a query
    asked = signed(how, AWSRequest(method, url, {"x-amz-meta-it": header}, sent))

    said = read(asked)
    assert said is not None
    assert (said.access_key_id, said.token) == (KEYS.access_key, KEYS.token)
    assert (said.region, said.service) == ("eu-west-1", "s3")
    assert said.at is not None
    assert (said.expires is None) is (how == "header")
    assert verified(said, asked, SECRET)
    assert not verified(said, asked, "another")


@pytest.mark.parametrize("how", SIGNERS)
@pytest.mark.parametrize(
    "change",
    [
        {"method": "DELETE"},
        {"path": "/bucket/other"},
        {"query": "?extra=1"},
        {"headers": {"x-amz-meta-it": "else"}},
        {"headers": {"host": "elsewhere"}},
    ],
)
def test_what_was_changed_after_it_was_signed_is_not_verified(
    how: str, change: dict[str, Any]
) -> None:
    asked = signed(how, AWSRequest("GET", f"{URL}/bucket/key", {"x-amz-meta-it": "this"}))
    parts: dict[str, Any] = {**vars(asked)}
    parts |= change | {"headers": {**asked.headers, **change.get("headers", {})}}
    parts["query"] = asked.query + change.get("query", "").replace("?", "&" if asked.query else "")

    other = Asked(**{name: parts[name] for name in ("method", "path", "query", "headers")})

    said = read(other)
    assert said is not None
    assert not verified(said, other, SECRET)


@pytest.mark.parametrize(
    "payload",
    [
        "UNSIGNED-PAYLOAD",
        "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
    ],
)
def test_a_payload_that_is_not_hashed_is_signed_by_its_name(payload: str) -> None:
    class Streaming(S3SigV4Auth):
        def payload(self, request: AWSRequest) -> str:
            return payload

    request = AWSRequest("PUT", f"{URL}/bucket/key", {}, b"body")
    Streaming(KEYS, "s3", "eu-west-1").add_auth(request)

    asked = to_asked(request.prepare())

    said = read(asked)
    assert said is not None
    assert said.payload == payload
    assert verified(said, asked, SECRET)


def test_spaces_of_a_header_are_signed_as_one() -> None:
    asked = signed("header", AWSRequest("GET", f"{URL}/bucket/key", {"x-amz-meta-it": " a   b "}))

    said = read(asked)
    assert said is not None
    assert verified(said, asked, SECRET)


LATIN = st.text(st.characters(codec="latin-1"))


@given(
    headers=st.dictionaries(
        st.sampled_from(["authorization", "x-amz-date", "host", "x-amz-content-sha256"]), LATIN
    ),
    query=LATIN,
    signature=st.text(),
    names=st.text(),
    stamp=LATIN,
)
def test_no_request_is_an_accident(
    headers: dict[str, str], query: str, signature: str, names: str, stamp: str
) -> None:
    scope = quote("ASIA/20260101/eu-west-1/s3/aws4_request")
    presigned = f"X-Amz-Credential={scope}&X-Amz-SignedHeaders={quote(names)}&X-Amz-Date={stamp}"

    for text in (query, f"{presigned}&X-Amz-Signature={quote(signature)}&{query}"):
        asked = Asked("GET", "/bucket/key", text, headers)
        said = read(asked)
        if said is not None:
            assert said.at is None or said.at > 0
            assert not verified(said, asked, SECRET)


def test_secrets_are_not_in_what_is_printed() -> None:
    said = read(signed("header", AWSRequest("GET", f"{URL}/bucket/key")))

    assert said is not None
    assert said.signature not in repr(said)
    assert str(said.token) not in repr(said)
