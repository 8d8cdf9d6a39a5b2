"""The job calls over real HTTP: against the emulator, and against a server that answers badly."""

import json
import logging
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from dispatcher.aws.codepipeline import CodePipeline
from dispatcher.emulator.client import Emulator as Driven
from dispatcher.engine import model
from dispatcher.engine.model import JobRef, Kind, Verdict
from dispatcher.sdk import ActionType, Owner, Pipeline, Secret

REGION = "eu-central-1"
PARTNER = ActionType("Deploy", Owner.THIRD_PARTY, "AcmeDeploy", "1")
CUSTOM = ActionType("Build", Owner.CUSTOM, "AcmeBuild", "1")
JOB = "11111111-2222-3333-4444-555555555555"
CLIENT = "66666666-7777-8888-9999-000000000000"
THIRD_REF = JobRef(JOB, CLIENT, PARTNER, REGION)
CUSTOM_REF = JobRef(JOB, None, CUSTOM, REGION)
REFS = pytest.mark.parametrize("ref", [THIRD_REF, CUSTOM_REF], ids=["third-party", "custom"])
TOKEN = Secret("hush-token")
NONCE = "hush-nonce"
SUCCESS = Verdict(Kind.SUCCESS)


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIAHUSH")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "hush-key")
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield patch


@pytest.fixture
def fresh() -> Iterator[CodePipeline]:
    """One that has made no client yet, for a test that changes the environment."""
    fresh = CodePipeline(8)
    yield fresh
    fresh.close()


# A server that answers as told


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Wire"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.received(self.headers["X-Amz-Target"].split(".")[1], body)(self)

    def setup(self) -> None:
        super().setup()
        self.server.connected()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


Reply = Callable[[Handler], None]


