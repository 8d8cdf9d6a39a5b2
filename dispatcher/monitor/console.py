"""Where AWS's console shows a pipeline.

Only what has the form of AWS's own names goes into a link."""

import re
from typing import Final
from urllib.parse import quote

from dispatcher.sdk import Pipeline

ARN: Final = re.compile(
    r"arn:(?P<partition>aws|aws-cn|aws-us-gov):codepipeline:(?P<region>[a-z]{2}(?:-[a-z]+){1,3}-\d)"
    r":\d{12}:(?P<name>[A-Za-z0-9.@_-]{1,100})"
)
EXECUTION: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
HOSTS: Final = {
    "aws": "{region}.console.aws.amazon.com",
    "aws-cn": "console.amazonaws.cn",
    "aws-us-gov": "console.amazonaws-us-gov.com",
}


def console_url(pipeline: Pipeline | None) -> str | None:
    """The execution's page where one is known; None: no ARN, as third-party jobs have none."""
    arn = ARN.fullmatch((pipeline and pipeline.arn) or "")
    if pipeline is None or arn is None:
        return None
    region, name = arn["region"], quote(arn["name"], safe="")
    host = HOSTS[arn["partition"]].format(region=region)
    page = f"https://{host}/codesuite/codepipeline/pipelines/{name}"
    if EXECUTION.fullmatch(pipeline.execution_id or ""):
        return f"{page}/executions/{pipeline.execution_id}/timeline?region={region}"
    return f"{page}/view?region={region}"
