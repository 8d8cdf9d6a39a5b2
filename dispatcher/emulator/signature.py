"""Signature Version 4 as far as a server without secret keys can look at it: its form and its time.

It must not know HTTP beyond the two headers, nor what the call is.
"""

import re
from datetime import UTC, datetime

from dispatcher.emulator.jobs import CallError

# The signature is not verified: the emulator holds no secret keys.
SIGNATURE = re.compile(
    r"AWS4-HMAC-SHA256 Credential=[^/,]+/\d{8}/[^/,]+/codepipeline/aws4_request, *"
    r"SignedHeaders=[^,]+, *Signature=[0-9a-f]{64}"
)
SIGNED_AT = "%Y%m%dT%H%M%SZ"
OLDEST_SIGNATURE = 300  # seconds, either way


def check_signature(header: str | None) -> None:
    if header is None:
        raise CallError("MissingAuthenticationTokenException", "Missing Authentication Token")
    if SIGNATURE.fullmatch(header) is None:
        raise CallError(
            "IncompleteSignatureException",
            "The Authorization header is not a Signature Version 4 for service codepipeline",
        )


def check_signing_time(stamp: str | None, now: float) -> None:
    """What a caller whose clock differs from AWS's is told, in the words of other AWS services."""
    try:
        signed = datetime.strptime(stamp or "", SIGNED_AT).replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise CallError(
            "IncompleteSignatureException", "X-Amz-Date must be in ISO-8601 'basic format'"
        ) from None
    if abs(signed - now) <= OLDEST_SIGNATURE:
        return
    old = signed < now
    limit, today = amz_date(now + OLDEST_SIGNATURE * (-1 if old else 1)), amz_date(now)
    raise CallError(
        "InvalidSignatureException",
        f"Signature expired: {stamp} is now earlier than {limit} ({today} - 5 min.)"
        if old
        else f"Signature not yet current: {stamp} is still later than {limit} ({today} + 5 min.)",
    )


def amz_date(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime(SIGNED_AT)
