"""S3 as CodePipeline's artifact store: a job's session keys, encryption, regions, the log."""

import base64
import hashlib
import io
import json
import os
import socket
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import boto3
import httpx
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from dispatcher.emulator.client import Emulator, EmulatorError

TYPE = {"category": "Test", "owner": "Custom", "provider": "Mine", "version": "1"}
ARN = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555"
KMS = {"ServerSideEncryption": "aws:kms"}
ONCE: Any = {"total_max_attempts": 1}
MIB = 2**20


@cache
def aws() -> Any:
    """Making a session takes longer than most tests; it holds no keys of its own."""
    return boto3.Session()


def s3_of(
    keys: dict[str, str], region: str = "us-east-1", signature: str = "s3v4", **config: Any
) -> Any:
    return aws().client(
        "s3",
        region_name=region,
        endpoint_url=config.pop("endpoint", None),
        aws_access_key_id=keys["accessKeyId"],
        aws_secret_access_key=keys["secretAccessKey"],
        aws_session_token=keys["sessionToken"],
        config=Config(signature_version=signature, retries=ONCE, **config),
    )


@dataclass
class Offer:
    """A job as its worker sees it."""

    id: str
    data: dict[str, Any]

    @property
    def keys(self) -> dict[str, str]:
        return dict(self.data["artifactCredentials"])

    @property
    def s3(self) -> Any:
        return s3_of(self.keys)

    @property
    def source(self) -> dict[str, str]:
        return self.place("inputArtifacts")

    @property
    def app(self) -> dict[str, str]:
        return self.place("outputArtifacts")

    def place(self, which: str) -> dict[str, str]:
        place = self.data[which][0]["location"]["s3Location"]
        return {"Bucket": place["bucketName"], "Key": place["objectKey"]}


def offered(emulator: Emulator, source: bytes = b"source", **more: Any) -> Offer:
    job = emulator.submit("Mine", inputs={"Source": source}, outputs=["App"], **more)
    (shown,) = aws().client("codepipeline").poll_for_jobs(actionTypeId=TYPE)["jobs"]
    assert shown["id"] == job
    return Offer(job, shown["data"])


def told(call: Callable[[], object]) -> tuple[int, str]:
    with pytest.raises(ClientError) as caught:
        call()
    response = caught.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], str(response["Error"]["Code"])


@pytest.fixture
def offer(codepipeline_emulator: Emulator) -> Offer:
    return offered(codepipeline_emulator)


def test_a_job_reads_its_inputs_and_writes_its_outputs(
    codepipeline_emulator: Emulator, offer: Offer
) -> None:
    s3 = offer.s3

    source = s3.get_object(**offer.source)["Body"].read()
    before = codepipeline_emulator.artifact(offer.id, "App")
    s3.put_object(**offer.app, Body=source.upper(), **KMS)

    assert before is None
    assert codepipeline_emulator.artifact(offer.id, "App") == b"SOURCE"
    assert codepipeline_emulator.artifact(offer.id, "Source") == b"source"
    assert s3.get_object(**offer.app)["ServerSideEncryption"] == "aws:kms"
    assert s3.head_object(**offer.source)["ContentLength"] == 6
    pipeline, artifact, last = offer.source["Key"].split("/")
    assert (pipeline, artifact, len(last)) == ("emulated", "Source", 7)


def test_details_of_both_owners_show_keys_too(codepipeline_emulator: Emulator) -> None:
    codepipeline = aws().client("codepipeline")
    custom = offered(codepipeline_emulator)
    third = codepipeline_emulator.submit("Mine", owner="ThirdParty", outputs=["App"])

    details = codepipeline.get_job_details(jobId=custom.id)["jobDetails"]
    others = codepipeline.get_third_party_job_details(jobId=third, clientToken="token")[
        "jobDetails"
    ]

    for job_id, data in ((custom.id, details["data"]), (third, others["data"])):
        offer = Offer(job_id, data)
        offer.s3.put_object(**offer.app, Body=b"done", **KMS)
        assert codepipeline_emulator.artifact(job_id, "App") == b"done"
    assert told(lambda: Offer(third, others["data"]).s3.get_object(**custom.app)) == (
        403,
        "AccessDenied",
    )


