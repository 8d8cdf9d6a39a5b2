"""What a pipeline is told of an error of S3: a failure type, a sentence, and nothing quoted."""

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ParamValidationError
from botocore.parsers import ResponseParserError
from hypothesis import given
from hypothesis import strategies as st
from s3transfer.exceptions import S3DownloadFailedError, S3ValidationError

from dispatcher.aws.storage_errors import CODES, fault_of
from dispatcher.engine.model import Throttled
from dispatcher.sdk import Failure

WHAT = "input artifact Source"
CANARY = "canary-bucket/canary-key"


def answered(code: str, status: int = 400, message: str = CANARY) -> ClientError:
    response = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(response, "GetObject")  # type: ignore[arg-type]  # the rest is not read


@pytest.mark.parametrize("code", CODES)
def test_each_code_has_a_sentence_that_names_the_artifact_alone(code: str) -> None:
    fault = fault_of(answered(code), WHAT)

    assert isinstance(fault, CODES[code][0])
    assert WHAT in fault.message
    assert "canary" not in fault.message
    assert fault.message.endswith(".")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (answered("AccessDenied", 403, "no kms:Decrypt on it"), "PermissionError"),
        (answered("KMS.KMSInvalidStateException"), "PermissionError"),
        (answered("KMS.InternalException", 500), "SystemUnavailable"),
        (answered("KMS.ThrottlingException"), "SystemUnavailable"),
        (answered("ThrottlingException"), "SystemUnavailable"),
        (answered("OperationAborted", 409), "SystemUnavailable"),
        (answered("AccessDenied", 500, "kms:"), "SystemUnavailable"),
        (OSError(28, CANARY), "SystemUnavailable"),
        (KeyError("UploadId"), "SystemUnavailable"),
        (ResponseParserError(CANARY), "SystemUnavailable"),
        (S3ValidationError(CANARY), "ConfigurationError"),
        (S3DownloadFailedError(CANARY), "RevisionOutOfSync"),
        (answered("InternalError", 500), "SystemUnavailable"),
        (answered("SlowDown", 503), "SystemUnavailable"),
        (answered("RequestTimeout", 400), "SystemUnavailable"),
        (answered("", 0), "SystemUnavailable"),
        (answered("Whatever", 429), "SystemUnavailable"),
        (EndpointConnectionError(endpoint_url=CANARY), "SystemUnavailable"),
        (ParamValidationError(report=CANARY), "ConfigurationError"),
        (Throttled(), "SystemUnavailable"),
        (answered("Peculiar"), "JobFailed"),
        (answered("two\nlines {0} {what.__class__}"), "JobFailed"),
    ],
)
def test_what_the_table_lacks_is_told_by_what_it_is(error: Exception, kind: str) -> None:
    fault = fault_of(error, WHAT)

    assert fault.type == kind
    assert "canary" not in fault.message
    assert "\n" not in fault.message


@given(st.text(), st.integers(0, 600), st.text())
def test_no_answer_breaks_it(code: str, status: int, message: str) -> None:
    fault = fault_of(answered(code, status, message), WHAT)

    assert isinstance(fault, Failure)
    assert WHAT in fault.message
