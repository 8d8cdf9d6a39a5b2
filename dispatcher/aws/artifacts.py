"""Artifacts in S3, moved under a job's own session keys, and never under this worker's.

A client is one job's: it has that job's keys and no others, and is gone with it. Owns how files are
moved and what S3's errors mean; must not know jobs, handlers or archives.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError, ClientError
from s3transfer.exceptions import (
    CancelledError,
    RetriesExceededError,
    S3DownloadFailedError,
    S3ValidationError,
)
from s3transfer.futures import NonThreadedExecutor, TransferFuture
from s3transfer.manager import TransferConfig, TransferManager
from s3transfer.subscribers import BaseSubscriber

from dispatcher.aws.errors import UNREADABLE
from dispatcher.aws.s3_requests import ATTEMPTS, Keyring, Requests
from dispatcher.aws.storage_errors import fault_of
from dispatcher.engine.model import Belongings, Place, PortError, SessionKeys
from dispatcher.engine.ports import Transfers
from dispatcher.sdk import Failure, JobFailed, MissingArtifact, SystemUnavailable

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

MIB: Final = 2**20
EMPTY: Final = frozenset({"InvalidRange", "416"})  # what an object without a byte answers a range
CHUNK: Final = 16 * MIB
THREADS: Final = 4
READ_TIMEOUT: Final = 10.0  # seconds without a byte
FAULTS: Final = (
    ClientError,
    BotoCoreError,
    S3DownloadFailedError,
    S3ValidationError,
    PortError,
    OSError,
    *UNREADABLE,
)


def _transfers(threshold: int) -> TransferConfig:
    return TransferConfig(
        multipart_threshold=threshold,
        multipart_chunksize=CHUNK,
        max_request_concurrency=THREADS,
        max_submission_concurrency=1,
        max_io_queue_size=256,  # parts of a download that wait to be written
        io_chunksize=64 * 1024,
        num_download_attempts=3,
    )


UPLOADS: Final = _transfers(CHUNK)
# In ranges however small: only those are asked for on condition that the object is still the same.
DOWNLOADS: Final = _transfers(1)


class S3Artifacts:
    """Opens one job's artifacts at a time to each of many threads. Does not survive a fork.

    `most`: bytes of the largest input artifact that is taken.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._session: boto3.Session | None = None

    @contextmanager
    def open(
        self,
        region: str,
        belongings: Belongings,
        renew: Callable[[], SessionKeys | None],
        transfers: Transfers,
    ) -> Iterator["S3Storage"]:
        """Nothing is connected before an artifact is asked for."""
        storage = S3Storage(
            lambda keys: self._client(region, keys), belongings, renew, transfers, self._most
        )
        try:
            yield storage
        finally:
            storage.close()

    def _client(self, region: str, keys: Credentials) -> "S3Client":
        with self._lock:  # clients may be used by many threads, but not made by many
            self._session = self._session or boto3.Session()
            client = self._make(region, keys, "auto")
            if ".amazonaws." not in f"{urlsplit(client.meta.endpoint_url).hostname}.":
                # Somebody's own S3, where no bucket has a host name.
                client.close()
                client = self._make(region, keys, "path")
            return client

    def _make(self, region: str, keys: Credentials, style: Literal["auto", "path"]) -> "S3Client":
        if self._session is None:
            raise RuntimeError("no session")
        return self._session.client(
            "s3",
            region_name=region,
            # The job's own, so that no default of this worker's can ever stand in.
            aws_access_key_id=keys.access_key,
            aws_secret_access_key=keys.secret_key,
            aws_session_token=keys.token,
            config=Config(
                signature_version="s3v4",  # SSE-KMS refuses any other
                connect_timeout=3,
                read_timeout=READ_TIMEOUT,
                max_pool_connections=THREADS + 1,
                retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
                tcp_keepalive=True,
                # A profile of the worker's may say otherwise, of its own buckets.
                s3={"addressing_style": style, "use_accelerate_endpoint": False},
            ),
        )


