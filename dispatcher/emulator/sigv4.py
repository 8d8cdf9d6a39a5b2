"""Signature Version 4 of a request to S3: by whom, and whether with the secret he was given.

It must not know ASGI, nor whose keys there are.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote, unquote_to_bytes

from dispatcher.emulator.operations import Asked

ALGORITHM = "AWS4-HMAC-SHA256"
HEADER = re.compile(
    rf"{ALGORITHM} +Credential=(?P<credential>[^,\s]+),\s*SignedHeaders=(?P<headers>[^,\s]+),\s*"
    r"Signature=(?P<signature>[0-9a-f]{64})"
)
CREDENTIAL = re.compile(
    r"(?P<access_key_id>[^/]+)/(?P<date>\d{8})/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request"
)
UNSIGNED = "UNSIGNED-PAYLOAD"
SIGNATURE = "X-Amz-Signature"  # the one member of a presigned query that is not itself signed


@dataclass(frozen=True)
class Signed:
    """What a request says of its signature. `expires`: seconds, of a presigned address alone."""

    access_key_id: str
    date: str
    region: str
    service: str
    headers: tuple[str, ...]
    signature: str = field(repr=False)
    stamp: str
    payload: str
    token: str | None = field(repr=False)
    expires: int | None = None

    @property
    def at(self) -> float | None:
        """Epoch seconds, or None where the stamp is none."""
        try:
            signed = datetime.strptime(self.stamp, "%Y%m%dT%H%M%SZ")  # noqa: DTZ007 - Z is UTC
        except ValueError:
            return None
        return signed.replace(tzinfo=UTC).timestamp()


def read(asked: Asked) -> Signed | None:
    """None: it has no signature of this version."""
    header = HEADER.fullmatch(asked.headers.get("authorization", "").strip())
    if header is not None:
        stamp, token = (asked.headers.get(f"x-amz-{it}") for it in ("date", "security-token"))
        return signed(asked, header.groupdict(), stamp, token)
    said = {name: values[0] for name, values in asked.parameters.items()}
    if SIGNATURE not in said:
        return None
    parts = {
        "credential": said.get("X-Amz-Credential", ""),
        "headers": said.get("X-Amz-SignedHeaders", ""),
        "signature": said[SIGNATURE],
    }
    expires = said.get("X-Amz-Expires", "")
    return signed(
        asked,
        parts,
        said.get("X-Amz-Date"),
        said.get("X-Amz-Security-Token"),
        int(expires) if expires.isdecimal() else 0,
    )


def signed(
    asked: Asked,
    parts: Mapping[str, str],
    stamp: str | None,
    token: str | None,
    expires: int | None = None,
) -> Signed | None:
    scope = CREDENTIAL.fullmatch(parts["credential"])
    if scope is None:
        return None
    return Signed(
        **scope.groupdict(),
        headers=tuple(parts["headers"].split(";")),
        signature=parts["signature"],
        stamp=stamp or "",
        payload=asked.headers.get("x-amz-content-sha256", UNSIGNED),
        token=token,
        expires=expires,
    )


def verified(said: Signed, asked: Asked, secret: str) -> bool:
    wanted = signature(said, asked, secret)
    return hmac.compare_digest(wanted.encode(), said.signature.encode())


def signature(said: Signed, asked: Asked, secret: str) -> str:
    scope = (said.date, said.region, said.service, "aws4_request")
    # A header's bytes came as characters of Latin 1.
    request = canonical_request(said, asked).encode("latin-1", errors="replace")
    canonical = hashlib.sha256(request).hexdigest()
    text = "\n".join((ALGORITHM, said.stamp, "/".join(scope), canonical))
    key = f"AWS4{secret}".encode()
    for part in scope:
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()


def canonical_request(said: Signed, asked: Asked) -> str:
    headers = [f"{name}:{trimmed(asked.headers.get(name, ''))}" for name in said.headers]
    parts = (
        asked.method,
        "/".join(encoded(part) for part in asked.path.split("/")),
        canonical_query(asked.query),
        *headers,
        "",
        ";".join(said.headers),
        said.payload,
    )
    return "\n".join(parts)


def canonical_query(query: str) -> str:
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    members = sorted((encoded(name), encoded(value)) for name, _, value in pairs)
    return "&".join(f"{name}={value}" for name, value in members if name != SIGNATURE)


def trimmed(value: str) -> str:
    return re.sub(" +", " ", value.strip())


def encoded(text: str) -> str:
    """As AWS has it, whether the sender wrote more or less of it in percents."""
    return quote(unquote_to_bytes(text), safe="-_.~")
