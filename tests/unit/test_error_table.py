"""What each error of AWS, and each of the SDK's own, means to the engine."""

import botocore.exceptions as sdk
import botocore.session
import pytest
from botocore.exceptions import ClientError
from botocore.model import StructureShape
from botocore.parsers import ResponseParserError

from dispatcher.aws.errors import ERRORS, failure
from dispatcher.engine import model

CALLS = [
    "PollForThirdPartyJobs",
    "GetThirdPartyJobDetails",
    "AcknowledgeThirdPartyJob",
    "PutThirdPartyJobSuccessResult",
    "PutThirdPartyJobFailureResult",
    "PollForJobs",
    "GetJobDetails",
    "AcknowledgeJob",
    "PutJobSuccessResult",
    "PutJobFailureResult",
]
OWN_KIND = {
    "ActionTypeNotFoundException": model.ActionTypeNotFound,
    "InvalidClientTokenException": model.InvalidClientToken,
    "InvalidJobStateException": model.InvalidJobState,
    "InvalidNonceException": model.InvalidNonce,
    "JobNotFoundException": model.JobNotFound,
}


def refusal(code: str, status: int, operation: str = "AcknowledgeJob") -> ClientError:
    return ClientError(
        {
            "Error": {"Code": code, "Message": "nonce hush-9 is wrong"},
            "ResponseMetadata": {
                "HTTPStatusCode": status,
                "RequestId": "r",
                "HostId": "h",
                "HTTPHeaders": {},
                "RetryAttempts": 0,
            },
        },
        operation,
    )


@pytest.mark.parametrize("code", ["", "400"])
def test_an_error_whose_body_was_cut_short_is_no_answer(code: str) -> None:
    assert type(failure("AcknowledgeJob", refusal(code, 400))) is model.Unanswered


@pytest.mark.parametrize("call", CALLS)
def test_every_error_that_the_service_model_lists_has_a_row(call: str) -> None:
    service = botocore.session.Session().get_service_model("codepipeline")

    shapes = service.operation_model(call).error_shapes
    codes = {shape.error_code for shape in shapes if isinstance(shape, StructureShape)}

    assert len(codes) == len(shapes) >= 2
    assert codes <= ERRORS.keys()


@pytest.mark.parametrize("code", sorted(ERRORS))
def test_a_row_decides_what_a_400_means(code: str) -> None:
    error = failure("AcknowledgeJob", refusal(code, 400))

    assert type(error) is ERRORS[code]
    assert type(error) is OWN_KIND.get(code, type(error))


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("500", 500, model.Unanswered),
        ("UnheardOf", 503, model.Unanswered),
        ("JobNotFoundException", 500, model.Unanswered),
        ("ThrottlingException", 503, model.Throttled),
        ("429", 429, model.Throttled),
        ("302", 302, model.Unanswered),
        ("403", 403, model.Denied),
        ("UnheardOf", 401, model.Denied),
        ("UnheardOf", 400, model.Refused),
        ("404", 404, model.Unanswered),
        ("ValidationException", 400, model.Refused),
        ("", 400, model.Unanswered),
    ],
)
def test_the_http_status_decides_where_the_code_does_not(
    code: str, status: int, kind: type[model.ApiError]
) -> None:
    assert type(failure("AcknowledgeJob", refusal(code, status))) is kind


@pytest.mark.parametrize("code", ["ValidationError", "AccessDenied", "RegionDisabledException"])
def test_a_refused_call_for_our_credentials_says_nothing_of_the_job(code: str) -> None:
    error = failure("PutJobSuccessResult", refusal(code, 400, operation="AssumeRole"))

    assert type(error) is model.Denied


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (sdk.ConnectTimeoutError(endpoint_url="u"), model.Unanswered),
        (sdk.ReadTimeoutError(endpoint_url="u"), model.Unanswered),
        (sdk.ConnectionClosedError(endpoint_url="u"), model.Unanswered),
        (sdk.EndpointConnectionError(endpoint_url="u"), model.Unanswered),
        (sdk.ProxyConnectionError(proxy_url="u"), model.Unanswered),
        (sdk.SSLError(endpoint_url="u", error=OSError("e")), model.Unanswered),
        (sdk.HTTPClientError(error="e"), model.Unanswered),
        (sdk.ResponseStreamingError(error="e"), model.Unanswered),
        (sdk.IncompleteReadError(actual_bytes=1, expected_bytes=2), model.Unanswered),
        (ResponseParserError("e"), model.Unanswered),
        (AttributeError("'list' object has no attribute 'get'"), model.Unanswered),
        (sdk.NoCredentialsError(), model.Denied),
        (sdk.PartialCredentialsError(provider="p", cred_var="v"), model.Denied),
        (sdk.CredentialRetrievalError(provider="p", error_msg="e"), model.Denied),
        (sdk.ProfileNotFound(profile="p"), model.Denied),
        (sdk.NoRegionError(), model.Denied),
        (sdk.UnauthorizedSSOTokenError(), model.Denied),
        (sdk.ParamValidationError(report="nonce: hush-9"), model.Refused),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.__name__,
)
def test_the_sdks_own_errors_tell_no_answer_from_a_wrong_setting_and_a_bug_of_ours(
    error: Exception, kind: type[model.ApiError]
) -> None:
    assert type(failure("AcknowledgeJob", error)) is kind


def test_an_errors_text_is_the_operation_and_the_code_alone() -> None:
    error = failure("AcknowledgeJob", refusal("InvalidNonceException", 400))

    assert str(error) == "AcknowledgeJob: InvalidNonceException"
    assert "hush-9" not in repr(error)


def test_a_code_that_is_no_code_is_not_shown() -> None:
    error = failure("AcknowledgeJob", refusal("nonce hush-9\nis wrong", 400))

    assert str(error) == "AcknowledgeJob: unknown code"


def test_an_error_of_parameters_shows_no_parameter() -> None:
    error = failure("AcknowledgeJob", sdk.ParamValidationError(report="nonce: hush-9"))

    assert str(error) == "AcknowledgeJob: ParamValidationError"