class Wire(ThreadingHTTPServer):
    """Gives its replies in turn, the last one again and again, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.released = threading.Event()
        self._lock = threading.Lock()
        self.forget()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def forget(self) -> None:
        self.replies: list[Reply] = []
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.connections = 0

    def connected(self) -> None:
        with self._lock:
            self.connections += 1

    def received(self, operation: str, body: dict[str, Any]) -> Reply:
        with self._lock:
            self.calls.append((operation, body))
            return self.replies[min(len(self.calls), len(self.replies)) - 1]


@pytest.fixture(scope="module")
def server() -> Iterator[Wire]:
    with Wire() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def shared(server: Wire) -> Iterator[CodePipeline]:
    shared = CodePipeline(8)
    yield shared
    shared.close()  # before the server, whose threads wait for the ends of their connections


@pytest.fixture
def wire(server: Wire, monkeypatch: pytest.MonkeyPatch) -> Wire:
    server.forget()
    monkeypatch.setenv("AWS_ENDPOINT_URL_CODEPIPELINE", server.url)
    return server


@pytest.fixture
def api(shared: CodePipeline, wire: Wire) -> CodePipeline:
    """For a test that needs no client of its own: making one takes longer than the test."""
    return shared


def answer(status: int, body: bytes, *, length: int | None = None) -> Reply:
    def reply(http: Handler) -> None:
        http.send_response(status)
        http.send_header("Content-Length", str(len(body) if length is None else length))
        http.end_headers()
        http.wfile.write(body)
        http.close_connection = length is not None

    return reply


def ok(body: object) -> Reply:
    return answer(200, json.dumps(body).encode())


def error(status: int, code: str) -> Reply:
    echo = f"token hush-token and nonce hush-nonce of {JOB} are wrong"
    return answer(status, json.dumps({"__type": code, "message": echo}).encode())


def drop(http: Handler) -> None:
    http.close_connection = True


def hang(http: Handler) -> None:
    http.server.released.wait()
    http.close_connection = True


CUT = answer(200, b'{"jobs": ["hush', length=1000)
CUT_EMPTY = answer(200, b"", length=1000)
PAGE = answer(200, b"<html>welcome</html>")
EMPTY = ok({})
FAULTS = {
    "500": (error(500, "InternalFailure"), model.Unanswered),
    "503 page": (answer(503, b"<html>busy</html>"), model.Unanswered),
    "no answer": (drop, model.Unanswered),
    "throttled": (error(400, "ThrottlingException"), model.Throttled),
    "429": (answer(429, b""), model.Throttled),
}
EACH_FAULT = pytest.mark.parametrize("fault", FAULTS)
DETAILS: dict[str, Any] = {
    "id": JOB,
    "nonce": NONCE,
    "data": {
        "__type": "stray",
        "actionConfiguration": {"__type": "stray", "configuration": {"ApiKey": "hush-value"}},
        "pipelineContext": {
            "pipelineName": "Release",
            "stage": {"name": "Prod"},
            "action": {"name": "Ship", "actionExecutionId": "e-1"},
        },
        "artifactCredentials": {
            "accessKeyId": "hush-id",
            "secretAccessKey": "hush-secret",
            "sessionToken": "hush-session",
        },
        "continuationToken": "hush-continuation",
    },
}


def acknowledge(api: CodePipeline, ref: JobRef) -> object:
    return api.acknowledge(ref, NONCE, TOKEN)


def succeed(api: CodePipeline, ref: JobRef) -> object:
    api.put(ref, SUCCESS, TOKEN)
    return None


def fail(api: CodePipeline, ref: JobRef) -> object:
    api.put(ref, Verdict(Kind.FAILURE, "m", "JobFailed"), TOKEN)
    return None


def poll(api: CodePipeline, ref: JobRef) -> object:
    return api.poll(ref.type, ref.region, 5)


def details(api: CodePipeline, ref: JobRef) -> object:
    return api.details(ref, TOKEN)


Call = Callable[[CodePipeline, JobRef], object]
ONCE = pytest.mark.parametrize("call", [acknowledge, succeed, fail])
AGAIN = pytest.mark.parametrize("call", [poll, details])


@ONCE
@REFS
@EACH_FAULT
def test_acknowledge_and_puts_are_one_attempt(
    api: CodePipeline, wire: Wire, call: Call, ref: JobRef, fault: str
) -> None:
    reply, kind = FAULTS[fault]
    wire.replies = [reply]

    with pytest.raises(model.ApiError) as failed:
        call(api, ref)

    assert type(failed.value) is kind
    assert len(wire.calls) == 1
    assert_hushed(failed.value)


@AGAIN
@REFS
@EACH_FAULT
def test_polls_and_details_are_tried_twice(
    api: CodePipeline,
    wire: Wire,
    call: Call,
    ref: JobRef,
    fault: str,
) -> None:
    reply, kind = FAULTS[fault]
    wire.replies = [reply]

    with pytest.raises(model.ApiError) as failed:
        call(api, ref)

    assert type(failed.value) is kind
    assert len(wire.calls) == 2
    assert_hushed(failed.value)


@ONCE
@REFS
def test_no_setting_of_boto3_adds_attempts_to_acknowledge_and_puts(
    fresh: CodePipeline, wire: Wire, monkeypatch: pytest.MonkeyPatch, call: Call, ref: JobRef
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "5")
    monkeypatch.setenv("AWS_RETRY_MODE", "adaptive")
    wire.replies = [drop]

    with pytest.raises(model.Unanswered):
        call(fresh, ref)

    assert len(wire.calls) == 1


@pytest.mark.parametrize("call", [acknowledge, succeed, fail, poll, details])
@pytest.mark.parametrize("reply", [CUT, CUT_EMPTY, PAGE], ids=["cut", "nothing", "page"])
@REFS
def test_a_body_cut_short_or_of_another_server_is_no_answer(
    api: CodePipeline, wire: Wire, call: Call, ref: JobRef, reply: Reply
) -> None:
    wire.replies = [reply]

    with pytest.raises(model.Unanswered) as failed:
        call(api, ref)

    assert_hushed(failed.value)


@REFS
def test_a_second_attempt_of_a_poll_counts(api: CodePipeline, wire: Wire, ref: JobRef) -> None:
    wire.replies = [drop, ok({"jobs": []})]

    assert api.poll(ref.type, REGION, 5) == []


@pytest.mark.parametrize("call", [acknowledge, succeed, poll, details])
@REFS
def test_no_answer_in_time_is_no_answer(wire: Wire, call: Call, ref: JobRef) -> None:
    wire.replies = [hang]
    api = CodePipeline(1, read_timeout=timedelta(milliseconds=50))

    with pytest.raises(model.Unanswered, match=r"^\w+: ReadTimeoutError$"):
        call(api, ref)

    api.close()
    assert len(wire.calls) == (1 if call in {acknowledge, succeed} else 2)


@pytest.mark.parametrize("call", [acknowledge, succeed, fail, poll, details])
@REFS
def test_a_closed_port_is_no_answer(
    fresh: CodePipeline, monkeypatch: pytest.MonkeyPatch, call: Call, ref: JobRef
) -> None:
    with Wire() as closed:
        port = closed.server_port
    monkeypatch.setenv("AWS_ENDPOINT_URL_CODEPIPELINE", f"http://127.0.0.1:{port}")

    with pytest.raises(model.Unanswered, match=r"^\w+: EndpointConnectionError$"):
        call(fresh, ref)


@pytest.mark.parametrize(
    "reply", [ok([]), answer(200, b"\xff\xfe"), ok("text"), ok({"jobs": "x", "jobDetails": "x"})]
)
@pytest.mark.parametrize("call", [acknowledge, poll, details])
@REFS
def test_json_of_another_form_is_no_answer(
    api: CodePipeline, wire: Wire, call: Call, ref: JobRef, reply: Reply
) -> None:
    wire.replies = [reply]

    with pytest.raises(model.Unanswered) as failed:
        call(api, ref)

    assert failed.value.__context__ is None


@pytest.mark.parametrize("status", [400, 500])
@pytest.mark.parametrize("body", [b"[]", b'{"__type": 5}', b"\xff"])
def test_an_error_that_cannot_be_read_is_no_answer(
    api: CodePipeline, wire: Wire, status: int, body: bytes
) -> None:
    wire.replies = [answer(status, body)]

    with pytest.raises(model.Unanswered):
        succeed(api, THIRD_REF)


@pytest.mark.parametrize("reply", [EMPTY, ok({"status": None}), ok({"status": 5})])
@REFS
def test_an_acknowledgement_without_a_status_may_have_been_applied(
    api: CodePipeline, wire: Wire, ref: JobRef, reply: Reply
) -> None:
    wire.replies = [reply]

    with pytest.raises(model.Unanswered, match="no status"):
        acknowledge(api, ref)


@pytest.mark.parametrize("reply", [EMPTY, ok({"jobs": None})])
@REFS
def test_a_poll_answer_without_jobs_is_malformed(
    api: CodePipeline, wire: Wire, ref: JobRef, reply: Reply
) -> None:
    wire.replies = [reply]

    with pytest.raises(model.Malformed, match="no jobs"):
        poll(api, ref)


@pytest.mark.parametrize(
    "given",
    [
        None,
        {"id": JOB, "nonce": NONCE},
        {"id": JOB, "data": None, "nonce": NONCE},
        DETAILS | {"id": CLIENT},
        DETAILS | {"data": {"actionConfiguration": {"configuration": {"ApiKey": 5}}}},
    ],
    ids=["no details", "no data", "null data", "another job", "a number"],
)
@REFS
def test_details_that_lack_what_they_must_have_are_malformed(
    api: CodePipeline, wire: Wire, ref: JobRef, given: object
) -> None:
    wire.replies = [ok({"jobDetails": given})]

    with pytest.raises(model.Malformed) as failed:
        details(api, ref)

    assert_hushed(failed.value)


@pytest.mark.parametrize("nonce", [None, "", 3])
def test_details_without_a_nonce_serve_all_that_need_none(
    api: CodePipeline, wire: Wire, nonce: object
) -> None:
    wire.replies = [ok({"jobDetails": DETAILS | {"nonce": nonce}})]

    found = details(api, THIRD_REF)

    assert isinstance(found, model.JobDetails)
    assert found.nonce is None


@REFS
def test_details_of_empty_data_are_those_of_a_job_that_asks_for_nothing(
    api: CodePipeline, wire: Wire, ref: JobRef
) -> None:
    wire.replies = [ok({"jobDetails": {"id": JOB, "nonce": NONCE, "data": {}}})]

    found = api.details(ref, TOKEN)

    assert (found.configuration, found.continuation) == ({}, None)
    assert found.pipeline == Pipeline("", "", "")


@REFS
def test_details_are_read_past_stray_members_and_hide_what_they_hold(
    api: CodePipeline, wire: Wire, ref: JobRef
) -> None:
    wire.replies = [ok({"jobDetails": DETAILS, "__type": "stray"})]

    found = api.details(ref, TOKEN)

    assert found.configuration == {"ApiKey": "hush-value"}
    assert found.continuation == "hush-continuation"
    assert found.nonce == (NONCE if ref is THIRD_REF else None)
    assert found.pipeline == Pipeline("Release", "Prod", "Ship", action_execution_id="e-1")
    assert "hush" not in repr(found)


BAD_IDS = [None, "", 5, "x" * 513, "a b", "a\nb", "a/b", "{a}", "ä"]


def test_a_malformed_job_of_a_third_party_poll_does_not_cost_the_others(
    api: CodePipeline, wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    bad = [{"jobId": it, "clientId": CLIENT} for it in BAD_IDS]
    bad += [{"jobId": JOB, "clientId": it} for it in BAD_IDS]
    good = {"jobId": "x" * 512, "clientId": CLIENT, "__type": "stray"}
    wire.replies = [ok({"jobs": [*bad, None, good]})]

    offers = api.poll(PARTNER, REGION, 50)

    assert offers == [model.Offer("x" * 512, CLIENT)]
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.WARNING, "malformed jobs skipped")
    assert vars(record)["skipped"] == len(bad) + 1


def test_a_malformed_job_of_a_custom_poll_does_not_cost_the_others(
    api: CodePipeline, wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    bad = [DETAILS | {"id": it} for it in BAD_IDS] + [DETAILS | {"nonce": it} for it in [None, 5]]
    wire.replies = [ok({"jobs": [*bad, DETAILS]})]

    offers = api.poll(CUSTOM, REGION, 50)

    assert offers == [model.Offer(JOB, None, NONCE)]
    assert "hush" not in repr(offers)
    assert "hush" not in caplog.text + repr([vars(record) for record in caplog.records])


def test_a_third_party_call_without_a_token_is_never_sent(api: CodePipeline, wire: Wire) -> None:
    with pytest.raises(model.InvalidClientToken):
        api.details(THIRD_REF, None)
    with pytest.raises(model.InvalidClientToken):
        api.acknowledge(THIRD_REF, NONCE, None)
    with pytest.raises(model.InvalidClientToken):
        api.put(THIRD_REF, SUCCESS, None)

    assert wire.calls == []


@pytest.mark.parametrize("call", [acknowledge, succeed, fail, poll, details])
@REFS
def test_missing_credentials_are_an_operators_business(
    fresh: CodePipeline, wire: Wire, monkeypatch: pytest.MonkeyPatch, call: Call, ref: JobRef
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    with pytest.raises(model.Denied, match=r"^\w+: NoCredentialsError$"):
        call(fresh, ref)

    assert wire.calls == []


@pytest.mark.parametrize("region", ["", "not a region"])
def test_a_region_that_is_none_is_an_operators_business(fresh: CodePipeline, region: str) -> None:
    with pytest.raises(model.Denied):
        fresh.poll(PARTNER, region, 1)


def test_an_endpoint_that_is_none_is_an_operators_business(
    fresh: CodePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_CODEPIPELINE", "localhost")

    with pytest.raises(model.Denied, match=r"^AcknowledgeThirdPartyJob: ValueError$"):
        acknowledge(fresh, THIRD_REF)


@REFS
def test_a_refusal_keeps_awss_text_to_itself(api: CodePipeline, wire: Wire, ref: JobRef) -> None:
    wire.replies = [error(400, "InvalidNonceException")]

    with pytest.raises(model.InvalidNonce) as failed:
        acknowledge(api, ref)

    assert_hushed(failed.value)
    assert JOB not in str(failed.value)


def test_as_many_calls_as_connections_run_at_once_on_one_client_and_keep_their_connections(
    fresh: CodePipeline, wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    together = threading.Barrier(8, timeout=30)

    def meet(http: Handler) -> None:
        together.wait()
        ok({"status": "InProgress"})(http)

    wire.replies = [meet]
    with ThreadPoolExecutor(8) as threads:  # which also find no client yet, all at once
        for _ in range(3):
            states = threads.map(lambda _: acknowledge(fresh, THIRD_REF), range(8))
            assert list(states) == ["InProgress"] * 8

    assert wire.connections == 8
    assert caplog.records == []  # urllib3 warns of a pool that is full
    assert len(fresh._clients._clients) == 1


# What a put says


@REFS
def test_a_success_says_what_the_verdict_holds(api: CodePipeline, wire: Wire, ref: JobRef) -> None:
    wire.replies = [answer(200, b"")]
    created = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
    revision = {"revision": "abc", "changeIdentifier": "c-1", "created": created.isoformat()}

    verdict = Verdict(
        Kind.SUCCESS,
        message="s" * 3000,
        external_id="x-1",
        percent=100,
        revision=revision | {"revisionSummary": None},
        variables={"Url": "https://example.com"},
    )
    api.put(ref, verdict, TOKEN)

    ((operation, body),) = wire.calls
    assert body.pop("clientToken", None) == ("hush-token" if ref is THIRD_REF else None)
    assert body.pop("outputVariables", None) == (None if ref is THIRD_REF else verdict.variables)
    assert operation == f"Put{'ThirdParty' if ref is THIRD_REF else ''}JobSuccessResult"
    assert body == {
        "jobId": JOB,
        "currentRevision": revision | {"created": created.timestamp()},
        "executionDetails": {
            "summary": "s" * 2048,
            "externalExecutionId": "x-1",
            "percentComplete": 100,
        },
    }


@REFS
def test_a_success_with_nothing_to_say_says_nothing(
    api: CodePipeline, wire: Wire, ref: JobRef
) -> None:
    wire.replies = [answer(200, b"")]

    api.put(ref, Verdict(Kind.SUCCESS, token="old"), TOKEN)  # a success has no token

    assert wire.calls[0][1].keys() <= {"jobId", "clientToken"}


@REFS
def test_a_continuation_has_its_token_and_no_variables(
    api: CodePipeline, wire: Wire, ref: JobRef
) -> None:
    wire.replies = [answer(200, b"")]

    api.put(ref, Verdict(Kind.CONTINUE, token="next", percent=0, variables={"A": "b"}), TOKEN)

    body = wire.calls[0][1]
    assert body["continuationToken"] == "next"
    assert body["executionDetails"] == {"percentComplete": 0}
    assert "outputVariables" not in body


@REFS
def test_a_continuation_without_its_token_is_never_sent_as_a_success(
    api: CodePipeline, wire: Wire, ref: JobRef
) -> None:
    with pytest.raises(model.Refused, match="ParamValidationError"):
        api.put(ref, Verdict(Kind.CONTINUE), TOKEN)

    assert wire.calls == []


def test_a_revision_of_no_time_is_refused(api: CodePipeline, wire: Wire) -> None:
    revision = {"revision": "r", "changeIdentifier": "c", "created": "yesterday"}

    with pytest.raises(model.Refused, match="ISO 8601"):
        api.put(CUSTOM_REF, Verdict(Kind.SUCCESS, revision=revision), None)

    assert wire.calls == []


@pytest.mark.parametrize(
    ("message", "sent"),
    [
        ("", "The action failed and gave no message."),
        ("m" * 6000, "m" * 5000),
        ("file \udcff.txt", "file ?.txt"),
    ],
    ids=["empty", "long", "lone surrogate"],
)
@REFS
def test_a_failure_has_a_message_that_aws_takes(
    api: CodePipeline, wire: Wire, ref: JobRef, message: str, sent: str
) -> None:
    wire.replies = [answer(200, b"")]

    api.put(ref, Verdict(Kind.FAILURE, message, "PermissionError", external_id="x-1"), TOKEN)

    assert wire.calls[0][1]["failureDetails"] == {
        "type": "PermissionError",
        "message": sent,
        "externalExecutionId": "x-1",
    }


def assert_hushed(failed: BaseException) -> None:
    assert "hush" not in f"{failed} {failed!r} {failed.args}"
    assert failed.__cause__ is None
    assert failed.__context__ is None


# Against the emulator


@dataclass(frozen=True)
class Emulator:
    url: str
    process: "subprocess.Popen[str]" = field(repr=False)

    def add(self, action_type: ActionType, **more: object) -> str:
        type_id = {
            "category": action_type.category,
            "owner": action_type.owner.value,
            "provider": action_type.provider,
            "version": action_type.version,
        }
        client = {"clientId": CLIENT, "clientToken": TOKEN.get_secret_value()}
        job = {"actionTypeId": type_id, "configuration": {"App": "shop"}} | more
        if action_type.owner is Owner.THIRD_PARTY:
            job |= client
        return str(self._ask("/_admin/jobs", json.dumps(job).encode())["jobIds"][0])

    def job(self, job_id: str) -> dict[str, Any]:
        (job,) = self._ask(f"/_admin/jobs?id={job_id}")
        assert isinstance(job, dict)
        return job

    def _ask(self, path: str, body: bytes | None = None) -> Any:
        with urllib.request.urlopen(self.url + path, body, timeout=5) as http:  # noqa: S310
            return json.load(http)


@pytest.fixture(scope="module")
def running() -> Iterator[Emulator]:
    code = (
        "from datetime import timedelta\n"
        "from dispatcher.emulator.options import Options\n"
        "from dispatcher.emulator.server import serve\n"
        "serve(port=0, options=Options(continuation_delay=timedelta(0)))"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield Emulator(process.stdout.readline().split()[-1], process)
        process.terminate()


@pytest.fixture(scope="module")
def emulated(running: Emulator) -> Iterator[CodePipeline]:
    emulated = CodePipeline(1)
    yield emulated
    emulated.close()


@pytest.fixture
def emulator(running: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    monkeypatch.setenv("AWS_ENDPOINT_URL_CODEPIPELINE", running.url)
    return running


def own_type(ref: JobRef, name: str) -> ActionType:
    return replace(ref.type, provider=name)  # the emulator is shared; its queues are by type


@REFS
def test_a_job_is_polled_acknowledged_and_succeeds(
    emulated: CodePipeline, emulator: Emulator, ref: JobRef
) -> None:
    action_type = own_type(ref, "Succeeds")
    job_id = emulator.add(action_type)

    (offer,) = emulated.poll(action_type, REGION, 10)
    ref = replace(ref, job_id=offer.job_id, type=action_type)
    found = emulated.details(ref, TOKEN)
    status = emulated.acknowledge(ref, offer.nonce or found.nonce or "", TOKEN)
    variables = {"Url": "https://example.com"}
    emulated.put(ref, Verdict(Kind.SUCCESS, "shipped", percent=100, variables=variables), TOKEN)

    assert (offer.job_id, offer.client_id) == (job_id, ref.client_id)
    assert (offer.nonce is None) == (ref.client_id is not None)
    assert (found.nonce is None) == (ref.client_id is None)
    assert found.configuration == {"App": "shop"}
    assert (found.pipeline.name, found.pipeline.stage) == ("emulated", "Stage")
    assert (found.pipeline.arn is None) == (ref.client_id is not None)
    assert found.pipeline.action_execution_id
    assert status == "InProgress"
    job = emulator.job(job_id)
    assert job["status"] == "Succeeded"
    assert job["result"]["request"]["executionDetails"]["summary"] == "shipped"


@REFS
def test_a_continuation_comes_back_as_a_new_job_with_its_token(
    emulated: CodePipeline, emulator: Emulator, ref: JobRef
) -> None:
    action_type = own_type(ref, "Continues")
    first = emulator.add(action_type)
    (offer,) = emulated.poll(action_type, REGION, 10)
    ref = replace(ref, job_id=first, type=action_type)
    emulated.acknowledge(ref, offer.nonce or emulated.details(ref, TOKEN).nonce or "", TOKEN)

    emulated.put(ref, Verdict(Kind.CONTINUE, token="step-2"), TOKEN)

    (second,) = emulated.poll(action_type, REGION, 10)
    assert second.job_id == emulator.job(first)["next"] != first
    assert emulated.details(replace(ref, job_id=second.job_id), TOKEN).continuation == "step-2"


@REFS
def test_a_failure_is_taken_at_its_longest_and_with_no_message(
    emulated: CodePipeline, emulator: Emulator, ref: JobRef
) -> None:
    action_type = own_type(ref, "Fails")
    for message in ("", "m" * 6000):
        job_id = emulator.add(action_type)
        (offer,) = emulated.poll(action_type, REGION, 10)
        one = replace(ref, job_id=job_id, type=action_type)
        emulated.acknowledge(one, offer.nonce or emulated.details(one, TOKEN).nonce or "", TOKEN)

        emulated.put(one, Verdict(Kind.FAILURE, message, "ConfigurationError"), TOKEN)

        job = emulator.job(job_id)
        assert job["status"] == "Failed"
        assert job["result"]["request"]["failureDetails"]["type"] == "ConfigurationError"


@REFS
def test_a_poll_takes_no_more_than_its_limit(
    emulated: CodePipeline, emulator: Emulator, ref: JobRef
) -> None:
    action_type = own_type(ref, "Limited")
    emulator.add(action_type, count=5)

    assert [len(emulated.poll(action_type, REGION, limit)) for limit in (3, 3, 3)] == [3, 2, 0]


@REFS
def test_each_refusal_is_told_apart(
    emulated: CodePipeline, emulator: Emulator, ref: JobRef
) -> None:
    action_type = own_type(ref, "Refuses")
    job_id = emulator.add(action_type)
    (offer,) = emulated.poll(action_type, REGION, 10)
    ref = replace(ref, job_id=job_id, type=action_type)
    nonce = offer.nonce or emulated.details(ref, TOKEN).nonce or ""

    with pytest.raises(model.InvalidJobState):
        emulated.put(ref, SUCCESS, TOKEN)
    with pytest.raises(model.InvalidNonce):
        emulated.acknowledge(ref, "stale", TOKEN)
    emulated.acknowledge(ref, nonce, TOKEN)
    with pytest.raises(model.InvalidNonce):
        emulated.acknowledge(ref, nonce, TOKEN)
    with pytest.raises(model.JobNotFound):
        emulated.details(replace(ref, job_id=JOB), TOKEN)
    with pytest.raises(model.ActionTypeNotFound):
        emulated.poll(own_type(ref, "Nowhere"), REGION, 1)
    with pytest.raises(model.Refused, match="ValidationException") as refused:
        emulated.put(ref, Verdict(Kind.SUCCESS, percent=101), TOKEN)
    assert type(refused.value) is model.Refused


def test_a_wrong_client_token_is_told_apart(emulated: CodePipeline, emulator: Emulator) -> None:
    action_type = own_type(THIRD_REF, "Tokens")
    ref = replace(THIRD_REF, job_id=emulator.add(action_type), type=action_type)

    with pytest.raises(model.InvalidClientToken) as refused:
        emulated.details(ref, Secret("hush-other"))

    assert_hushed(refused.value)


def test_a_custom_job_is_no_third_party_job(emulated: CodePipeline, emulator: Emulator) -> None:
    job_id = emulator.add(CUSTOM)

    with pytest.raises(model.Refused) as refused:
        emulated.details(replace(THIRD_REF, job_id=job_id), TOKEN)

    assert str(refused.value) == "GetThirdPartyJobDetails: InvalidJobException"


def test_a_poll_asks_for_the_values_of_its_queryable_key_in_turn(
    codepipeline_emulator: Driven,
) -> None:
    codepipeline_emulator.define("AcmeBuild", category="Build", queryable="Project")
    ids = {
        project: [
            codepipeline_emulator.submit("AcmeBuild", {"Project": project}, category="Build")
            for _ in range(3)
        ]
        for project in ("shop", "blog", "other")
    }
    api = CodePipeline(2, queries={CUSTOM: [("Project", "shop"), ("Project", "blog")]})

    polls = [{offer.job_id for offer in api.poll(CUSTOM, REGION, 2)} for _ in range(5)]

    shop, blog = set(ids["shop"]), set(ids["blog"])
    assert polls[0] < shop
    assert polls[1] < blog
    assert polls[2:] == [shop - polls[0], blog - polls[1], set()]
    api.close()


def test_the_turns_of_one_region_leave_those_of_another_alone(
    codepipeline_emulator: Driven,
) -> None:
    codepipeline_emulator.define("AcmeBuild", category="Build", queryable="Project")
    for project in ("shop", "blog") * 4:
        codepipeline_emulator.submit("AcmeBuild", {"Project": project}, category="Build")
    api = CodePipeline(2, queries={CUSTOM: [("Project", "shop"), ("Project", "blog")]})

    for _ in range(2):
        for region in ("eu-west-1", "us-east-1"):
            api.poll(CUSTOM, region, 1)

    asked = [call.request["queryParam"]["Project"] for call in codepipeline_emulator.calls()]
    assert asked == ["shop", "shop", "blog", "blog"]
    api.close()


def test_one_value_that_is_refused_costs_no_other_its_jobs(
    codepipeline_emulator: Driven,
) -> None:
    codepipeline_emulator.define("AcmeBuild", category="Build", queryable="Project")
    job = codepipeline_emulator.submit("AcmeBuild", {"Project": "blog"}, category="Build")
    codepipeline_emulator.add_fault("error", operation="PollForJobs", error="Odd")
    api = CodePipeline(2, queries={CUSTOM: [("Project", "shop"), ("Project", "blog")]})

    assert [offer.job_id for offer in api.poll(CUSTOM, REGION, 2)] == [job]
    with pytest.raises(model.Refused):
        CodePipeline(2).poll(CUSTOM, REGION, 2)
    api.close()


def answered_details(wire: Wire, **data: object) -> None:
    body = {"jobDetails": {"id": JOB, "nonce": NONCE, "data": data}}
    wire.replies = [answer(200, json.dumps(body).encode())]


def test_a_jobs_artifacts_are_read_with_their_places_and_keys(
    api: CodePipeline, wire: Wire
) -> None:
    keys = {"accessKeyId": "ASIA1", "secretAccessKey": "hush", "sessionToken": "hush-too"}
    place = {"type": "S3", "s3Location": {"bucketName": "bucket", "objectKey": "a/b"}}
    answered_details(
        wire,
        inputArtifacts=[{"name": "Source", "revision": "r1", "location": place}],
        outputArtifacts=[{"name": "App", "location": place}],
        artifactCredentials=keys,
        encryptionKey={"id": "arn:key", "type": "KMS"},
    )

    found = api.details(THIRD_REF, TOKEN).belongings

    assert found.inputs == (model.Place("Source", "bucket", "a/b", "r1"),)
    assert found.outputs == (model.Place("App", "bucket", "a/b"),)
    assert found.keys == model.SessionKeys("ASIA1", "hush", "hush-too")
    assert found.encryption_key == "arn:key"
    assert "hush" not in repr(found)
    assert "bucket" not in repr(found)


@pytest.mark.parametrize(
    "artifact",
    [
        None,
        {},
        {"name": "Source"},
        {"name": "Source", "location": None},
        {"name": "Source", "location": {"s3Location": {"bucketName": "b"}}},
        {"name": "../up", "location": {"s3Location": {"bucketName": "b", "objectKey": "k"}}},
        {"name": 7, "location": {"s3Location": {"bucketName": "b", "objectKey": "k"}}},
    ],
)
def test_an_artifact_of_another_form_costs_neither_the_job_nor_its_other_artifacts(
    api: CodePipeline, wire: Wire, artifact: object
) -> None:
    good = {"name": "Good", "location": {"s3Location": {"bucketName": "b", "objectKey": "k"}}}
    answered_details(wire, inputArtifacts=[artifact, good], outputArtifacts=[artifact])

    found = api.details(THIRD_REF, TOKEN).belongings

    assert [place.name for place in found.inputs] == ["Good"]
    assert found.outputs == ()
    assert found.keys is None
