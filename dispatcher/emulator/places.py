"""Where CodePipeline would keep a job's artifacts: names of objects that look like its own.

It must not know what is in them, nor who puts them there.
"""

import secrets
import string
from collections.abc import Iterable
from typing import Any

BUCKET = "codepipeline-emulator"
PIPELINE = "emulated"
RANDOM = string.ascii_letters + string.digits


def located(names: Iterable[str], pipeline: str | None = None) -> list[dict[str, Any]]:
    """Artifacts as AWS's calls show them."""
    return [{"name": name, "location": location(pipeline or PIPELINE, name)} for name in names]


def location(pipeline: str, artifact: str) -> dict[str, Any]:
    """Cut short and without an extension, says the troubleshooting page of AWS's user guide."""
    last = "".join(secrets.choice(RANDOM) for _ in range(7))
    key = f"{pipeline[:20]}/{artifact[:10]}/{last}"
    return {"type": "S3", "s3Location": {"bucketName": BUCKET, "objectKey": key}}