@pytest.mark.parametrize(
    ("part", "value", "code"),
    [
        ("accessKeyId", "ASIA0123456789ABCDEF", (403, "InvalidAccessKeyId")),
        ("secretAccessKey", "another", (403, "SignatureDoesNotMatch")),
        ("sessionToken", "another", (400, "InvalidToken")),
        ("sessionToken", None, (403, "InvalidAccessKeyId")),
    ],
)
def test_wrong_keys_are_refused(
    codepipeline_emulator: Emulator, offer: Offer, part: str, value: Any, code: tuple[int, str]
) -> None:
    s3 = s3_of(offer.keys | {part: value})

    assert told(lambda: s3.get_object(**offer.source)) == code
    assert told(lambda: s3.put_object(**offer.app, Body=b"x", **KMS)) == code
    assert told(lambda: s3.head_object(**offer.source)) == (code[0], str(code[0]))
    whose = None if part == "accessKeyId" else offer.id
    assert [(call.job_id, call.error) for call in codepipeline_emulator.s3_calls()][:2] == [
        (whose, code[1]),
        (whose, code[1]),
    ]


def test_another_job_s_keys_are_of_no_use(codepipeline_emulator: Emulator, offer: Offer) -> None:
    other = offered(codepipeline_emulator)

    assert told(lambda: other.s3.get_object(**offer.source)) == (403, "AccessDenied")
    assert told(lambda: other.s3.put_object(**offer.app, Body=b"x", **KMS)) == (403, "AccessDenied")
    assert codepipeline_emulator.s3_calls(job_id=offer.id) == []
    assert len(codepipeline_emulator.s3_calls(job_id=other.id)) == 2


@pytest.mark.parametrize(
    "call",
    [
        lambda s3, offer: s3.list_buckets(),
        lambda s3, offer: s3.create_bucket(Bucket="another"),
        lambda s3, offer: s3.list_objects_v2(Bucket=offer.app["Bucket"]),
        lambda s3, offer: s3.put_object(**offer.source, Body=b"x", **KMS),
        lambda s3, offer: s3.delete_object(**offer.app),
        lambda s3, offer: s3.get_object(Bucket=offer.app["Bucket"], Key="another"),
        lambda s3, offer: s3.copy_object(**offer.app, CopySource=offer.source, **KMS),
        lambda s3, offer: s3.get_object_acl(**offer.source),
    ],
)
def test_session_keys_may_do_nothing_else(offer: Offer, call: Callable[..., object]) -> None:
    assert told(lambda: call(offer.s3, offer)) == (403, "AccessDenied")


def test_keys_end_and_details_give_new_ones(codepipeline_emulator: Emulator) -> None:
    codepipeline_emulator.reset(credentials_lifetime=0.3)
    offer = offered(codepipeline_emulator)
    s3 = offer.s3
    s3.get_object(**offer.source)

    def until_it_ends() -> None:
        while True:
            s3.get_object(**offer.source)

    assert told(until_it_ends) == (400, "ExpiredToken")
    assert told(lambda: s3.head_object(**offer.source)) == (400, "400")
    codepipeline = aws().client("codepipeline")
    data = codepipeline.get_job_details(jobId=offer.id)["jobDetails"]["data"]
    assert Offer(offer.id, data).s3.get_object(**offer.source)["Body"].read() == b"source"


def test_keys_of_before_a_reset_are_nobody_s(codepipeline_emulator: Emulator, offer: Offer) -> None:
    codepipeline_emulator.reset()

    assert told(lambda: offer.s3.get_object(**offer.source)) == (403, "InvalidAccessKeyId")


def test_keys_that_are_no_job_s_may_do_all(codepipeline_emulator: Emulator, offer: Offer) -> None:
    own = aws().client("s3")
    role = (
        aws()
        .client("sts")
        .assume_role(RoleArn="arn:aws:iam::123456789012:role/r", RoleSessionName="some")[
            "Credentials"
        ]
    )
    roles_own = s3_of(
        {
            "accessKeyId": role["AccessKeyId"],
            "secretAccessKey": role["SecretAccessKey"],
            "sessionToken": role["SessionToken"],
        }
    )

    own.put_object(**offer.app, Body=b"mine")

    assert role["AccessKeyId"].startswith("ASIA")
    assert roles_own.get_object(**offer.app)["Body"].read() == b"mine"
    assert {call.job_id for call in codepipeline_emulator.s3_calls()} == {None}


