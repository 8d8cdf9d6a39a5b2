"""An operation from its start to its end, and what the pipeline is told of it."""

import json
import logging
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from dispatcher.configuration import parse_config
from dispatcher.sdk import (
    Artifacts,
    ConfigurationError,
    Continue,
    Failure,
    InputArtifact,
    JobFailed,
    OnCrash,
    PermissionDenied,
    Pipeline,
    Retry,
    Secret,
    Succeeded,
    SystemUnavailable,
    spec_of,
)
from dispatcher.sdk.artifacts import Bench
from dispatcher.testing import MemoryStorage
from tests.workers.webhook_receiver import (
    JOB,
    KEY,
    SECRET,
    Reply,
    Request,
    Stage,
    verified,
)
from workers.webhook import Config, webhook
from workers.webhook.calls import sign


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    """The request was read, and may have been acted upon."""


RUNNING = Reply({"status": "running", "status_url": "/runs/1"})
DONE = Reply({"status": "succeeded"})
LOST = Reply(act=hang_up)


def failing(stage: Stage, token: str | None = None, **changes: Any) -> Failure:
    with pytest.raises(Failure) as caught:
        stage.run(token, **changes)
    assert caught.value.__context__ is None
    return caught.value


# From start to end


def test_an_operation_is_started_followed_and_succeeds(stage: Stage) -> None:
    stage.replies(
        Reply({"status": "running", "id": "run-7", "status_url": "/runs/7?key=1"}, status=202),
        Reply({"status": "running", "percent": 40, "summary": "Copying"}),
        Reply({"status": "succeeded", "summary": "Copied", "variables": {"Version": "1.2"}}),
    )

    first = stage.run()
    assert isinstance(first, Continue)
    second = stage.run(first.token)
    assert isinstance(second, Continue)
    third = stage.run(second.token)

    assert (first.percent, first.external_id) == (None, "run-7")
    assert (second.percent, second.summary, second.external_id) == (40, "Copying", "run-7")
    assert third == Succeeded("Copied", "run-7", variables={"Version": "1.2"})
    assert [(one.method, one.path) for one in stage.receiver.requests] == [
        ("POST", "/start"),
        ("GET", "/runs/7?key=1"),
        ("GET", "/runs/7?key=1"),
    ]


def test_an_operation_may_end_at_once(stage: Stage) -> None:
    stage.replies(Reply({"status": "succeeded", "summary": "Done", "id": "7"}, status=201))

    assert stage.run() == Succeeded("Done", "7")


def test_a_failed_operation_fails_the_action_with_its_message_and_link(stage: Stage) -> None:
    token = stage.started()
    stage.replies(
        Reply({"status": "failed", "message": "No disk", "id": "7", "url": "https://x.test/7"})
    )

    failure = failing(stage, token)

    assert isinstance(failure, JobFailed)
    assert (failure.message, failure.external_id) == ("No disk https://x.test/7", "7")


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"summary": "Half done"}, "Half done"),
        ({}, "The operation failed and gave no message."),
    ],
)
def test_a_failure_without_a_message_has_a_text_all_the_same(
    stage: Stage, told: dict[str, str], message: str
) -> None:
    stage.replies(Reply({"status": "failed"} | told))

    assert failing(stage).message == message


def test_the_receiver_is_told_of_the_job(stage: Stage) -> None:
    pipeline = Pipeline("shop", "Prod", "Migrate", "arn:aws:x", "e-1", None)
    job = stage.job(parameters='{"a": [1.5, "é"], "a b": null}', pipeline=pipeline)
    bench = Bench(MemoryStorage(), job.workdir)
    inputs = [InputArtifact("App", "abc123", bench=bench), InputArtifact("Docs", bench=bench)]

    webhook(replace(job, inputs=Artifacts("input", inputs)))

    (request,) = stage.receiver.requests
    assert request.headers["content-type"] == "application/json"
    assert request.told == {
        "job": {"id": JOB, "attempt": 1},
        "pipeline": {
            "name": "shop",
            "stage": "Prod",
            "action": "Migrate",
            "arn": "arn:aws:x",
            "execution_id": "e-1",
        },
        "parameters": {"a": [1.5, "é"], "a b": None},
        "inputs": [{"name": "App", "revision": "abc123"}, {"name": "Docs", "revision": None}],
    }


def test_without_parameters_they_are_null(stage: Stage) -> None:
    stage.run()

    assert stage.receiver.requests[0].told["parameters"] is None


def test_a_crash_does_not_send_the_start_again() -> None:
    spec = spec_of(webhook)

    assert spec is not None
    assert spec.on_crash is OnCrash.FAIL
    assert spec.type.task_name == "Custom.Invoke.Webhook.1"


