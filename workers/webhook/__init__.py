"""Starts an operation of an HTTPS service, and looks at it once a job until it has ended.

What the operator sets and the service answers is told in dispatcher/docs/webhook.md.
Action type: Custom, Invoke, Webhook, version 1. Needs the extra `webhook`.
"""

import json
import time
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated

from pydantic import Field

from dispatcher.sdk import (
    ConfigurationError,
    Continue,
    Failure,
    Job,
    JobFailed,
    Key,
    Outcome,
    Retry,
    Secret,
    action,
)

from .allowed import Place, Policy, operators_policy
from .answers import MISSES, Report, Token, outcome, refusal, report_of
from .calls import Call, exchange, key_of

__all__ = ["Config", "webhook"]


@dataclass(frozen=True)
class Config:
    """What the pipeline's author fills in."""

    url: Annotated[str, Key(description="Where to start the operation: https.")] = field(repr=False)
    signing_secret: Annotated[Secret, Key(description="whsec_ and base64 of 24 to 64 bytes.")]
    status_url: Annotated[
        str | None, Key(description="Where to look for it, if the receiver does not answer that.")
    ] = field(default=None, repr=False)
    parameters: Annotated[str | None, Key(description="JSON for the receiver.")] = field(
        default=None, repr=False
    )
    timeout_minutes: Annotated[
        int, Field(ge=1, le=10_080), Key(description="How long the operation may take; else 60.")
    ] = 60


# Not "rerun": it would send a start again, which is right only with a receiver that starts one
# operation per webhook-id, and that cannot be known of somebody else's.
@action("Invoke", "Webhook", version="1", owner="Custom", config=Config, on_crash="fail")
def webhook(job: Job[Config]) -> Outcome:
    """Start the operation, or look once how far it is."""
    policy, key, config = operators_policy(), key_of(job.config.signing_secret), job.config
    at = policy.place("Url", config.url)
    home = policy.place("StatusUrl", config.status_url) if config.status_url else at
    if job.continuation is None:
        return _start(job, policy, Call("POST", at, job.id, key, _body(job)), home)
    token = Token.opened(job.continuation, key)
    try:
        return _look(job, policy, key, token, home)
    except Failure as failure:
        failure.external_id = failure.external_id or token.external_id
        raise


def _start(job: Job[Config], policy: Policy, call: Call, home: Place) -> Outcome:
    token = Token(job.id, int(time.time()))
    answer = exchange(job, policy, call)
    if answer is None:
        raise Retry  # nothing was started, so another worker may do it
    if failure := refusal(answer, starting=True):
        raise failure
    report = report_of(answer, " The operation may have started.")
    if report.status == "running":
        token = replace(token, url=_status_url(job.config, policy, report, home))
    return outcome(report, token, call.key)


def _status_url(config: Config, policy: Policy, report: Report, home: Place) -> str:
    url = config.status_url or report.status_url
    if url is None:
        raise ConfigurationError(
            "Nobody can follow the operation that has started: the webhook's answer has no "
            "status_url, and the action no StatusUrl."
        )
    if url.startswith("/"):
        url = f"https://{home.netloc}{url}"
    # No other host, even if it is allowed: who answers for one must not have others called.
    if policy.place("The status_url of the webhook's answer", url).netloc != home.netloc:
        raise ConfigurationError(
            "The status_url of the webhook's answer must be on the host and port of Url; the "
            "action's StatusUrl may name another. The operation has started."
        )
    return url


def _look(job: Job[Config], policy: Policy, key: bytes, token: Token, home: Place) -> Outcome:
    place = policy.place("The operation's status URL", token.url)
    if place.netloc != home.netloc:
        raise ConfigurationError("The operation was started with another Url or StatusUrl.")
    answer = exchange(job, policy, Call("GET", place, token.operation, key))
    if answer is None:
        return Continue(token.sealed(key), external_id=token.external_id)
    if answer.failed and token.misses + 1 < MISSES:
        missed = replace(token, misses=token.misses + 1)
        text = f"The webhook {answer.told}; it will be asked again."
        return _in_time(job, token, Continue(missed.sealed(key), None, text, token.external_id))
    if failure := refusal(answer, starting=False):
        raise failure
    return _in_time(job, token, outcome(report_of(answer), replace(token, misses=0), key))


def _in_time(job: Job[Config], token: Token, found: Outcome) -> Outcome:
    minutes = job.config.timeout_minutes
    if isinstance(found, Continue) and time.time() > token.started + 60 * minutes:
        raise JobFailed(
            f"The operation did not end within {minutes} minutes (TimeoutMinutes); it may go on.",
            found.external_id,
        )
    return found


def _body(job: Job[Config]) -> bytes:
    """What the receiver is told of the job."""
    told = {
        "job": {"id": job.id, "attempt": job.attempt},
        "pipeline": {key: one for key, one in asdict(job.pipeline).items() if one is not None},
        "inputs": [{"name": one.name, "revision": one.revision} for one in job.inputs.values()],
    }
    try:
        told["parameters"] = json.loads(job.config.parameters or "null")
        return json.dumps(told, allow_nan=False).encode()
    except (ValueError, RecursionError):
        fault = ConfigurationError("Parameters must be a JSON text.")
    raise fault