@pytest.mark.parametrize(
    ("encryption", "asked", "done"),
    [
        (None, KMS, True),
        (None, {}, False),
        (None, {"ServerSideEncryption": "AES256"}, False),
        (None, KMS | {"SSEKMSKeyId": ARN}, False),
        (ARN, KMS | {"SSEKMSKeyId": ARN}, True),
        (ARN, KMS, False),
        (ARN, KMS | {"SSEKMSKeyId": ARN[:-1]}, False),
        (ARN.rpartition("/")[2], KMS | {"SSEKMSKeyId": ARN.rpartition("/")[2]}, True),
        ("alias/artifacts", KMS | {"SSEKMSKeyId": "alias/artifacts"}, True),
    ],
)
def test_an_upload_must_ask_for_the_job_s_encryption(
    codepipeline_emulator: Emulator, encryption: str | None, asked: dict[str, str], done: bool
) -> None:
    more: Any = {} if encryption is None else {"encryptionKey": {"id": encryption, "type": "KMS"}}
    offer = offered(codepipeline_emulator, **more)
    single, multiple = b"x", os.urandom(9 * MIB)

    calls: list[Callable[[], object]] = [
        lambda: offer.s3.put_object(**offer.app, Body=single, **asked),
        lambda: offer.s3.create_multipart_upload(**offer.app, **asked),
    ]
    for call in calls:
        if done:
            call()
        else:
            assert told(call) == (403, "AccessDenied")
    if done:
        assert offer.s3.get_object(**offer.app)["Body"].read() == single
        offer.s3.upload_fileobj(io.BytesIO(multiple), *offer.app.values(), ExtraArgs=asked)
        assert offer.s3.get_object(**offer.app)["Body"].read() == multiple
        assert offer.s3.head_object(**offer.app).get("SSEKMSKeyId") == encryption


@pytest.mark.parametrize(
    ("endpoint", "style"), [(None, "auto"), ("localhost", "path"), ("localhost", "virtual")]
)
def test_a_client_of_another_region_finds_the_bucket(
    codepipeline_emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    endpoint: str | None,
    style: str,
) -> None:
    find = socket.getaddrinfo

    def nearby(_: object, *more: Any, **by: Any) -> Any:
        """Nothing says that BUCKET.localhost is this machine."""
        return find("127.0.0.1", *more, **by)

    monkeypatch.setattr(socket, "getaddrinfo", nearby)
    where = None if endpoint is None else codepipeline_emulator.url.replace("127.0.0.1", endpoint)
    offer = offered(codepipeline_emulator)
    whole = os.urandom(9 * MIB)

    def elsewhere() -> Any:
        return s3_of(offer.keys, "eu-west-1", s3={"addressing_style": style}, endpoint=where)

    assert elsewhere().get_object(**offer.source)["Body"].read() == b"source"
    assert elsewhere().head_object(**offer.source)["ContentLength"] == 6
    elsewhere().put_object(**offer.app, Body=b"small", **KMS)
    assert elsewhere().get_object(**offer.app)["Body"].read() == b"small"
    elsewhere().upload_fileobj(io.BytesIO(whole), *offer.app.values(), ExtraArgs=KMS)
    found = io.BytesIO()
    elsewhere().download_fileobj(*offer.app.values(), found)
    assert found.getvalue() == whole
    wrong = [call for call in codepipeline_emulator.s3_calls() if call.error]
    assert {call.error for call in wrong} == {"AuthorizationHeaderMalformed"}
    assert len(wrong) == 6


def test_the_region_is_told_in_the_answer_and_in_its_head(
    codepipeline_emulator: Emulator,
) -> None:
    codepipeline_emulator.put_object("in-frankfurt", "key", b"x", region="eu-central-1")
    url = f"{codepipeline_emulator.url}/in-frankfurt/key"

    get, head = (httpx.request(how, url, headers=signed(how, url)) for how in ("GET", "HEAD"))

    assert (get.status_code, head.status_code) == (400, 400)
    assert "<Code>AuthorizationHeaderMalformed</Code>" in get.text
    assert "<Region>eu-central-1</Region>" in get.text
    assert get.headers["content-type"] == "application/xml"
    assert head.content == b""
    assert head.headers["x-amz-bucket-region"] == get.headers["x-amz-bucket-region"]
    assert get.headers["x-amz-bucket-region"] == "eu-central-1"
    there = aws().client("s3", region_name="eu-central-1")
    assert there.get_bucket_location(Bucket="in-frankfurt")["LocationConstraint"] == "eu-central-1"