# Signatures


VECTOR = {  # of the specification's own libraries
    "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
VECTOR_KEY = bytes.fromhex("31f290f6bf06298aab4f08d43c3f082cf648a362da2da4b0")


def test_signatures_are_those_of_the_specification() -> None:
    body = b'{"test": 2432232314}'

    signature = sign(VECTOR_KEY, VECTOR["webhook-id"], 1614265330, body)

    assert signature == VECTOR["webhook-signature"]
    assert verified(Request("POST", "/", VECTOR, body, None), VECTOR_KEY)


def test_a_secret_of_the_specification_is_decoded(stage: Stage) -> None:
    stage.run(signing_secret=Secret(VECTOR["secret"]))

    assert verified(stage.receiver.requests[0], VECTOR_KEY)


def test_every_request_is_signed_under_the_id_of_the_job_that_started(stage: Stage) -> None:
    token = stage.started()
    job = replace(stage.job(token), id="99999999-2222-4333-8444-555555555555")

    webhook(job)
    stage.run()

    look, start = stage.receiver.requests
    assert (look.method, look.body, start.method) == ("GET", b"", "POST")
    for request in (look, start):
        assert request.headers["webhook-id"] == JOB
        assert abs(int(request.headers["webhook-timestamp"]) - time.time()) < 60
        assert verified(request, KEY)


@pytest.mark.parametrize(
    "secret",
    [
        "whsec_",
        "whsec_c2hvcnQ=",
        "whsec_" + "A" * 88,
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2La*aSw",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw****",
        "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsec_é",
    ],
)
def test_another_secret_is_refused_and_not_shown(stage: Stage, secret: str) -> None:
    failure = failing(stage, signing_secret=Secret(secret))

    assert isinstance(failure, ConfigurationError)
    assert failure.message == "SigningSecret must be whsec_ and the base64 of 24 to 64 bytes."
    assert stage.receiver.requests == []


# Following


def test_a_configured_status_url_is_where_to_look(stage: Stage) -> None:
    status = f"https://other.test:{stage.receiver.port}/status"
    stage.replies(RUNNING, DONE)

    outcome = stage.run(status_url=status)
    assert isinstance(outcome, Continue)
    stage.run(outcome.token, status_url=status)

    start, look = stage.receiver.requests
    assert (start.path, start.sni) == ("/start", "hooks.test")
    assert (look.path, look.sni) == ("/status", "other.test")


def test_an_operation_that_nobody_can_follow_fails(stage: Stage) -> None:
    stage.replies(Reply({"status": "running"}))

    failure = failing(stage)

    assert isinstance(failure, ConfigurationError)
    assert "has no status_url, and the action no StatusUrl" in failure.message


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.test/",
        "https://other.test:{port}/",
        "https://hooks.test/",
        "http://hooks.test:{port}/",
        "https://hooks.test:{port}@evil.test/",
        "//evil.test:{port}/ ",
        "runs/7",
        "",
    ],
)
def test_an_answer_leads_to_no_other_host(stage: Stage, url: str) -> None:
    stage.replies(Reply({"status": "running", "status_url": url.format(port=stage.receiver.port)}))

    failure = failing(stage)

    assert isinstance(failure, ConfigurationError)
    assert failure.message.startswith("The status_url of the webhook's answer")
    assert len(stage.receiver.requests) == 1


def test_a_path_of_two_slashes_is_a_path(stage: Stage) -> None:
    stage.replies(Reply({"status": "running", "status_url": "//evil.test/7"}), DONE)

    stage.run(stage.started())

    assert stage.receiver.requests[0].path == "//evil.test/7"


