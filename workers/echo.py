"""The smallest provider: it says what its configuration says, or fails with it.

An action with output artifacts gets its input artifact back in each, or the message where it has
none. Copy it to start your own. Action type: ThirdParty, Test, Echo, version 1.
"""

from dataclasses import dataclass

from dispatcher.sdk import Job, JobFailed, Outcome, Succeeded, action


@dataclass(frozen=True)
class Config:
    """What the pipeline's author fills in: the keys `Message` and, to see a failure, `FailWith`."""

    message: str
    fail_with: str | None = None


@action("Test", "Echo", version="1", config=Config)
def echo(job: Job[Config]) -> Outcome:
    """Return what the pipeline shall show; raise one of the failures to let the action fail."""
    if job.config.fail_with is not None:
        raise JobFailed(job.config.fail_with)
    content = job.workdir / "content"
    content.write_text(job.config.message)
    if job.inputs:
        job.inputs.only().download(content)
    for artifact in job.outputs.values():
        artifact.upload(content)
    return Succeeded(summary=job.config.message)
