"""What a request to S3 asks for, read from requests as boto3 makes them."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore import xform_name
from botocore.awsrequest import AWSPreparedRequest
from botocore.config import Config
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.emulator.operations import OPERATIONS, Asked

BUCKET, KEY = "artifacts", "shop/Source/a b+c%ü~"
PARTS = {"UploadId": "u", "PartNumber": 1}
MEMBERS: dict[str, dict[str, Any]] = {
    "CopyObject": {"CopySource": "other/key"},
    "DeleteObjects": {"Delete": {"Objects": [{"Key": KEY}]}},
    "UploadPart": PARTS,
    "UploadPartCopy": PARTS | {"CopySource": "other/key"},
    "CompleteMultipartUpload": {"UploadId": "u"},
    "AbortMultipartUpload": {"UploadId": "u"},
    "ListParts": {"UploadId": "u"},
    "PutBucketPolicy": {"Policy": "{}"},
    "PutObjectTagging": {"Tagging": {"TagSet": []}},
    "GetObjectAttributes": {"ObjectAttributes": ["ETag"]},
}
# Faults know the others; these are in a log by AWS's names too.
MORE = [
    "GetBucketPolicy",
    "PutBucketPolicy",
    "DeleteBucketPolicy",
    "GetBucketVersioning",
    "GetBucketEncryption",
    "ListObjectVersions",
    "GetObjectAcl",
    "GetObjectAttributes",
    "GetObjectTagging",
    "PutObjectTagging",
    "DeleteObjectTagging",
    "GetObjectLegalHold",
    "RestoreObject",
]


class Caught(Exception):
    """A request that was about to be sent."""


def catch(request: AWSPreparedRequest, **_: object) -> None:
    raise Caught(request)


def to_asked(request: Any) -> Asked:
    address = urlsplit(request.url)
    headers = {
        name.lower(): value if isinstance(value, str) else value.decode("latin-1")
        for name, value in request.headers.items()
    }
    return Asked(
        request.method, address.path or "/", address.query, {"host": address.netloc} | headers
    )


@pytest.fixture(scope="module", params=["path", "virtual"])
def client(request: pytest.FixtureRequest) -> Iterator[Any]:
    """One whose requests go nowhere."""
    session = boto3.Session("AKIA", "secret", region_name="us-east-1")
    config = Config(s3={"addressing_style": request.param})
    made = session.client("s3", endpoint_url="http://localhost:8765", config=config)
    made.meta.events.register("before-send.s3", catch)
    yield made
    made.close()


@pytest.mark.parametrize("operation", [*OPERATIONS, *MORE])
def test_an_operation_is_read_from_what_boto3_sends(client: Any, operation: str) -> None:
    known = client.meta.service_model.operation_model(operation).input_shape.members
    members = {"Bucket": BUCKET, "Key": KEY} | MEMBERS.get(operation, {})

    with pytest.raises(Caught) as caught:
        getattr(client, xform_name(operation))(**{n: members[n] for n in members if n in known})
    asked = to_asked(caught.value.args[0])

    assert asked.operation == operation
    assert asked.bucket == (BUCKET if "Bucket" in known else None)
    assert asked.key == (KEY if "Key" in known else None)


@given(
    method=st.sampled_from(["GET", "PUT", "POST", "HEAD", "DELETE", "OPTIONS", "PATCH"]),
    path=st.text(st.characters(codec="latin-1")),
    query=st.text(st.characters(codec="latin-1")),
    host=st.text(st.characters(codec="latin-1")),
)
def test_whatever_is_sent_asks_for_something(method: str, path: str, query: str, host: str) -> None:
    asked = Asked(method, path, query, {"host": host})

    assert asked.operation
    assert asked.bucket != ""
    assert asked.key != ""
