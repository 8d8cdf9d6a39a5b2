"""What a request to S3 asks for: operation, bucket and key, from its method, address and headers.

It must not know ASGI, who asks, nor what becomes of it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import parse_qs, unquote

VIRTUAL_HOST = re.compile(r"(?P<bucket>[a-z0-9][a-z0-9.-]*)\.(?P<rest>localhost(:\d+)?)")
# A member of the query that names a part of a bucket or an object, where AWS's name does too.
PART = re.compile(
    "accelerate|acl|analytics|attributes|cors|encryption|intelligent-tiering|inventory|legal-hold|"
    "lifecycle|location|logging|metrics|notification|object-lock|ownershipControls|policy|"
    "policyStatus|publicAccessBlock|replication|requestPayment|restore|retention|select|tagging|"
    "torrent|uploads|versioning|versions|website"
)
# Those that faults may be asked for. A log can have more, such as GetBucketPolicy.
OPERATIONS = (
    "GetObject",
    "HeadObject",
    "PutObject",
    "CopyObject",
    "DeleteObject",
    "DeleteObjects",
    "CreateMultipartUpload",
    "UploadPart",
    "UploadPartCopy",
    "CompleteMultipartUpload",
    "AbortMultipartUpload",
    "ListParts",
    "ListMultipartUploads",
    "ListObjects",
    "ListObjectsV2",
    "ListBuckets",
    "CreateBucket",
    "HeadBucket",
    "DeleteBucket",
    "GetBucketLocation",
)
OF_BUCKET = {
    "GET": "ListObjects",
    "HEAD": "HeadBucket",
    "PUT": "CreateBucket",
    "POST": "PostObject",
    "DELETE": "DeleteBucket",
}
OF_PART = {
    ("GET", "uploads"): "ListMultipartUploads",
    ("GET", "versions"): "ListObjectVersions",
    ("POST", "restore"): "RestoreObject",
    ("POST", "select"): "SelectObjectContent",
    ("POST", "uploads"): "CreateMultipartUpload",
}


@dataclass(frozen=True)
class Asked:
    """`path` and `query` are as they were sent; the names of headers are in small letters."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]

    @cached_property
    def parameters(self) -> Mapping[str, list[str]]:
        return parse_qs(self.query, keep_blank_values=True)

    @property
    def virtual_host(self) -> re.Match[str] | None:
        """BUCKET.localhost, as SDKs name a bucket where the address is not a number."""
        return VIRTUAL_HOST.fullmatch(self.headers.get("host", ""))

    @property
    def by_path(self) -> str:
        """The path as it is where the host's name holds no bucket."""
        found = self.virtual_host
        return self.path if found is None else f"/{found['bucket']}{self.path}"

    @cached_property
    def bucket(self) -> str | None:
        return self._part(1)

    @cached_property
    def key(self) -> str | None:
        return self._part(2)

    def _part(self, number: int) -> str | None:
        parts = self.by_path.split("/", 2)
        return unquote(parts[number]) or None if number < len(parts) else None

    @cached_property
    def operation(self) -> str:
        if self.bucket is None:
            return "ListBuckets" if self.method == "GET" else f"{self.method.capitalize()}Service"
        if self.key is None:
            return of_bucket(self.method, self.parameters)
        return of_object(self.method, self.parameters, copies="x-amz-copy-source" in self.headers)


def of_bucket(method: str, parameters: Mapping[str, object]) -> str:
    if method == "POST" and "delete" in parameters:
        return "DeleteObjects"
    if method == "GET" and "list-type" in parameters:
        return "ListObjectsV2"
    return of_part(method, "Bucket", parameters) or OF_BUCKET.get(method, method)


def of_object(method: str, parameters: Mapping[str, object], *, copies: bool) -> str:
    if "uploadId" in parameters:
        return of_upload(method, copies=copies)
    if method == "PUT" and copies:
        return "CopyObject"
    return of_part(method, "Object", parameters) or f"{method.capitalize()}Object"


def of_upload(method: str, *, copies: bool) -> str:
    return {
        "GET": "ListParts",
        "PUT": "UploadPartCopy" if copies else "UploadPart",
        "POST": "CompleteMultipartUpload",
        "DELETE": "AbortMultipartUpload",
    }.get(method, method)


def of_part(method: str, whole: str, parameters: Mapping[str, object]) -> str | None:
    part = next((name for name in parameters if PART.fullmatch(name)), None)
    if part is None:
        return None
    words = "".join(word[0].upper() + word[1:] for word in part.split("-"))
    return OF_PART.get((method, part), f"{method.capitalize()}{whole}{words}")
