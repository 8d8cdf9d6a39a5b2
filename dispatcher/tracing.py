"""Traces, over OpenTelemetry's own instrumentations of Celery and of AWS's SDK. (Extra `otel`.)

One trace leads from a poll that brought jobs, over their messages, to their results. What has no
job is left out, and no text of an error leaves the process: it may quote a token."""

import logging
import netrc  # noqa: F401 - else imported by requests at the first export, see Exporter
import os
import threading
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from celery import current_app
from celery.signals import (
    before_task_publish,
    task_prerun,
    worker_process_shutdown,
    worker_shutdown,
)
from opentelemetry import propagate, trace
from opentelemetry.context import Context, attach
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.botocore import BotocoreInstrumentor
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.instrumentation.celery.utils import CTX_KEY
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import Event as SpanEvent
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, Status, StatusCode

from dispatcher.broker import POLL, TICK
from dispatcher.engine.model import Claim, JobRef
from dispatcher.engine.ports import About, Event, Observer

TURNS: Final = frozenset({f"run/{TICK}", f"run/{POLL}"})  # as the instrumentation names them
OURS: Final = "apply_async/dispatcher."  # messages that bring no job, but for a settle
TEXTS: Final = frozenset({"exception.message", "exception.stacktrace"})
FLUSH: Final = 1.0  # seconds at a process's end; a collector that is gone holds none back
UNSENT: Final = 16  # publish spans that may be under way
OF_SEVERAL: Final = frozenset({Event.OFFERED, Event.SWEPT})  # their span is not one job's

log = logging.getLogger("dispatcher")


def start(node: str) -> Observer:
    """Once, in a worker's parent before it forks; children go on with what stands then.

    OpenTelemetry's variables say where to, and how much. `node`: the worker's Celery name.
    """
    exporter = Exporter()
    provider = TracerProvider(resource=_resource(node), shutdown_on_exit=False)
    provider.add_span_processor(JobsOnly(BatchSpanProcessor(exporter)))
    trace.set_tracer_provider(provider)  # for spans that a handler makes
    task_prerun.connect(_begin_apart)  # before the instrumentation's: they run in order
    instrumentors: list[Any] = [CeleryInstrumentor, BotocoreInstrumentor]  # untyped
    for instrumentor in instrumentors:
        instrumentor().instrument(tracer_provider=provider)
    before_task_publish.connect(_begin_anew)  # after the instrumentation's

    def flush(**_: object) -> None:
        if exporter.failing:
            return
        last = threading.Thread(target=provider.force_flush, daemon=True)
        last.start()
        last.join(FLUSH)

    worker_process_shutdown.connect(flush, weak=False)
    worker_shutdown.connect(flush, weak=False)
    return SpanObserver()


def _resource(node: str) -> Resource:
    told = Resource.create({"codepipeline.worker": node})
    if str(told.attributes[SERVICE_NAME]).startswith("unknown_service"):
        return told.merge(Resource({SERVICE_NAME: "codepipeline-dispatcher"}))
    return told


def _begin_apart(**_: object) -> None:
    """Of a message that came twice at once the instrumentation ends only one span: the other would
    stay the thread's own for ever."""
    attach(Context())


def _begin_anew(sender: str, headers: MutableMapping[str, object], **_: object) -> None:
    """A poll begins a trace: else all that one tick asked for would be in one."""
    if sender == POLL:
        for header in propagate.get_global_textmap().fields:
            headers.pop(header, None)


class SpanObserver:
    """`Observer` that notes what happened in the span at hand, and whose job it was."""

    def saw(self, event: Event, about: About = None, **fields: object) -> None:
        if event is Event.BROKER_DOWN:
            _forget_unsent()
        span = trace.get_current_span()
        if not span.is_recording():
            return
        job, (level, _) = _job(about), event.value
        told = {
            f"codepipeline.{name}": value
            for name, value in fields.items()
            if isinstance(value, str | int | float)
        }
        error = fields.get("error")
        if error is not None:
            told["codepipeline.error"] = type(error).__name__
        span.add_event(event.name.lower(), {**job, **told})
        if event not in OF_SEVERAL:
            span.set_attributes(job)
        if level == "error":
            span.set_status(StatusCode.ERROR)