class S3Storage:
    """One job's artifacts. Raises the SDK's failures alone, and nothing moves once it is closed."""

    def __init__(
        self,
        make: Callable[[Credentials], "S3Client"],
        belongings: Belongings,
        renew: Callable[[], SessionKeys | None],
        transfers: Transfers,
        most: int,
    ) -> None:
        self._make = make
        self._belongings = belongings
        self._keyring = Keyring(belongings.keys, renew) if belongings.keys else None
        self._transfers = transfers
        self._most = most
        self._lock = threading.Lock()
        self._client: S3Client | None = None
        self._closed = False

    def fetch(self, name: str, path: Path, most: int | None = None) -> None:
        place = _find(self._belongings.inputs, name)
        limit = min(self._most, most or self._most)
        self._telling("download", name, lambda: self._fetch(place, path, limit))

    def store(self, name: str, path: Path, content_type: str) -> None:
        place = _find(self._belongings.outputs, name)
        self._telling("upload", name, lambda: self._store(place, path, content_type))

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._client is not None:
                self._client.close()

    def _fetch(self, place: Place, path: Path, most: int) -> int:
        size, etag = _measure(self._ready(), place)
        if size > most:
            raise JobFailed(
                f"Input artifact {place.name} has {size} bytes; at most {most} are taken here."
            )
        if size:
            watch = _Watched(self._transfers, "download", place.name, size, etag)
            with self._manager(DOWNLOADS, size) as manager:
                manager.download(place.bucket, place.key, str(path), subscribers=[watch]).result()
        if path.stat().st_size != size:
            raise S3DownloadFailedError("the object is not what was measured")
        return size

    def _store(self, place: Place, path: Path, content_type: str) -> int:
        """A failed upload is aborted, so that no part of it stays: s3transfer does that."""
        size = path.stat().st_size
        extra = {"ServerSideEncryption": "aws:kms", "ContentType": content_type}
        if self._belongings.encryption_key:  # without one: the AWS managed key
            extra["SSEKMSKeyId"] = self._belongings.encryption_key
        watch = _Watched(self._transfers, "upload", place.name, size)
        with self._manager(UPLOADS, size) as manager:
            manager.upload(str(path), place.bucket, place.key, extra, [watch]).result()
        return size

    def _manager(self, config: TransferConfig, size: int) -> TransferManager:
        threads = None if size >= CHUNK else NonThreadedExecutor
        return TransferManager(self._ready(), config, executor_cls=threads)

    def _telling(self, direction: str, name: str, step: Callable[[], int]) -> None:
        """Whatever goes wrong becomes one of the SDK's failures, which quotes nothing."""
        what = f"{'input' if direction == 'download' else 'output'} artifact {name}"
        size: int | None = None
        fault: Failure | None = None
        try:
            size = step()
        except CancelledError:
            fault = JobFailed(f"The job's time was over before its {what} was there.")
        except RetriesExceededError as error:
            fault = fault_of(error.last_exception, what)
        except FAULTS as error:
            fault = fault_of(error, what)
        finally:
            self._transfers.ended(direction, name, size)
        # Raised out here so that the SDK's error, which may hold parameters, is not its context.
        if fault is not None:
            raise fault

    def _ready(self) -> "S3Client":
        with self._lock:
            if not self._going_on():
                raise CancelledError
            if self._keyring is None:
                raise SystemUnavailable("CodePipeline gave no session keys for the artifacts.")
            if self._client is None:
                self._client = self._make(self._keyring.current())
                Requests(self._keyring, self._going_on).attend(self._client)
            return self._client

    def _going_on(self) -> bool:
        return not self._closed and self._transfers.going_on()


def _find(places: Sequence[Place], name: str) -> Place:
    for place in places:
        if place.name == name:
            return place
    raise MissingArtifact(f"The action has no artifact {name}.")


def _measure(client: "S3Client", place: Place) -> tuple[int, str | None]:
    """Size and ETag. Not by HEAD, whose refusals have no body that says why."""
    try:
        answer = client.get_object(Bucket=place.bucket, Key=place.key, Range="bytes=0-0")
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in EMPTY:
            return 0, None
        raise
    answer["Body"].close()
    _, slash, size = answer.get("ContentRange", "").rpartition("/")
    return int(size) if slash else answer["ContentLength"], answer.get("ETag")


class _Watched(BaseSubscriber):
    """Tells s3transfer what is known of the object, and us how far it came."""

    def __init__(
        self, transfers: Transfers, direction: str, name: str, size: int, etag: str | None = None
    ) -> None:
        self._transfers = transfers
        self._direction = direction
        self._name = name
        self._size = size
        self._etag = etag
        self._lock = threading.Lock()
        self._done = 0

    def on_queued(self, future: TransferFuture, **_: object) -> None:
        future.meta.provide_transfer_size(self._size)
        if self._etag is not None:
            future.meta.provide_object_etag(self._etag)

    def on_progress(self, future: TransferFuture, bytes_transferred: int, **_: object) -> None:
        with self._lock:
            self._done += bytes_transferred
            done = self._done
        if not self._transfers.moved(self._direction, self._name, done, self._size):
            future.cancel()
