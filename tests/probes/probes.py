"""Providers that do what a test tells them to, and note it: the handlers' side of the story."""

import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from dispatcher.sdk import Continue, Job, JobFailed, Outcome, Retry, Secret, Succeeded, action

FOLDER = Path(os.environ["PROBE_FOLDER"])
EPOCH = float(os.environ["PROBE_EPOCH"])


@dataclass(frozen=True)
class Config:
    do: str = "ok"
    api_key: Secret | None = None
    must: int = 0
    seconds: float = 0.0


def note(job: Job[Config], event: str) -> None:
    line = {"job": job.id, "event": event, "attempt": job.attempt, "pid": os.getpid()}
    line["at"] = EPOCH + time.monotonic()  # whatever this process takes for the time
    with (FOLDER / "effects").open("a") as file:
        file.write(json.dumps(line) + "\n")


def hold(job: Job[Config], *, heed: bool) -> None:
    while not (FOLDER / f"go-{job.id}").exists():
        if heed and job.wait(0.02):
            note(job, "stopping")
            return
        if not heed:
            time.sleep(0.02)


def ask_in_a_span(job: Job[Config]) -> None:
    """Both AWS's SDK and the span's own end quote the bucket."""
    import boto3
    from opentelemetry import trace

    key = job.config.api_key
    with trace.get_tracer("acme").start_as_current_span("acme.ask"):
        boto3.client("s3").get_object(Bucket=key.get_secret_value() if key else "", Key="k")


def run(job: Job[Config]) -> Outcome:  # noqa: C901, PLR0912 - one arm for each thing a test may ask
    note(job, "start")
    match job.config.do:
        case "exit":
            sys.exit(3)
        case "nonsense":
            return "done"  # type: ignore[return-value]
        case "raise":
            key = job.config.api_key
            raise ValueError(f"leaks {key.get_secret_value() if key else ''}")
        case "trace":
            ask_in_a_span(job)
        case "fail":
            raise JobFailed("as asked", "run-7")
        case "work":
            job.wait(job.config.seconds)
        case "hold":
            hold(job, heed=False)
        case "heed":
            hold(job, heed=True)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "kill once" if job.attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        case "retry" if job.attempt < 3:
            raise Retry(timedelta(seconds=0.2))
        case "carry":
            job.outputs.only().write_bytes(job.inputs.only().read_bytes())
        case "continue" if job.continuation is None:
            note(job, "end")
            return Continue("secret-continuation-token", percent=50, external_id="run-7")
        case _:
            pass
    note(job, "end")
    return Succeeded(f"did {job.config.do}")


@action("Test", "Probe", version="1", config=Config)
def probe(job: Job[Config]) -> Outcome:
    return run(job)


@action("Test", "Rerun", version="1", owner="Custom", config=Config, on_crash="rerun")
def rerun(job: Job[Config]) -> Outcome:
    return run(job)


@action("Test", "Short", version="1", config=Config, time_limit=timedelta(seconds=1))
def short(job: Job[Config]) -> Outcome:
    return run(job)