def test_a_bucket_tells_its_region_to_whom_it_refuses(offer: Offer) -> None:
    with pytest.raises(ClientError) as caught:
        offer.s3.head_bucket(Bucket=offer.app["Bucket"])

    answer = caught.value.response["ResponseMetadata"]
    assert answer["HTTPStatusCode"] == 403
    assert answer["HTTPHeaders"]["x-amz-bucket-region"] == "us-east-1"


def signed(
    method: str, url: str, keys: dict[str, str] | None = None, headers: dict[str, str] | None = None
) -> dict[str, str]:
    """Headers that sign a request, its body left out."""

    hashed = (headers or {}).get("x-amz-content-sha256", "UNSIGNED-PAYLOAD")

    class Signer(S3SigV4Auth):
        def payload(self, request: AWSRequest) -> str:
            return hashed

    given: Any = keys or {"accessKeyId": "AKIA", "secretAccessKey": "s", "sessionToken": None}
    request = AWSRequest(method, url, dict(headers or {}))
    Signer(Credentials(*given.values()), "s3", "us-east-1").add_auth(request)
    return {name: value for name, value in request.prepare().headers.items() if value != "0"}


@pytest.mark.parametrize("suffix", ["", ";chunk-signature=" + "0" * 64])
@pytest.mark.parametrize("size", [10, 3 * MIB])
def test_a_body_in_chunks_is_taken(
    codepipeline_emulator: Emulator, offer: Offer, suffix: str, size: int
) -> None:
    """As SDKs send it over TLS, or where they cannot read it twice."""
    how = "AWS4-HMAC-SHA256-PAYLOAD" if suffix else "UNSIGNED-PAYLOAD"
    whole = os.urandom(size)
    halves = [whole[: size // 2], whole[size // 2 :]]
    body = b"".join(b"%x%s\r\n%s\r\n" % (len(h), suffix.encode(), h) for h in halves)
    body += f"0{suffix}\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n".encode()
    url = f"{codepipeline_emulator.url}/{'/'.join(offer.app.values())}"
    headers = {
        "x-amz-content-sha256": f"STREAMING-{how}-TRAILER",
        "x-amz-decoded-content-length": str(size),
        "x-amz-sdk-checksum-algorithm": "CRC32",
        "x-amz-trailer": "x-amz-checksum-crc32",
        "x-amz-server-side-encryption": "aws:kms",
        "content-encoding": "aws-chunked",
    }

    done = httpx.put(url, content=body, headers=signed("PUT", url, offer.keys, headers))
    headers["x-amz-decoded-content-length"] = str(size + 1)
    cut = httpx.put(url, content=body, headers=signed("PUT", url, offer.keys, headers))

    assert done.status_code == 200, done.text
    assert done.headers["etag"] == f'"{hashlib.md5(whole, usedforsecurity=False).hexdigest()}"'
    assert done.headers["x-amz-checksum-crc32"] == "AAAAAA=="
    assert codepipeline_emulator.artifact(offer.id, "App") == whole
    assert (cut.status_code, "IncompleteBody" in cut.text) == (400, True)


def test_presigned_addresses_have_the_rights_of_the_keys(
    codepipeline_emulator: Emulator, offer: Offer
) -> None:
    def presigned(s3: Any, place: dict[str, str]) -> httpx.Response:
        return httpx.get(s3.generate_presigned_url("get_object", place, ExpiresIn=60))

    older = aws().client("s3", config=Config(signature_version="s3"))

    assert presigned(offer.s3, offer.source).content == b"source"
    assert presigned(offer.s3, {"Bucket": "b", "Key": "k"}).status_code == 403
    wrong = presigned(s3_of(offer.keys | {"secretAccessKey": "x"}), offer.source)
    assert "SignatureDoesNotMatch" in wrong.text
    assert presigned(older, offer.source).content == b"source"
    under_keys = s3_of(offer.keys, signature="s3")
    assert "require AWS Signature Version 4" in presigned(under_keys, offer.source).text


def test_the_log_says_what_was_done_under_whose_keys(
    codepipeline_emulator: Emulator, offer: Offer
) -> None:
    s3 = offer.s3
    s3.get_object(**offer.source)["Body"].read()
    told(lambda: s3.get_object(**offer.app))
    s3.upload_fileobj(io.BytesIO(b"x" * 9 * MIB), *offer.app.values(), ExtraArgs=KMS)
    upload = s3.create_multipart_upload(**offer.app, **KMS)["UploadId"]
    s3.list_parts(**offer.app, UploadId=upload)
    s3.abort_multipart_upload(**offer.app, UploadId=upload)
    aws().client("s3").list_buckets()

    calls = codepipeline_emulator.s3_calls()

    steps = [(call.operation, call.status, call.error) for call in calls]
    assert [step for step in steps if step[0] != "UploadPart"] == [
        ("GetObject", 200, None),
        ("GetObject", 404, "NoSuchKey"),
        ("CreateMultipartUpload", 200, None),
        ("CompleteMultipartUpload", 200, None),
        ("CreateMultipartUpload", 200, None),
        ("ListParts", 200, None),
        ("AbortMultipartUpload", 204, None),
        ("ListBuckets", 200, None),
    ]
    first, *_, last = calls
    assert (first.bucket, first.key) == tuple(offer.source.values())
    assert (first.job_id, first.bytes, first.fault) == (offer.id, 6, None)
    assert (last.job_id, last.bucket, last.key) == (None, None, None)
    parts = codepipeline_emulator.s3_calls("UploadPart", offer.id)
    assert sorted(call.bytes for call in parts) == [MIB, 8 * MIB]
    assert [call.at for call in calls] == sorted(call.at for call in calls)
    kept = json.dumps(codepipeline_emulator.ask("/_admin/s3"))
    assert not [secret for secret in offer.keys.values() if secret in kept]
    with pytest.raises(EmulatorError, match="no job unknown"):
        codepipeline_emulator.s3_calls(job_id="unknown")
    codepipeline_emulator.reset()
    assert codepipeline_emulator.s3_calls() == []


def test_who_has_an_answer_finds_it_in_the_log(
    codepipeline_emulator: Emulator, offer: Offer
) -> None:
    """Whatever its last byte was: of a body, or of the head."""
    s3 = offer.s3

    for number in range(1, 40):
        s3.get_object(**offer.source)["Body"].read()
        assert len(codepipeline_emulator.s3_calls("GetObject")) == number
        s3.put_object(**offer.app, Body=b"x", **KMS)
        assert len(codepipeline_emulator.s3_calls("PutObject")) == number
        s3.head_object(**offer.app)
        assert len(codepipeline_emulator.s3_calls("HeadObject")) == number


@pytest.mark.parametrize(
    ("algorithm", "digest", "kind"),
    [
        ("CRC32", lambda data: zlib.crc32(data).to_bytes(4, "big"), "COMPOSITE"),
        ("SHA256", lambda data: hashlib.sha256(data).digest(), "COMPOSITE"),
        ("CRC32", lambda data: zlib.crc32(data).to_bytes(4, "big"), "FULL_OBJECT"),
    ],
)
def test_an_upload_in_parts_has_the_etag_and_the_checksum_that_s3_would_give(
    offer: Offer, algorithm: str, digest: Callable[[bytes], bytes], kind: str
) -> None:
    s3, parts = offer.s3, [os.urandom(5 * MIB), os.urandom(9)]
    how = {"ChecksumAlgorithm": algorithm, "ChecksumType": kind}
    upload = s3.create_multipart_upload(**offer.app, **KMS, **how)["UploadId"]
    done = [
        s3.upload_part(**offer.app, UploadId=upload, PartNumber=number, Body=part)["ETag"]
        for number, part in enumerate(parts, 1)
    ]
    named = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(done, 1)]
    s3.complete_multipart_upload(**offer.app, UploadId=upload, MultipartUpload={"Parts": named})

    found = s3.get_object(**offer.app, ChecksumMode="ENABLED")

    assert found["Body"].read() == b"".join(parts)
    md5s = b"".join(hashlib.md5(part, usedforsecurity=False).digest() for part in parts)
    assert found["ETag"] == f'"{hashlib.md5(md5s, usedforsecurity=False).hexdigest()}-2"'
    whole = kind == "FULL_OBJECT"
    checked = digest(b"".join(parts) if whole else b"".join(map(digest, parts)))
    suffix = "" if whole else "-2"
    assert found[f"Checksum{algorithm}"] == base64.b64encode(checked).decode() + suffix


def test_an_upload_in_parts_that_do_not_fit_is_refused(
    codepipeline_emulator: Emulator, offer: Offer
) -> None:
    s3 = offer.s3
    upload = s3.create_multipart_upload(**offer.app, **KMS)["UploadId"]
    small = [
        s3.upload_part(**offer.app, UploadId=upload, PartNumber=number, Body=b"small")["ETag"]
        for number in (1, 2)
    ]

    def completed(*parts: tuple[int, str]) -> tuple[int, str]:
        named = {"Parts": [{"PartNumber": number, "ETag": etag} for number, etag in parts]}
        return told(
            lambda: s3.complete_multipart_upload(
                **offer.app, UploadId=upload, MultipartUpload=named
            )
        )

    assert completed((1, small[0]), (2, small[1])) == (400, "EntityTooSmall")
    assert completed((1, '"another"')) == (400, "InvalidPart")
    assert completed((3, small[0])) == (400, "InvalidPart")
    assert completed() == (400, "MalformedXML")
    assert codepipeline_emulator.artifact(offer.id, "App") is None


def test_large_objects_are_copied_and_replaced_as_others_are(offer: Offer) -> None:
    own, whole = aws().client("s3"), os.urandom(3 * MIB)
    own.put_object(Bucket=offer.app["Bucket"], Key="large", Body=whole)
    own.copy_object(**offer.app, CopySource={"Bucket": offer.app["Bucket"], "Key": "large"})

    own.put_object(Bucket=offer.app["Bucket"], Key="large", Body=b"small")
    own.delete_object(Bucket=offer.app["Bucket"], Key="large")

    found = own.get_object(**offer.app, Range="bytes=-5")
    assert found["Body"].read() == whole[-5:]
    assert found["ContentRange"] == f"bytes {3 * MIB - 5}-{3 * MIB - 1}/{3 * MIB}"
    assert own.get_object(**offer.app)["Body"].read() == whole


def test_an_upload_that_is_cut_leaves_nothing(
    codepipeline_emulator: Emulator, offer: Offer
) -> None:
    url = f"{codepipeline_emulator.url}/{'/'.join(offer.app.values())}"
    headers = signed(
        "PUT", url, offer.keys, {"x-amz-server-side-encryption": "aws:kms", "content-length": "999"}
    )
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    address = urlsplit(url)

    with socket.create_connection((str(address.hostname), int(address.port or 0))) as connection:
        request = f"PUT {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\n{head}\r\nhalf of it"
        connection.sendall(request.encode())
    while not (calls := codepipeline_emulator.s3_calls("PutObject")):
        pass

    assert [(call.status, call.error, call.job_id) for call in calls] == [(None, None, offer.id)]
    assert codepipeline_emulator.artifact(offer.id, "App") is None


@pytest.mark.parametrize("expect", [{}, {"Expect": "100-continue"}])
def test_a_large_upload_is_refused_and_the_next_call_is_answered(
    codepipeline_emulator: Emulator, offer: Offer, expect: dict[str, str]
) -> None:
    url = f"{codepipeline_emulator.url}/{'/'.join(offer.app.values())}"
    headers = signed("PUT", url, offer.keys) | expect

    with httpx.Client() as http:
        refused = http.put(url, content=b"x" * 20 * MIB, headers=headers)
        answers = [http.get(f"{codepipeline_emulator.url}/_admin/jobs") for _ in range(2)]

    assert "AccessDenied" in refused.text
    assert [answer.status_code for answer in answers] == [200, 200]


def test_objects_of_any_name_and_size_are_put_and_got(codepipeline_emulator: Emulator) -> None:
    key, large = "a b/ü+%2F?#&=~", os.urandom(30 * MIB)

    codepipeline_emulator.put_object("some-bucket", key, b"")
    empty = codepipeline_emulator.get_object("some-bucket", key)
    codepipeline_emulator.put_object("some-bucket", key, large)

    assert empty == b""
    assert codepipeline_emulator.get_object("some-bucket", key) == large
    assert codepipeline_emulator.get_object("some-bucket", "another") is None
    assert codepipeline_emulator.get_object("another-bucket", key) is None
    own = aws().client("s3")
    assert own.get_object(Bucket="some-bucket", Key=key)["Body"].read() == large
    assert [it["Key"] for it in own.list_objects_v2(Bucket="some-bucket")["Contents"]] == [key]
    own.put_object(Bucket="some-bucket", Key=key, Body=b"own")
    assert codepipeline_emulator.get_object("some-bucket", key) == b"own"
    assert codepipeline_emulator.s3_calls("PutObject")[0].key == key


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda emulator: emulator.put_object("x", "key", b""), "bucket"),
        (lambda emulator: emulator.put_object("some-bucket", "", b""), "ends with its key"),
        (lambda emulator: emulator.put_object("some-bucket", "k", b"", "eu-west-1"), "us-east-1"),
        (lambda emulator: emulator.ask("/_admin/objects/b/k?x=1", method="PUT"), "x is not known"),
        (lambda emulator: emulator.artifact("unknown", "App"), "no job unknown"),
        (lambda emulator: emulator.artifact(emulator.submit("Mine"), "App"), "no artifact App"),
        (lambda emulator: emulator.submit("Mine", outputs=["A B"]), "outputArtifacts"),
        (lambda emulator: emulator.reset(credentials_lifetime=-1), "credentialsLifetime"),
    ],
)
def test_what_is_wrong_is_said(
    codepipeline_emulator: Emulator, ask: Callable[[Emulator], object], words: str
) -> None:
    codepipeline_emulator.put_object("some-bucket", "key", b"")

    with pytest.raises(EmulatorError, match=words):
        ask(codepipeline_emulator)


