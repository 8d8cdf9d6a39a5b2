"""The session keys that job calls hand out: of which job, until when, and what they may do.

It must not know HTTP, the wall clock, nor where objects are kept.
"""

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

PREFIX = "ASIA"  # of temporary keys; AWS's user guide to IAM lists the prefixes
MOST = 200_000  # 100 MB; of more the oldest are forgotten
READS = frozenset({"GetObject", "HeadObject"})
WRITES = frozenset(
    {
        "PutObject",
        "CreateMultipartUpload",
        "UploadPart",
        "CompleteMultipartUpload",
        "AbortMultipartUpload",
        "ListParts",
    }
)


@dataclass(frozen=True, slots=True)
class SessionKeys:
    """`ends`: epoch seconds. `artifacts`: the job's members of that kind, by AWS's names."""

    job_id: str
    artifacts: Mapping[str, Any] = field(repr=False)
    ends: float
    access_key_id: str = field(default_factory=lambda: PREFIX + secrets.token_hex(8).upper())
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(30), repr=False)
    token: str = field(default_factory=lambda: secrets.token_urlsafe(90), repr=False)

    @property
    def shown(self) -> dict[str, str]:
        return {
            "accessKeyId": self.access_key_id,
            "secretAccessKey": self.secret,
            "sessionToken": self.token,
        }

    @property
    def encryption_key(self) -> str | None:
        key = self.artifacts.get("encryptionKey") or {}
        return key.get("id")

    def may(self, operation: str, bucket: str | None, key: str | None) -> bool:
        """Inputs are read, outputs are read and written; nothing is done to anything else."""
        place = (bucket, key)
        if operation in WRITES:
            return place in self._places("outputArtifacts")
        both = (*self._places("inputArtifacts"), *self._places("outputArtifacts"))
        return operation in READS and place in both

    def _places(self, which: str) -> Iterator[tuple[str | None, str | None]]:
        for artifact in self.artifacts.get(which) or ():
            place = (artifact.get("location") or {}).get("s3Location")
            if place:
                yield place["bucketName"], place["objectKey"]


class Keys:
    """All that were given, by their access key ids."""

    def __init__(self, lifetime: timedelta, most: int = MOST) -> None:
        self._lifetime = lifetime.total_seconds()
        self._most = most
        self._given: dict[str, SessionKeys] = {}

    def give(self, job_id: str, artifacts: Mapping[str, Any], now: float) -> SessionKeys:
        """New ones at each call, as AWS gives out."""
        if len(self._given) >= self._most:
            del self._given[next(iter(self._given))]
        given = SessionKeys(job_id, artifacts, now + self._lifetime)
        self._given[given.access_key_id] = given
        return given

    def get(self, access_key_id: str) -> SessionKeys | None:
        return self._given.get(access_key_id)