def test_an_operation_that_takes_too_long_fails(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.replies(Reply({"status": "running", "id": "7", "status_url": "/runs/7"}))
    token = stage.started()
    start = int(token.split(" ")[2])

    monkeypatch.setattr(time, "time", lambda: start + 60)
    assert isinstance(stage.run(token, timeout_minutes=1), Continue)
    monkeypatch.setattr(time, "time", lambda: start + 60.1)
    failure = failing(stage, token, timeout_minutes=1)

    assert isinstance(failure, JobFailed)
    assert "did not end within 1 minutes (TimeoutMinutes)" in failure.message
    assert failure.external_id == "7"


def test_an_operation_that_ended_late_still_ended(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = stage.started()
    stage.replies(DONE)

    monkeypatch.setattr(time, "time", lambda: 2e9)

    assert stage.run(token) == Succeeded()


# Tries


@pytest.mark.parametrize(
    "reply",
    [LOST, Reply(status=500), Reply(status=503), Reply(status=429)],
    ids=["lost", "500", "503", "429"],
)
def test_a_look_is_tried_again(stage: Stage, reply: Reply) -> None:
    token = stage.started()
    stage.replies(reply, reply, DONE)
    job = stage.job(token)

    outcome = webhook(job)

    assert outcome == Succeeded()
    assert job.control.waits == [1.0, 2.0]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0.0),
        ("3", 3.0),
        ("86400", 10.0),
        ("9" * 400, 10.0),
        ("-1", 10.0),
        ("Wed, 21 Oct 2037 07:28:00 GMT", 10.0),
        ("\N{SUPERSCRIPT TWO}".encode().decode("latin-1"), 10.0),
    ],
)
def test_a_retry_after_is_honoured_up_to_a_limit(stage: Stage, header: str, seconds: float) -> None:
    token = stage.started()
    stage.replies(Reply(status=429, headers={"Retry-After": header}), DONE)
    job = stage.job(token)

    webhook(job)

    assert job.control.waits == [seconds]


def test_a_job_that_should_stop_hands_its_token_on(stage: Stage) -> None:
    stage.replies(Reply({"status": "running", "id": "7", "status_url": "/runs/7"}))
    token = stage.started()
    stage.replies(Reply(status=503))

    outcome = stage.run(token, stopping=True)

    assert isinstance(outcome, Continue)
    assert (outcome.token, outcome.external_id) == (token, "7")
    assert len(stage.receiver.requests) == 1


def test_a_start_that_was_not_taken_is_left_to_another_worker_at_a_stop(stage: Stage) -> None:
    stage.replies(Reply(status=429))

    with pytest.raises(Retry):
        stage.run(stopping=True)

    assert len(stage.receiver.requests) == 1


def test_a_receiver_may_be_away_for_some_looks(stage: Stage) -> None:
    stage.replies(Reply({"status": "running", "id": "7", "status_url": "/runs/7"}))
    outcome = stage.run()
    stage.replies(Reply(status=503))

    for _ in range(9):
        assert isinstance(outcome, Continue)
        outcome = stage.run(outcome.token)
    assert isinstance(outcome, Continue)
    failure = failing(stage, outcome.token)

    assert outcome.summary == "The webhook answered 503; it will be asked again."
    assert outcome.external_id == "7"
    assert isinstance(failure, SystemUnavailable)
    assert failure.message == "The webhook answered 503; the last 10 looks came to nothing."
    assert failure.external_id == "7"


def test_only_looks_in_a_row_count(stage: Stage) -> None:
    outcome = stage.run()
    stage.replies(*([Reply(status=503)] * 27), RUNNING, Reply(status=503))

    for _ in range(9):
        assert isinstance(outcome, Continue)
        outcome = stage.run(outcome.token)
    for _ in range(10):
        assert isinstance(outcome, Continue)
        outcome = stage.run(outcome.token)

    assert isinstance(outcome, Continue)


