"""A long operation over several jobs: each does one step and hands a token to the next.

No worker is held between the steps, and a deploy of the workers interrupts at most one of them.
The last step writes what was done into the action's output artifacts, if it has any.
Action type: Custom, Deploy, Countdown, version 1.
"""

import re
from dataclasses import dataclass

from dispatcher.sdk import ConfigurationError, Continue, Job, Outcome, Succeeded, action

# The token is all that the next job, perhaps on another machine, knows. It names its version, so
# that a later release can tell the tokens which an earlier one left behind.
TOKEN = re.compile(r"v1:([1-9][0-9]{0,8})")


@dataclass(frozen=True)
class Config:
    """The key `Steps`: how many jobs the operation takes."""

    steps: int


@action("Deploy", "Countdown", version="1", owner="Custom", config=Config)
def countdown(job: Job[Config]) -> Outcome:
    """Do the next step; ask for another job until all are done."""
    steps = job.config.steps
    if steps < 1:
        raise ConfigurationError("Steps must be 1 or more.")
    done = steps_done(job.continuation, steps) + 1
    job.log.info("step done", extra={"step": done, "steps": steps})
    if done < steps:
        return Continue(f"v1:{done}", percent=100 * done // steps, summary=f"{done} of {steps}")
    for artifact in job.outputs.values():
        artifact.write_bytes("".join(f"step {step}\n" for step in range(1, steps + 1)).encode())
    return Succeeded(summary=f"All {steps} steps are done.")


def steps_done(token: str | None, steps: int) -> int:
    """How far the earlier jobs came. A token has been outside, so it is checked like any input."""
    if token is None:
        return 0
    match = TOKEN.fullmatch(token)
    if match is None or int(match[1]) >= steps:
        # Without the token's text: the message is shown in the pipeline.
        raise ConfigurationError("The continuation token is not one of this action's steps.")
    return int(match[1])