def test_a_curl_puts_an_object(codepipeline_emulator: Emulator) -> None:
    """Whatever content type it thinks of."""
    base, form = codepipeline_emulator.url, {"Content-Type": "application/x-www-form-urlencoded"}
    aws().client("s3").create_bucket(Bucket="bucket")

    admin = httpx.put(f"{base}/_admin/objects/bucket/a", content=b"k=v&x", headers=form)
    plain = httpx.put(f"{base}/bucket/b", content=b"key=v&x", headers=form)

    assert (admin.json(), plain.status_code) == ({}, 200)
    assert codepipeline_emulator.get_object("bucket", "a") == b"k=v&x"
    assert codepipeline_emulator.get_object("bucket", "b") == b"key=v&x"
    assert httpx.get(f"{base}/_admin/objects/bucket/none").status_code == 404


def test_jobs_show_where_their_artifacts_are(codepipeline_emulator: Emulator) -> None:
    with_artifacts = codepipeline_emulator.submit("Mine", inputs={"In": b""}, outputs=["Out"])
    without = codepipeline_emulator.submit("Mine")

    shown = {job["id"]: job for job in codepipeline_emulator.ask("/_admin/jobs")}

    (artifact,) = shown[with_artifacts]["inputArtifacts"]
    assert artifact["name"] == "In"
    assert artifact["location"]["s3Location"]["bucketName"] == "codepipeline-emulator"
    assert [it["name"] for it in shown[with_artifacts]["outputArtifacts"]] == ["Out"]
    assert shown[without]["inputArtifacts"] == shown[without]["outputArtifacts"] == []