def test_an_absent_receiver_does_not_stretch_the_time(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = stage.started()
    stage.replies(Reply(status=503))

    monkeypatch.setattr(time, "time", lambda: 2e9)

    assert "did not end within 60 minutes" in failing(stage, token).message


@pytest.mark.parametrize(
    ("reply", "told"), [(LOST, "did not answer in time"), (Reply(status=502), "answered 502")]
)
def test_a_start_that_may_have_been_taken_is_not_sent_again(
    stage: Stage, reply: Reply, told: str
) -> None:
    stage.replies(reply)

    failure = failing(stage)

    assert isinstance(failure, SystemUnavailable)
    assert failure.message == f"The webhook {told}; the operation may have started."
    assert len(stage.receiver.requests) == 1


def test_a_start_that_was_put_off_is_sent_again_under_its_id(stage: Stage) -> None:
    stage.replies(Reply(status=429, headers={"Retry-After": "2"}), RUNNING)
    job = stage.job()

    outcome = webhook(job)

    first, second = stage.receiver.requests
    assert isinstance(outcome, Continue)
    assert job.control.waits == [2.0]
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == JOB
    assert first.body == second.body
    assert verified(second)


def test_a_start_that_is_put_off_too_often_fails_with_nothing_started(stage: Stage) -> None:
    stage.replies(Reply(status=429))

    failure = failing(stage)

    assert isinstance(failure, SystemUnavailable)
    assert failure.message == "The webhook answered 429; nothing was started."
    assert len(stage.receiver.requests) == 3


def test_a_receiver_that_cannot_be_reached_is_tried_at_its_other_address(stage: Stage) -> None:
    stage.names["hooks.test"] = ["127.0.0.2", "127.0.0.1"]  # the receiver listens on the second
    job = stage.job()

    outcome = webhook(job)

    assert isinstance(outcome, Continue)
    assert job.control.waits == [1.0]


@pytest.mark.parametrize(
    ("addresses", "told"), [(["127.0.0.2"], "cannot be reached"), ([], "has no address")]
)
def test_a_receiver_that_cannot_be_reached_started_nothing(
    stage: Stage, addresses: list[str], told: str
) -> None:
    stage.names["hooks.test"] = addresses
    job = stage.job()

    with pytest.raises(SystemUnavailable) as caught:
        webhook(job)

    assert caught.value.message == f"The webhook {told}; nothing was started."
    assert job.control.waits == [1.0, 2.0]


# Refusals


@pytest.mark.parametrize(
    ("status", "at_start", "at_look"),
    [
        (301, ConfigurationError, ConfigurationError),
        (400, ConfigurationError, ConfigurationError),
        (401, PermissionDenied, PermissionDenied),
        (403, PermissionDenied, PermissionDenied),
        (404, ConfigurationError, JobFailed),
        (409, JobFailed, JobFailed),
        (410, ConfigurationError, JobFailed),
        (418, JobFailed, JobFailed),
        (422, ConfigurationError, ConfigurationError),
    ],
)
def test_a_refusal_is_told_by_its_kind_and_not_repeated(
    stage: Stage, status: int, at_start: type[Failure], at_look: type[Failure]
) -> None:
    stage.replies(Reply({"status": "running", "id": "7", "status_url": "/runs/7"}))
    token = stage.started()
    stage.replies(Reply({"status": "failed", "message": "secret"}, status=status))

    start, look = failing(stage), failing(stage, token)

    assert (type(start), type(look)) == (at_start, at_look)
    assert (start.external_id, look.external_id) == (None, "7")
    for failure in (start, look):
        assert failure.message.startswith(f"The webhook answered {status}; ")
        assert "secret" not in failure.message
    assert len(stage.receiver.requests) == 2


BAD: list[tuple[object, str]] = [
    (b"", "it must be a JSON object of at most 64 KiB"),
    (b"OK", "it must be a JSON object"),
    (b"[]", "it must be a JSON object"),
    (b'"running"', "it must be a JSON object"),
    (b"null", "it must be a JSON object"),
    (b'{"status": "succeeded"', "it must be a JSON object"),
    (b'{"status": "succeeded"}{}', "it must be a JSON object"),
    (b'{"status": "succeeded", "summary": "\xff"}', "it must be a JSON object"),
    (b'{"status": "succeeded", "summary": "\\ud800"}', "it must be a JSON object"),
    (b"[" * 30_000, "it must be a JSON object"),
    (b'{"a":' * 10_000, "it must be a JSON object"),
    ({}, 'status must be "running", "succeeded" or "failed"'),
    ({"status": "done"}, "status must be"),
    ({"status": None}, "status must be"),
    ({"status": ["running"]}, "status must be"),
    ({"status": "running", "percent": 101}, "percent must be a whole number from 0 to 100"),
    ({"status": "running", "percent": -1}, "percent must be"),
    ({"status": "running", "percent": "50"}, "percent must be"),
    ({"status": "running", "percent": True}, "percent must be"),
    ({"status": "running", "percent": 0.5}, "percent must be"),
    (b'{"status": "running", "percent": NaN}', "percent must be"),
    (b'{"status": "running", "percent": ' + b"9" * 1_000 + b"}", "percent must be"),
    (b'{"status": "running", "percent": ' + b"9" * 5_000 + b"}", "it must be a JSON object"),
    ({"status": "running", "summary": 1}, "summary must be a text"),
    ({"status": "failed", "message": {"a": 1}}, "message must be a text"),
    ({"status": "running", "id": 7}, "id must be 1 to 200 ASCII characters without blanks"),
    ({"status": "running", "id": ""}, "id must be"),
    ({"status": "running", "id": "a b"}, "id must be"),
    ({"status": "running", "id": "a\n"}, "id must be"),
    ({"status": "running", "id": "é"}, "id must be"),
    ({"status": "running", "id": "a" * 201}, "id must be"),
    ({"status": "running", "url": "javascript:alert(1)"}, "url must be a link of at most 500"),
    ({"status": "running", "url": "https://"}, "url must be"),
    ({"status": "running", "url": "https://x\n"}, "url must be"),
    ({"status": "running", "url": "https://x/" + "a" * 500}, "url must be"),
    ({"status": "running", "status_url": 1}, "status_url must be a text"),
    ({"status": "succeeded", "variables": []}, "variables must be texts without control"),
    ({"status": "succeeded", "variables": {"a": 1}}, "variables must be"),
    ({"status": "succeeded", "variables": {"a": "x\0"}}, "variables must be"),
    ({"status": "succeeded", "variables": {"a b": "x"}}, "variables must be"),
    ({"status": "succeeded", "variables": {"": "x"}}, "variables must be"),
]


@pytest.mark.parametrize(("body", "told"), BAD)
def test_an_answer_that_cannot_be_used_fails_the_job(stage: Stage, body: Any, told: str) -> None:
    stage.replies(Reply({"status": "running", "id": "7", "status_url": "/runs/7"}))
    token = stage.started()
    stage.replies(Reply(body))

    start, look = failing(stage), failing(stage, token)

    assert type(start) is type(look) is JobFailed
    assert look.message.startswith(f"The webhook's answer cannot be used: {told}")
    assert start.message == f"{look.message} The operation may have started."
    assert look.external_id == "7"


def test_unknown_members_and_nulls_are_passed_over(stage: Stage) -> None:
    nothing = dict.fromkeys(["percent", "summary", "message", "id", "url", "variables"])
    stage.replies(Reply({"status": "succeeded", "more": [1], **nothing}))

    assert stage.run() == Succeeded()


def test_texts_from_outside_come_clean_and_cut(stage: Stage) -> None:
    summary = "a\r\n\x1b[31mb\x00\x7f\u202e\u2028 c" + "é" * 3_000
    stage.replies(Reply({"status": "succeeded", "summary": summary, "url": "http://x.test/7"}))

    outcome = stage.run()

    assert isinstance(outcome, Succeeded)
    assert outcome.summary.startswith("a [31mb c" + "é" * 100)
    assert outcome.summary.endswith("é… http://x.test/7")
    assert len(outcome.summary) == 1_500 + 16


# Configuration


def test_the_keys_are_what_the_page_says() -> None:
    config = parse_config(
        Config,
        {
            "Url": "https://hooks.test/?key=canary",
            "SigningSecret": SECRET,
            "StatusUrl": "https://hooks.test/canary",
            "Parameters": '"canary"',
            "TimeoutMinutes": "5",
        },
    )

    assert (config.timeout_minutes, config.parameters) == (5, '"canary"')
    assert "canary" not in repr(config)
    assert SECRET not in repr(config)


@pytest.mark.parametrize("minutes", ["0", "-1", "10081", "1.5", "x"])
def test_a_time_out_is_of_minutes_up_to_a_week(minutes: str) -> None:
    mapping = {"Url": "https://hooks.test", "SigningSecret": SECRET, "TimeoutMinutes": minutes}

    with pytest.raises(ConfigurationError, match="TimeoutMinutes must be a whole number"):
        parse_config(Config, mapping)


@pytest.mark.parametrize(
    "text", ["{", "{'a': 1}", "NaN", "[1e999]", "[" * 1_000, "\ud800", " ", "1 2"], ids=repr
)
def test_parameters_must_be_json(stage: Stage, text: str) -> None:
    failure = failing(stage, parameters=text)

    assert isinstance(failure, ConfigurationError)
    assert failure.message == "Parameters must be a JSON text."
    assert stage.receiver.requests == []


def test_a_wrong_status_url_is_told_before_anything_is_started(stage: Stage) -> None:
    failure = failing(stage, status_url="https://evil.test/")

    assert isinstance(failure, ConfigurationError)
    assert failure.message.startswith("StatusUrl names a host")
    assert stage.receiver.requests == []


def test_nothing_secret_is_shown_or_logged(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    stage.replies(
        Reply({"status": "running", "status_url": "/runs/7?key=canary-b", "id": "7"}),
        Reply(status=503),
    )
    changes = {"url": f"{stage.url}?key=canary-a", "parameters": '"canary-c"'}

    first = stage.run(**changes)
    assert isinstance(first, Continue)
    second = stage.run(first.token, **changes)
    stage.replies(Reply(status=403))
    failure = failing(stage, first.token, **changes)

    shown = " ".join([caplog.text, *map(str, [r.__dict__ for r in caplog.records])])
    shown += repr([first, second, failure, stage.job(first.token, **changes)]) + failure.message
    for secret in ("canary", SECRET[6:], first.token, json.dumps(SECRET)):
        assert secret not in shown
    for request in stage.receiver.requests:
        assert request.headers["webhook-signature"] not in shown
    assert "webhook asked" in caplog.text
