"""moto's buckets and objects as they are in this process's memory, reached without a request.

Loads moto when it is imported, which takes a second; must not know HTTP. moto holds in memory what
it is given, and more than once while it hands it on: here what is long stays in files.
"""

import base64
import hashlib
import zlib
from collections.abc import Iterable, Sequence
from importlib import import_module
from itertools import chain
from types import SimpleNamespace
from typing import Any

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.iam.models import iam_backends
from moto.s3.exceptions import EntityTooSmall, InvalidPart, MalformedXML, S3ClientError
from moto.s3.models import s3_backends
from moto.settings import S3_UPLOAD_PART_MIN_SIZE

from dispatcher.emulator.content import CHUNK, Content, chunks, joined

PARTITION = "aws"
Checksum = tuple[str, str, int]


class Buffer:
    """In the place of the temporary file in which moto keeps an object: what was last written into
    it, bytes or a file, is what a read answers."""

    def __init__(self, max_size: int = 0) -> None:  # noqa: ARG002 - as a spooled file has it
        self._content: bytes | Content = b""
        self._at = 0

    def write(self, content: bytes | Content) -> None:
        self._content = content

    def seek(self, at: int) -> None:
        self._at = at

    def truncate(self) -> None:
        self._content = b""

    def read(self, size: int | None = None) -> bytes | Content:
        if size is None:
            return self._content
        part = self._content[self._at : self._at + min(size, CHUNK)]
        self._at += len(part)
        return bytes(part)

    def close(self) -> None:
        self._content = b""


def complete(
    upload: Any, parts: Iterable[tuple[int, str]]
) -> tuple[bytes | Content, str, Checksum | None]:
    """In the place of `FakeMultipart.complete`: the content, its ETag and its checksum."""
    chosen: list[Any] = []
    for number, etag in parts:
        part = upload.parts.get(number)
        if part is None or part.etag.strip('"') != etag.strip('"'):
            raise InvalidPart
        if chosen and chosen[-1].contentsize < S3_UPLOAD_PART_MIN_SIZE:
            raise EntityTooSmall
        chosen.append(part)
    if not chosen:
        raise MalformedXML
    digests = b"".join(bytes.fromhex(part.etag.strip('"')) for part in chosen)
    etag = hashlib.md5(digests, usedforsecurity=False).hexdigest()
    contents = [part.value for part in chosen]
    return joined(contents), f"{etag}-{len(chosen)}", checksum(upload.metadata, contents)


def checksum(asked: Any, contents: Sequence[bytes | Content]) -> Checksum | None:
    """None where none was asked for, or one of a kind that Python cannot compute."""
    algorithm = asked.get("x-amz-checksum-algorithm")
    if asked.get("x-amz-checksum-type") == "FULL_OBJECT":
        whole = digest(algorithm, contents)
        return None if whole is None else ("FULL_OBJECT", base64.b64encode(whole).decode(), 1)
    digests = [digest(algorithm, [content]) for content in contents]
    whole = digest(algorithm, [each for each in digests if each is not None])
    if whole is None:
        return None
    return "COMPOSITE", base64.b64encode(whole).decode(), len(contents)


def digest(algorithm: str | None, contents: Iterable[bytes | Content]) -> bytes | None:
    every = chain.from_iterable(map(chunks, contents))
    if algorithm == "CRC32":
        crc = 0
        for chunk in every:
            crc = zlib.crc32(chunk, crc)
        return crc.to_bytes(4, "big")
    if algorithm not in {"SHA1", "SHA256"}:
        return None
    hashed = hashlib.new(algorithm, usedforsecurity=False)
    for chunk in every:
        hashed.update(chunk)
    return hashed.digest()


def region_of(bucket: str) -> str | None:
    found = s3_backends[DEFAULT_ACCOUNT_ID][PARTITION].buckets.get(bucket)
    return None if found is None else found.region_name


def gave(access_key_id: str) -> bool:
    """Whether moto's own STS or IAM gave it to somebody."""
    return any(
        access_key_id in backend.access_keys
        for account in list(iam_backends.values())
        for backend in list(account.values())
    )


def add_bucket(bucket: str, region: str | None) -> None:
    """Unless it exists. ValueError: it cannot, or is in another region."""
    try:
        s3_backends[DEFAULT_ACCOUNT_ID][PARTITION].create_bucket(bucket, region or "us-east-1")
    except S3ClientError as error:
        found = region_of(bucket)
        if found is None:
            raise ValueError(str(error.message)) from error
        if region not in {None, found}:
            raise ValueError(f"the bucket exists, in region {found}") from error


def put(bucket: str, key: str, content: Any) -> None:
    s3_backends[DEFAULT_ACCOUNT_ID][PARTITION].put_object(bucket, key, content)


def get(bucket: str, key: str) -> Any:
    """bytes, or Content of what is long, or None."""
    if region_of(bucket) is None:
        return None
    found = s3_backends[DEFAULT_ACCOUNT_ID][PARTITION].get_object(bucket, key)
    return None if found is None else found.value


models: Any = import_module("moto.s3.models")
models.tempfile = SimpleNamespace(SpooledTemporaryFile=Buffer)
models.FakeMultipart.complete = complete