def _forget_unsent() -> None:
    """The instrumentation keeps the span of each publish that failed."""
    for task in current_app.tasks.values():
        spans = getattr(task, CTX_KEY, {})
        for key in [key for key in list(spans) if key[1]][:-UNSENT]:
            spans.pop(key, None)


def _job(about: About) -> Mapping[str, str | int]:
    match about:
        case Claim():
            return {**_job(about.ref), "codepipeline.attempt": about.attempt}
        case JobRef():
            named = {"job_id": about.job_id, "provider": about.type.provider}
            named |= {"client": about.client_id} if about.client_id else {}
            return {f"codepipeline.{name}": value for name, value in named.items()}
    return {}


@dataclass
class Turn:
    begun: list[int] = field(default_factory=list)
    ended: list[ReadableSpan] = field(default_factory=list)


class JobsOnly(SpanProcessor):
    """Keeps the spans of a tick or a poll back until it ends: they go on if jobs or an error came.

    A turn's spans all end in its own thread, so no lock is needed, which a fork could leave locked.
    """

    def __init__(self, to: SpanProcessor) -> None:
        self._to = to
        self._turns: dict[int, Turn] = {}  # by the id of each span that is open

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        del parent_context
        turn = None
        if span.name in TURNS:
            turn = Turn()
        elif span.parent and not span.parent.is_remote:
            turn = self._turns.get(span.parent.span_id)
        if turn is not None:
            turn.begun.append(_id(span))
            self._turns[_id(span)] = turn

    def on_end(self, span: ReadableSpan) -> None:
        turn = self._turns.pop(_id(span), None)
        if turn is None:
            if not _astray(span):
                self._to.on_end(span)
            return
        turn.ended.append(span)
        if span.name in TURNS:
            for open_one in turn.begun:  # a publish that failed never ends
                self._turns.pop(open_one, None)
            for one in turn.ended if any(map(_tells, turn.ended)) else ():
                self._to.on_end(one)

    def shutdown(self) -> None:
        self._to.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._to.force_flush(timeout_millis)


def _id(span: ReadableSpan) -> int:
    context = span.get_span_context()
    return context.span_id if context else trace.INVALID_SPAN_ID


def _tells(span: ReadableSpan) -> bool:
    brings = span.kind is SpanKind.PRODUCER and not span.name.startswith(OURS)
    return brings or span.status.status_code is StatusCode.ERROR


def _astray(span: ReadableSpan) -> bool:
    """A call of AWS in a thread of a transfer's: of the many parts of an artifact, nobody's."""
    return span.parent is None and (span.attributes or {}).get("rpc.system") == "aws-api"


class Exporter(SpanExporter):
    """OTLP over HTTP. A forked child makes connections of its own.

    Made, and all imported, before there is a thread: a child that is forked while another thread
    imports would wait for that module for ever.
    """

    def __init__(self) -> None:
        self._made: dict[int, SpanExporter] = {os.getpid(): OTLPSpanExporter()}
        self.failing = False
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)  # told here, once

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._own().export([_without_texts(span) for span in spans])
        failing = result is not SpanExportResult.SUCCESS
        if failing and not self.failing:
            log.warning("the collector of traces takes none: until it does, spans are lost")
        self.failing = failing
        return result

    def shutdown(self) -> None:
        self._own().shutdown()

    def _own(self) -> SpanExporter:
        pid = os.getpid()
        if pid not in self._made:
            self._made = {pid: OTLPSpanExporter()}
        return self._made[pid]


def _without_texts(span: ReadableSpan) -> ReadableSpan:
    events = [
        SpanEvent(
            event.name,
            {key: value for key, value in (event.attributes or {}).items() if key not in TEXTS},
            event.timestamp,
        )
        for event in span.events
    ]
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=span.attributes,
        events=events,
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )
