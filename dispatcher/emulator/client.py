"""The emulator as a test drives it: jobs in, results out, faults on demand.

Plain HTTP and nothing of the dispatcher, so that it serves whoever tests a worker of his own.
"""

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from dispatcher.emulator.options import camel_case
from dispatcher.emulator.places import BUCKET, located
from dispatcher.emulator.seen import (
    Call,
    EmulatedJob,
    FaultState,
    Result,
    S3Call,
    to_call,
    to_job,
    to_s3_call,
)

__all__ = ["Call", "EmulatedJob", "Emulator", "EmulatorError", "FaultState", "Result", "S3Call"]

LOOK_EVERY = 0.01  # seconds
STATES = ("Created", "Queued", "Dispatched", "InProgress", "TimedOut", "Succeeded", "Failed")
OPERATIONS = {
    name.format(kind)
    for kind in ("", "ThirdParty")
    for name in (
        "PollFor{}Jobs",
        "Get{}JobDetails",
        "Acknowledge{}Job",
        "Put{}JobSuccessResult",
        "Put{}JobFailureResult",
    )
}


class EmulatorError(Exception):
    """The emulator refuses a request, or did not start; the text says why."""


class NoSuchObjectError(EmulatorError):
    """There is none there."""


class Emulator:
    """A running emulator. Errors are EmulatorError, which says what is wrong with a request."""

    def __init__(self, url: str) -> None:
        self.url = url

    @property
    def environment(self) -> dict[str, str]:
        """What makes any AWS SDK talk to it, and to it alone."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ENDPOINT_URL_CODEPIPELINE": self.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": str(urlsplit(self.url).hostname),
            "no_proxy": str(urlsplit(self.url).hostname),
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def reset(self, **options: float | str) -> None:
        """Forget all jobs, calls and faults, and what moto holds.

        `options` are those of `dispatcher emulator`, by names such as ack_window=5.
        """
        self.ask("/_admin/reset", {camel_case(name): value for name, value in options.items()})

    def submit(
        self,
        provider: str,
        configuration: Mapping[str, str] | None = None,
        *,
        owner: Literal["Custom", "ThirdParty"] = "Custom",
        category: str = "Test",
        version: str = "1",
        client_id: str = "client",
        client_token: str = "token",  # noqa: S107 - of a client that does not exist
        inputs: Mapping[str, bytes] | None = None,
        outputs: Sequence[str] = (),
        **more: Any,
    ) -> str:
        """Offer a job, and answer its id. The client is a third-party job's alone.

        `inputs`: input artifacts, which are put into a bucket of the emulator's; `outputs`: the
        names of output artifacts, which get a place there. `more`: other members of POST
        /_admin/jobs, as they are, such as encryptionKey, or inputArtifacts in places of your own.
        """
        action_type = to_action_type(category, owner, provider, version)
        client = {"clientId": client_id, "clientToken": client_token}
        more |= self._store(inputs or {}, outputs, more.get("pipelineName"))
        body = {"actionTypeId": action_type, "configuration": dict(configuration or {}), **more}
        made = self.ask("/_admin/jobs", body | (client if owner == "ThirdParty" else {}))
        return str(made["jobIds"][0])

    def _store(
        self, inputs: Mapping[str, bytes], outputs: Sequence[str], pipeline: str | None
    ) -> dict[str, Any]:
        """The artifacts as POST /_admin/jobs has them."""
        given = located(inputs, pipeline)
        for artifact in given:
            place = artifact["location"]["s3Location"]
            self.put_object(BUCKET, place["objectKey"], inputs[artifact["name"]])
        if outputs:
            self.ask(f"/_admin/objects/{BUCKET}", method="PUT")
        places = {"inputArtifacts": given, "outputArtifacts": located(outputs, pipeline)}
        return {name: artifacts for name, artifacts in places.items() if artifacts}

    def artifact(self, job_id: str, name: str) -> bytes | None:
        """What this output artifact holds, or this input; None while nobody has put it."""
        found = self.ask(f"/_admin/jobs?id={job_id}")
        if not found:
            raise EmulatorError(f"there is no job {job_id}")
        for artifact in (*found[0]["outputArtifacts"], *found[0]["inputArtifacts"]):
            if artifact.get("name") == name and artifact.get("location"):
                place = artifact["location"]["s3Location"]
                return self.get_object(place["bucketName"], place["objectKey"])
        raise EmulatorError(f"the job has no artifact {name}")

    def put_object(self, bucket: str, key: str, content: bytes, region: str | None = None) -> None:
        """Of any size. The bucket is made if there is none, in us-east-1 or the region named."""
        where = "" if region is None else f"?region={quote(region)}"
        self._send(f"/_admin/objects/{quote(bucket)}/{quote(key)}{where}", content, "PUT")

    def get_object(self, bucket: str, key: str) -> bytes | None:
        """None where there is no such object."""
        try:
            return self._send(f"/_admin/objects/{quote(bucket)}/{quote(key)}")
        except NoSuchObjectError:
            return None

    def define(
        self,
        provider: str,
        *,
        owner: Literal["Custom", "ThirdParty"] = "Custom",
        category: str = "Test",
        version: str = "1",
        queryable: str | None = None,
        job_timeout: float | None = None,
    ) -> None:
        """Declare an action type without a job; `submit` declares one by itself."""
        action_type = to_action_type(category, owner, provider, version)
        body = {"actionTypeId": action_type, "queryable": queryable, "jobTimeout": job_timeout}
        self.ask("/_admin/action-types", body)

    def job(self, job_id: str) -> EmulatedJob:
        found = self.ask(f"/_admin/jobs?id={job_id}")
        if not found:
            raise EmulatorError(f"there is no job {job_id}")
        return to_job(found[0])

    def jobs(self) -> list[EmulatedJob]:
        """All, in order of creation."""
        return [to_job(found) for found in self.ask("/_admin/jobs")]

    def chain(self, job_id: str) -> list[EmulatedJob]:
        """This job and those that its continuation tokens brought, in order."""
        jobs = [self.job(job_id)]
        while jobs[-1].next is not None:
            jobs.append(self.job(jobs[-1].next))
        return jobs

    def wait_for(
        self, job_id: str, status: str | None = None, *, timeout: float = 30
    ) -> EmulatedJob:
        """The job once it is, or was, in this state; without one, the last job of its action once
        that has ended. Raises TimeoutError with what became of it: after so many seconds, or at
        once when it can come no more."""
        if status not in {None, *STATES}:
            raise EmulatorError(f"there is no state {status}; there are {', '.join(STATES)}")
        until = time.monotonic() + timeout
        while True:
            job = self.job(job_id) if status is not None else self.chain(job_id)[-1]
            if job.ended if status is None else status in dict(job.history):
                return job
            if job.ended or time.monotonic() > until:
                states = ", ".join(state for state, _ in job.history)
                raise TimeoutError(f"not within {timeout:g} s; {job.id} was {states}")
            time.sleep(LOOK_EVERY)

    def results(self, job_id: str) -> list[Result]:
        """What was put for this job and those that its continuation tokens brought, in order."""
        return [job.result for job in self.chain(job_id) if job.result is not None]

    def calls(self, operation: str | None = None, job_id: str | None = None) -> list[Call]:
        """All job calls in order of their arrival, or those of one operation or job."""
        if operation is not None and operation not in OPERATIONS:
            raise EmulatorError(f"there is no job call {operation}")
        if job_id is not None:
            self.job(job_id)
        return [
            call
            for call in map(to_call, self.ask("/_admin/log"))
            if operation in {None, call.operation} and job_id in {None, call.job_id}
        ]

    def s3_calls(self, operation: str | None = None, job_id: str | None = None) -> list[S3Call]:
        """All requests to S3 in order of their end, or those of one operation, or those that were
        signed with a job's session keys. Operations have AWS's names, as PutObject."""
        if job_id is not None:
            self.job(job_id)
        return [
            call
            for call in map(to_s3_call, self.ask("/_admin/s3"))
            if operation in {None, call.operation} and job_id in {None, call.job_id}
        ]

    def add_fault(self, kind: str, **rule: Any) -> str:
        """Have a fault befall calls, once unless the rule says how often; answers its id.

        `rule`: operation, job_id, count, probability, after, seed, error, status, seconds, bytes,
        when. `dispatcher/docs/emulator.md` has the kinds.
        """
        body = {camel_case(name): value for name, value in rule.items()}
        made = self.ask("/_admin/faults", {"kind": kind, **body})
        return str(made["faults"][0]["id"])

    def faults(self) -> list[FaultState]:
        return [
            FaultState(*(shown[name] for name in ("id", "kind", "matched", "taken", "held")))
            for shown in self.ask("/_admin/faults")["faults"]
        ]

    def remove_fault(self, fault_id: str | None = None) -> None:
        """One, or all; calls that it holds go on."""
        which = "" if fault_id is None else f"?id={fault_id}"
        self.ask(f"/_admin/faults{which}", method="DELETE")

    def release(self, fault_id: str | None = None) -> int:
        """Let calls go on that this fault holds, or any; answers how many."""
        body = {} if fault_id is None else {"id": fault_id}
        return int(self.ask("/_admin/release", body)["released"])

    def abandon(self, job_id: str) -> None:
        self.ask(f"/_admin/jobs/{job_id}/abandon", {})

    def time_out(self, job_id: str) -> None:
        self.ask(f"/_admin/jobs/{job_id}/time-out", {})

    def set_clock(self, offset: float) -> None:
        """Have AWS's clock run so many seconds ahead of this machine's."""
        self.ask("/_admin/clock", {"offset": offset})

    def ask(self, path: str, body: object = None, method: str | None = None) -> Any:
        """Any admin call, decoded."""
        return json.loads(
            self._send(path, None if body is None else json.dumps(body).encode(), method)
        )

    def _send(self, path: str, content: bytes | None = None, method: str | None = None) -> bytes:
        headers = {} if content is None else {"Content-Type": "application/octet-stream"}
        request = urllib.request.Request(  # noqa: S310
            self.url + path, content, headers, method=method
        )
        try:
            with DIRECT.open(request, timeout=30) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                kind = NoSuchObjectError if error.code == 404 else EmulatorError
                called = "/".join(path.split("/")[:3])  # an object's path is not for a text
                raise kind(f"{called}: {json.load(error)['error']}") from None
        except OSError as error:
            raise EmulatorError(f"the emulator at {self.url} does not answer: {error}") from None


DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is on this machine


def to_action_type(category: str, owner: str, provider: str, version: str) -> dict[str, str]:
    return {"category": category, "owner": owner, "provider": provider, "version": version}
