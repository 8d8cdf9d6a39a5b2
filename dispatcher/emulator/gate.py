"""Whether S3 would do what it is asked: the region, the session keys, the object, the encryption.

It must not know HTTP beyond the headers, nor where objects are kept. Whose keys are not a job's may
do all.
"""

import re
from collections.abc import Callable

from dispatcher.emulator.faults import Refusal
from dispatcher.emulator.keys import PREFIX, SessionKeys
from dispatcher.emulator.operations import Asked
from dispatcher.emulator.sigv4 import Signed, verified

ENCRYPTION = "x-amz-server-side-encryption"
ENCRYPTION_KEY = "x-amz-server-side-encryption-aws-kms-key-id"
ENCRYPTED = frozenset({"PutObject", "CreateMultipartUpload"})
MOST_SKEW = 900  # seconds: S3 tolerates more than other services
WRONG_REGION = "AuthorizationHeaderMalformed"
NO_SUCH_KEY = Refusal(
    "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.", 403
)
OLDER = re.compile(rf"AWS {PREFIX}[0-9A-Z]+:.+")


def wrong_region(asked: Asked, signed: Signed, region: str | None) -> Refusal | None:
    """`region`: the bucket's, if there is such a bucket."""
    if region in {None, signed.region} or asked.operation == "CreateBucket":
        return None
    return Refusal(
        WRONG_REGION,
        f"The authorization header is malformed; the region '{signed.region}' is wrong; "
        f"expecting '{region}'",
        400,
    )


def older_signature(asked: Asked) -> Refusal | None:
    """Session keys in a signature of Version 2, for which no object under KMS is served."""
    given = asked.parameters.get("AWSAccessKeyId", [""])[0]
    header = asked.headers.get("authorization", "")
    if not given.startswith(PREFIX) and OLDER.fullmatch(header) is None:
        return None
    return Refusal(
        "InvalidArgument",
        "Requests specifying Server Side Encryption with AWS KMS managed keys require AWS "
        "Signature Version 4.",
        400,
    )


def unknown_key(signed: Signed, known: Callable[[str], bool]) -> Refusal | None:
    """Of a key that is no job's: temporary ones that nobody gave are refused."""
    if not signed.access_key_id.startswith(PREFIX) or known(signed.access_key_id):
        return None
    return NO_SUCH_KEY


def refused(
    asked: Asked, signed: Signed, keys: SessionKeys, now: float, offset: float = 0
) -> Refusal | None:
    """`now`: of the clock by which keys end. `offset`: seconds that AWS's clock is ahead of it."""
    return (
        wrong_token(signed, keys, now)
        or wrong_time(signed, now, offset)
        or wrong_signature(asked, signed, keys)
        or wrong_object(asked, keys)
        or wrong_encryption(asked, keys)
    )


def wrong_token(signed: Signed, keys: SessionKeys, now: float) -> Refusal | None:
    if signed.token is None:
        return NO_SUCH_KEY  # without its token a temporary key is none that S3 knows
    if signed.token != keys.token:
        return Refusal("InvalidToken", "The provided token is malformed or otherwise invalid.", 400)
    if now >= keys.ends:
        return Refusal("ExpiredToken", "The provided token has expired.", 400)
    return None


def wrong_time(signed: Signed, now: float, offset: float) -> Refusal | None:
    """A presigned address ends. Another signing time matters only while AWS's clock is off."""
    at, today = signed.at, now + offset
    if at is None:
        text = "AWS authentication requires a valid Date or x-amz-date header"
        return Refusal("AccessDenied", text, 403)
    if signed.expires is not None:
        over = today > at + signed.expires
        return Refusal("AccessDenied", "Request has expired", 403) if over else None
    if not offset or abs(today - at) <= MOST_SKEW:
        return None
    text = "The difference between the request time and the current time is too large."
    return Refusal("RequestTimeTooSkewed", text, 403)


def wrong_signature(asked: Asked, signed: Signed, keys: SessionKeys) -> Refusal | None:
    if verified(signed, asked, keys.secret):
        return None
    return Refusal(
        "SignatureDoesNotMatch",
        "The request signature we calculated does not match the signature you provided. Check "
        "your key and signing method.",
        403,
    )


def wrong_object(asked: Asked, keys: SessionKeys) -> Refusal | None:
    if keys.may(asked.operation, asked.bucket, asked.key):
        return None
    return Refusal("AccessDenied", "Access Denied", 403)


def wrong_encryption(asked: Asked, keys: SessionKeys) -> Refusal | None:
    """What the usual policy of an artifact bucket denies."""
    if asked.operation not in ENCRYPTED:
        return None
    wanted = ("aws:kms", keys.encryption_key)
    if (asked.headers.get(ENCRYPTION), asked.headers.get(ENCRYPTION_KEY)) == wanted:
        return None
    return Refusal(
        "AccessDenied",
        "User is not authorized to perform: s3:PutObject with an explicit deny in a resource-based "
        "policy",
        403,
    )
