"""What happened, as log lines: the Observer of this product, and how its processes log.

Only errors of ours are shown by their text, which quotes nothing; of all others the traceback goes
to the log with the job's values blotted out."""

import json
import logging
import sys
import threading
import time
import traceback
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Collection, Iterator, Mapping
from html import escape
from urllib.parse import quote, quote_plus

from pythonjsonlogger.json import JsonFormatter

from dispatcher.engine.model import Claim, JobRef, PortError
from dispatcher.engine.ports import About, Event, Observer

ALARM_EVERY = 60.0  # seconds between two lines of one alarm
LONGEST = 32_000  # characters of a traceback
SHORTEST_SECRET = 4  # characters; a shorter text is too common to be blotted out
ALARMS = frozenset({
    Event.UNKNOWN_CLIENT, Event.TOKENS_DOWN, Event.TYPE_UNKNOWN, Event.LEDGER_DOWN,
    Event.NO_WORKERS, Event.DAMAGED,
    Event.BROKER_DOWN, Event.POLL_FAILED, Event.POLL_THROTTLED, Event.NO_ACTION,
})  # fmt: skip

# Celery's own line for each task says nothing that ours do not; beat's is one a tick.
CHATTY = ("celery.worker.strategy", "celery.app.trace", "celery.beat", "botocore", "s3transfer")
# Their warnings name hosts: S3's may begin with a customer's bucket; and each retry is one.
SILENT = ("urllib3", "opentelemetry")

log = logging.getLogger("dispatcher")


class LogObserver:
    """`Observer` that logs: one constant message an event, and fields."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said: dict[tuple[object, ...], float] = {}

    def saw(self, event: Event, about: About = None, **fields: object) -> None:
        level, message = event.value
        if not log.isEnabledFor(logging.getLevelName(level.upper())):
            return
        job = _of(about)
        if event in ALARMS and not self._may_say(
            event, job.get("client"), fields.get("action_type", fields.get("key"))
        ):
            return
        secrets = fields.pop("secrets", ())
        error = fields.pop("error", None)
        fields = {"action": event.name.lower(), **job, **fields}
        if isinstance(error, PortError):
            fields["error"] = f"{type(error).__name__}: {error}"
        elif isinstance(error, BaseException):
            fields["traceback"] = _blotted(
                error, secrets if isinstance(secrets, Collection) else ()
            )
        log.log(logging.getLevelName(level.upper()), message, extra=fields)

    def _may_say(self, event: Event, client: object, about: object) -> bool:
        """Once a minute for each client, action type or key."""
        key = (event, client, about)
        now = time.monotonic()
        with self._lock:
            if now - self._said.get(key, -ALARM_EVERY) < ALARM_EVERY:
                return False
            self._said = {k: t for k, t in self._said.items() if now - t < ALARM_EVERY}
            self._said[key] = now
            return True


class Observers:
    """`Observer` that tells several."""

    def __init__(self, *told: Observer) -> None:
        self._told = told

    def saw(self, event: Event, about: About = None, **fields: object) -> None:
        for one in self._told:
            one.saw(event, about, **fields)


def _of(about: About) -> dict[str, object]:
    """A job's fields; its `attempt`, which counts deliveries, is known once one has begun."""
    match about:
        case Claim():
            return {**_of(about.ref), "attempt": about.attempt}
        case JobRef():
            return {
                "job_id": about.job_id,
                "provider": about.type.provider,
                "client": about.client_id,
            }
    return {}


def _blotted(error: BaseException, secrets: Collection[object]) -> str:
    found = {str(one) for one in secrets if one and len(str(one)) >= SHORTEST_SECRET}
    forms = {again for one in found for form in _forms(one) for again in (form, repr(form)[1:-1])}
    whole = "".join(traceback.format_exception(error))
    text = whole[: 10 * LONGEST]
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, "***")
    if len(whole) > 10 * LONGEST:  # what was cut in two was not found
        text = text[: -max(map(len, forms), default=1)]
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}... and more"


def _forms(secret: str) -> Iterator[str]:
    """As texts quote it: a literal, JSON, a URL, a form, HTML, base64 of nothing else."""
    raw = secret.encode("utf-8", "surrogatepass")
    yield from (secret, repr(secret)[1:-1], ascii(secret)[1:-1], repr(raw)[2:-1], escape(secret))
    yield from (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1])
    yield from (quote(raw), quote(raw, safe=""), quote_plus(raw))
    yield from (b64encode(raw).decode(), urlsafe_b64encode(raw).decode().rstrip("="))


class PlainFormatter(logging.Formatter):
    """For a terminal: the message, then its fields."""

    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{k}={v}" for k, v in _extra(record).items() if v is not None)
        return f"{super().format(record)} {fields}".rstrip()


_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {k: v for k, v in vars(record).items() if k not in _STANDARD and k != "data"}


def _plain() -> logging.Formatter:
    return PlainFormatter("%(asctime)s %(levelname)s %(name)s %(message)s")


def _json() -> logging.Formatter:
    names = {"levelname": "level", "name": "logger"}
    layout = "%(levelname)s %(name)s %(message)s"
    return JsonFormatter(layout, timestamp=True, rename_fields=names)


def traces_wanted(environ: Mapping[str, str]) -> bool:
    """By OpenTelemetry's own variables: a place to send them to, and no word against it."""
    sends = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or environ.get(
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
    )
    off = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return bool(sends) and not off and environ.get("OTEL_TRACES_EXPORTER", "otlp") != "none"


def set_up_logging(level: int | str = logging.INFO) -> None:
    """JSON lines to stderr; plain ones where it is a terminal."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_plain() if sys.stderr.isatty() else _json())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    log.setLevel(logging.INFO)  # one line a transition, also where Celery's own are not wanted
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in SILENT:
        logging.getLogger(name).setLevel(logging.ERROR)
