"""Memory that moving an artifact takes: `python -m tests.benchmarks.artifacts`.

One process brings an input artifact in and sends it out again as this product does, one as a plain
loop around the SDK does, which reads the object whole. Each says its largest resident size. What
counts is the ratio: absolute figures are of this machine.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import boto3

from dispatcher.aws.artifacts import S3Artifacts
from dispatcher.aws.codepipeline import CodePipeline
from dispatcher.emulator.client import Emulator
from dispatcher.emulator.process import running
from dispatcher.engine.model import Belongings, JobRef
from dispatcher.sdk import ActionType, Owner
from tests.harness import Unwatched

REGION = "us-east-1"
BUCKET = "benchmark"
MIB = 2**20


def ours(belongings: Belongings, folder: Path) -> None:
    store = S3Artifacts(10**12)
    with store.open(REGION, belongings, lambda: None, Unwatched()) as storage:
        storage.fetch("In", folder / "file")
        storage.store("Out", folder / "file", "application/octet-stream")


def plain(belongings: Belongings, _folder: Path) -> None:
    keys, (given,), (made,) = belongings.keys, belongings.inputs, belongings.outputs
    if keys is None:
        raise SystemExit("no session keys")
    client = boto3.client(
        "s3",
        region_name=REGION,
        aws_access_key_id=keys.access_key_id,
        aws_secret_access_key=keys.secret_access_key,
        aws_session_token=keys.session_token,
    )
    content = client.get_object(Bucket=given.bucket, Key=given.key)["Body"].read()
    client.put_object(
        Bucket=made.bucket, Key=made.key, Body=content, ServerSideEncryption="aws:kms"
    )


WAYS = {"ours": ours, "plain": plain}


def child(way: str, job_id: str) -> None:
    ref = JobRef(job_id, None, ActionType("Build", Owner.CUSTOM, "Mover", "1"), REGION)
    belongings = CodePipeline(1).details(ref, None).belongings
    with tempfile.TemporaryDirectory() as folder:
        before = time.perf_counter()
        WAYS[way](belongings, Path(folder))
        seconds = time.perf_counter() - before
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(f"{most} {seconds}\n")


def fill(size: int) -> None:
    """The input object, in parts so that nobody holds it."""
    client = boto3.client("s3", region_name=REGION)
    client.create_bucket(Bucket=BUCKET)
    with tempfile.TemporaryFile() as file:
        part = os.urandom(MIB)
        for _ in range(size):
            file.write(part)
        file.seek(0)
        client.upload_fileobj(file, BUCKET, "in")


def measure(emulator: Emulator, way: str, size: int) -> float:
    def place(name: str, key: str) -> dict[str, object]:
        at = {"type": "S3", "s3Location": {"bucketName": BUCKET, "objectKey": key}}
        return {"name": name, "location": at}

    job_id = emulator.submit(
        "Mover",
        category="Build",
        inputArtifacts=[place("In", "in")],
        outputArtifacts=[place("Out", f"out-{way}")],
    )
    command = [sys.executable, "-m", "tests.benchmarks.artifacts", "--child", way, job_id]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    most, seconds = map(float, told)
    sys.stdout.write(
        f"{way:8} {size} MiB in and out: {most:6.0f} MiB resident at most, "
        f"{2 * size / seconds:4.0f} MiB/s\n"
    )
    return most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--child", nargs=2, metavar=("WAY", "JOB"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(*given.child)
    else:
        compare(given.mib)


def compare(size: int) -> None:
    with running() as emulator:
        os.environ.update(emulator.environment)
        fill(size)
        own, theirs = (measure(emulator, way, size) for way in WAYS)
    sys.stdout.write(f"ratio: {own / theirs:.2f} of the memory of a plain loop\n")


if __name__ == "__main__":
    main()