def test_outputs_alone_have_a_bucket_too(codepipeline_emulator: Emulator) -> None:
    job = codepipeline_emulator.submit("Mine", outputs=["App"])

    (place,) = (it["location"]["s3Location"] for it in artifacts_of(codepipeline_emulator, job))
    aws().client("s3").put_object(Bucket=place["bucketName"], Key=place["objectKey"], Body=b"x")

    assert codepipeline_emulator.artifact(job, "App") == b"x"


def artifacts_of(emulator: Emulator, job_id: str) -> list[dict[str, Any]]:
    (job,) = emulator.ask(f"/_admin/jobs?id={job_id}")
    return list(job["outputArtifacts"])


def test_two_who_submit_at_once_share_the_bucket(codepipeline_emulator: Emulator) -> None:
    with ThreadPoolExecutor(4) as pool:
        jobs = list(
            pool.map(
                lambda number: codepipeline_emulator.submit("Mine", inputs={"In": b"%d" % number}),
                range(12),
            )
        )

    assert [codepipeline_emulator.artifact(job, "In") for job in jobs] == [
        b"%d" % number for number in range(12)
    ]


def test_a_presigned_call_to_another_service_is_not_s3_s(codepipeline_emulator: Emulator) -> None:
    sts = aws().client("sts")

    answer = httpx.get(sts.generate_presigned_url("get_caller_identity"))

    assert codepipeline_emulator.s3_calls() == []
    assert answer.status_code < 500
