"""Artifacts in S3, moved under a job's own session keys, and never under this worker's.

A client is one job's: it has that job's keys and no others, and is gone with it. Owns how files are
moved and what S3's errors mean; must not know jobs, handlers or archives.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError, ClientError
from s3transfer.exceptions import CancelledError, RetriesExceededError, S3DownloadFailedError
from s3transfer.futures import NonThreadedExecutor, TransferFuture
from s3transfer.manager import TransferConfig, TransferManager
from s3transfer.subscribers import BaseSubscriber

from dispatcher.aws.storage_errors import fault_of
from dispatcher.engine.model import Belongings, Place, PortError, SessionKeys
from dispatcher.engine.ports import Transfers
from dispatcher.sdk import Failure, JobFailed, MissingArtifact, SystemUnavailable

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

log = logging.getLogger(__name__)

MIB: Final = 2**20
# CodePipeline's keys are good for 15 minutes, which AWS's Jenkins plug-in says, and no document.
RENEW_AFTER: Final = 12 * 60.0  # seconds: a request that is signed now may wait and be sent again
RENEW_AGAIN: Final = 30.0  # after a renewal that failed while the old keys may still be good
EXPIRED: Final = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
ASKED_ANEW: Final = "dispatcher_asked_anew"
EMPTY: Final = frozenset({"InvalidRange", "416"})  # what an object without a byte answers a range
FAULTS: Final = (ClientError, BotoCoreError, RetriesExceededError, S3DownloadFailedError, PortError)
CHUNK: Final = 16 * MIB
THREADS: Final = 4
ATTEMPTS: Final = 5  # of each request, over 10 to 20 seconds
# Uploads read each part from the file; downloads wait in this queue to be written.
TRANSFERS: Final = TransferConfig(
    multipart_threshold=CHUNK,
    multipart_chunksize=CHUNK,
    max_request_concurrency=THREADS,
    max_submission_concurrency=1,
    max_io_queue_size=64,
    io_chunksize=256 * 1024,
    num_download_attempts=3,
)


class Keyring:
    """One job's session keys, renewed before they end; for all threads of its transfers."""

    def __init__(
        self,
        keys: SessionKeys,
        renew: Callable[[], SessionKeys | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._renew = renew
        self._clock = clock
        self._lock = threading.Lock()
        self._current = _credentials(keys)
        self._due = clock() + RENEW_AFTER

    def current(self) -> Credentials:
        """To sign one request with. New ones are asked for in time, and while they are had not,
        the old may still do."""
        with self._lock:
            if self._clock() >= self._due:
                try:
                    self._ask()
                except PortError as error:
                    self._due = self._clock() + RENEW_AGAIN
                    log.warning("session keys not renewed", extra={"error": str(error)})
            return self._current

    def replace(self, refused: Credentials) -> None:
        """S3 says that these have ended. Raises what the renewal does."""
        with self._lock:
            if self._current is refused:  # else another thread was first
                self._ask()

    def _ask(self) -> None:
        keys = self._renew()
        if keys is not None:
            self._current = _credentials(keys)
        self._due = self._clock() + RENEW_AFTER


def _credentials(keys: SessionKeys) -> Credentials:
    return Credentials(keys.access_key_id, keys.secret_access_key, keys.session_token)


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

    def _client(self, region: str, keys: SessionKeys) -> "S3Client":
        with self._lock:  # clients may be used by many threads, but not made by many
            self._session = self._session or boto3.Session()
            client = self._make(region, keys, "auto")
            if ".amazonaws." not in f"{urlsplit(client.meta.endpoint_url).hostname}.":
                # Somebody's own S3, where no bucket has a host name.
                client.close()
                client = self._make(region, keys, "path")
            return client

    def _make(self, region: str, keys: SessionKeys, style: Literal["auto", "path"]) -> "S3Client":
        if self._session is None:
            raise RuntimeError("no session")
        return self._session.client(
            "s3",
            region_name=region,
            # The job's own, so that no default of this worker's can ever stand in.
            aws_access_key_id=keys.access_key_id,
            aws_secret_access_key=keys.secret_access_key,
            aws_session_token=keys.session_token,
            config=Config(
                signature_version="s3v4",  # SSE-KMS refuses any other
                connect_timeout=3,
                read_timeout=30,
                max_pool_connections=THREADS + 1,
                retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
                tcp_keepalive=True,
                s3={"addressing_style": style},
            ),
        )


class S3Storage:
    """One job's artifacts. Raises the SDK's failures alone."""

    def __init__(
        self,
        make: Callable[[SessionKeys], "S3Client"],
        belongings: Belongings,
        renew: Callable[[], SessionKeys | None],
        transfers: Transfers,
        most: int,
    ) -> None:
        self._make = make
        self._belongings = belongings
        self._renew = renew
        self._transfers = transfers
        self._most = most
        self._lock = threading.Lock()
        self._client: S3Client | None = None

    def fetch(self, name: str, path: Path, most: int | None = None) -> None:
        place = _find(self._belongings.inputs, name)
        with _told("input", name):
            client = self._ready()
            size, etag = _measure(client, place)
            _check_size(name, size, min(self._most, most or self._most))
            if size:
                watch = _Watched(self._transfers, "download", name, size, etag)
                self._run(
                    size,
                    lambda manager: manager.download(
                        place.bucket, place.key, str(path), subscribers=[watch]
                    ),
                )
            self._transfers.ended("download", name, size)

    def store(self, name: str, path: Path, content_type: str) -> None:
        place = _find(self._belongings.outputs, name)
        size = path.stat().st_size
        extra = {"ServerSideEncryption": "aws:kms", "ContentType": content_type}
        if self._belongings.encryption_key:  # without one: the AWS managed key
            extra["SSEKMSKeyId"] = self._belongings.encryption_key
        with _told("output", name):
            self._ready()
            watch = _Watched(self._transfers, "upload", name, size)
            self._run(
                size,
                lambda manager: manager.upload(
                    str(path), place.bucket, place.key, extra_args=extra, subscribers=[watch]
                ),
            )
            self._transfers.ended("upload", name, size)

    def close(self) -> None:
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def _run(self, size: int, start: Callable[[TransferManager], TransferFuture]) -> None:
        """A failed upload is aborted, so that no part of it stays: s3transfer does that."""
        threads = None if size >= CHUNK else NonThreadedExecutor
        with TransferManager(self._ready(), TRANSFERS, executor_cls=threads) as manager:
            start(manager).result()

    def _ready(self) -> "S3Client":
        with self._lock:
            if self._client is None:
                if self._belongings.keys is None:
                    raise SystemUnavailable("CodePipeline gave no session keys for the artifacts.")
                self._client = self._make(self._belongings.keys)
                _sign_with(self._client, Keyring(self._belongings.keys, self._renew))
            return self._client


def _sign_with(client: "S3Client", keyring: Keyring) -> None:
    def sign(request: Any, **_: object) -> None:
        request.context.setdefault("signing", {})["request_credentials"] = keyring.current()

    def look(response: Any, request_dict: dict[str, Any], **_: object) -> int | None:
        """Once for each request: 0 has it sent again, signed anew."""
        context = request_dict["context"]
        code = response[1].get("Error", {}).get("Code") if response else None
        if code not in EXPIRED or ASKED_ANEW in context:
            return None
        context[ASKED_ANEW] = True
        keyring.replace(context["signing"]["request_credentials"])
        return 0

    client.meta.events.register("before-sign.s3", sign)
    client.meta.events.register_first("needs-retry.s3", look)  # type: ignore[arg-type]  # its stub


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


def _check_size(name: str, size: int, most: int) -> None:
    if size > most:
        raise JobFailed(f"Input artifact {name} has {size} bytes; at most {most} are taken here.")


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


@contextmanager
def _told(kind: str, name: str) -> Iterator[None]:
    """Whatever goes wrong becomes one of the SDK's failures, which quotes nothing."""
    fault: Failure | None = None
    try:
        yield
    except CancelledError:
        fault = JobFailed(f"The job's time was over before its {kind} artifact {name} was there.")
    except FAULTS as error:
        fault = fault_of(error, f"{kind} artifact {name}")
    # Raised out here so that the SDK's error, which may hold parameters, is not its context.
    if fault is not None:
        raise fault
