"""What a log line holds, and what it must not."""

import json
import logging
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from html import escape
from urllib.parse import quote, quote_plus

import pytest
from pythonjsonlogger.json import JsonFormatter

from dispatcher.engine.model import Claim, JobRef, LedgerDown, UnknownClient, action_type
from dispatcher.engine.ports import Event
from dispatcher.telemetry import LogObserver, PlainFormatter, set_up_logging, traces_wanted

REF = JobRef("job-1", "client-1", action_type("ThirdParty.Deploy.Acme.1"), "eu-west-1")
OTHER = JobRef("job-2", "client-2", REF.type, REF.region)


@pytest.fixture(autouse=True)
def _hear_all(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="dispatcher")


@pytest.fixture
def _root_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def raised(text: str) -> BaseException:
    with pytest.raises(KeyError) as caught:
        raise KeyError(text)
    return caught.value


def test_a_line_names_the_action_and_the_job(caplog: pytest.LogCaptureFixture) -> None:
    LogObserver().saw(Event.STARTED, Claim(REF, owner="w/1/2", attempt=3), run=2)

    record = caplog.records[0]
    assert (record.levelname, record.message) == ("INFO", "started")
    assert vars(record).items() >= {
        "action": "started", "job_id": "job-1", "provider": "Acme", "client": "client-1",
        "attempt": 3, "run": 2,
    }.items()  # fmt: skip
    assert "w/1/2" not in str(vars(record))


def test_an_alarm_sounds_once_a_minute_for_each_client(caplog: pytest.LogCaptureFixture) -> None:
    observer = LogObserver()

    for ref in (REF, REF, OTHER, OTHER, REF):
        observer.saw(Event.UNKNOWN_CLIENT, ref, error=UnknownClient())

    assert [vars(record)["client"] for record in caplog.records] == ["client-1", "client-2"]


def test_what_is_no_alarm_is_always_said(caplog: pytest.LogCaptureFixture) -> None:
    observer = LogObserver()

    for _ in range(3):
        observer.saw(Event.LOST, REF)

    assert len(caplog.records) == 3


def test_an_error_of_a_port_is_shown_by_its_name_and_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    LogObserver().saw(Event.LEDGER_DOWN, error=LedgerDown("TimeoutError"))

    assert vars(caplog.records[0])["error"] == "LedgerDown: TimeoutError"


@pytest.mark.parametrize(
    "secret", ["plain-canary", "with \"quotes' and \\", "of two\nlines", "a/b c"]
)
def test_a_bugs_traceback_is_logged_with_the_jobs_values_blotted_out(
    caplog: pytest.LogCaptureFixture, secret: str
) -> None:
    error = raised(f"url?key={secret}")

    LogObserver().saw(Event.BUG, REF, reference="abc", error=error, secrets=(None, "", secret))

    told = str(vars(caplog.records[0])["traceback"])
    assert "KeyError" in told
    assert "test_telemetry.py" in told
    assert secret not in told
    assert repr(secret)[1:-1] not in told
    assert "secrets" not in vars(caplog.records[0])


@pytest.mark.parametrize(
    "quoted",
    [
        quote_plus,
        lambda secret: quote(secret, safe=""),
        lambda secret: repr(secret.encode()),
        ascii,
        escape,
        lambda secret: json.dumps(secret, ensure_ascii=False),
        lambda secret: b64encode(secret.encode()).decode(),
    ],
)
def test_a_secret_is_blotted_out_in_whatever_form_an_error_quotes_it(
    caplog: pytest.LogCaptureFixture, quoted: Callable[[str], str]
) -> None:
    secret = 'wJalr/K7+bPx<é"=='

    LogObserver().saw(Event.BUG, REF, error=raised(f"get {quoted(secret)}!"), secrets=(secret,))

    told = str(vars(caplog.records[0])["traceback"])
    assert "***" in told
    assert quoted(secret).removeprefix("b").strip("'\"") not in told


def test_a_traceback_has_an_end_and_no_secret_is_cut_in_two(
    caplog: pytest.LogCaptureFixture,
) -> None:
    secret = "canary-" * 50

    LogObserver().saw(Event.BUG, REF, error=raised(secret * 2000), secrets=(secret,))

    told = str(vars(caplog.records[0])["traceback"])
    assert len(told) < 40_000
    assert "canary" not in told


@pytest.mark.usefixtures("_root_as_it_was")
def test_lines_are_json_where_no_terminal_reads_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up_logging("WARNING")
    formatter = logging.getLogger().handlers[0].formatter
    assert isinstance(formatter, JsonFormatter)

    LogObserver().saw(Event.STARTED, REF)

    line = json.loads(capsys.readouterr().err)
    assert (line["message"], line["job_id"]) == ("started", "job-1")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    set_up_logging()
    assert isinstance(logging.getLogger().handlers[0].formatter, PlainFormatter)


def test_a_line_for_a_terminal_ends_with_its_fields() -> None:
    record = logging.makeLogRecord({"msg": "started", "job_id": "job-1", "client": None})

    assert PlainFormatter("%(message)s").format(record) == "started job_id=job-1"


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "acme"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "TRUE"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "false"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_traces_are_asked_for_by_opentelemetrys_own_variables(
    environ: dict[str, str], wanted: bool
) -> None:
    assert traces_wanted(environ) is wanted
