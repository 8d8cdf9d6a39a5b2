"""A collector of OpenTelemetry's, over HTTP: what the processes of a test sent it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Span:
    name: str
    trace: bytes
    id: bytes
    parent: bytes
    attributes: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]]
    resource: dict[str, Any]
    failed: bool


@dataclass
class Collector:
    url: str
    bodies: list[bytes] = field(default_factory=list)

    def spans(self) -> list[Span]:
        return [
            _span(one, _values(part.resource.attributes))
            for body in list(self.bodies)
            for part in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in part.scope_spans
            for one in scope.spans
        ]

    def trace(self, job_id: str) -> list[Span]:
        """Every span of the traces that say this job's id."""
        spans = self.spans()
        ids = {one.trace for one in spans if one.attributes.get("codepipeline.job_id") == job_id}
        return [one for one in spans if one.trace in ids]


def _span(one: Any, resource: dict[str, Any]) -> Span:
    events = [(event.name, _values(event.attributes)) for event in one.events]
    return Span(
        one.name,
        one.trace_id,
        one.span_id,
        one.parent_span_id,
        _values(one.attributes),
        events,
        resource,
        one.status.code == one.status.STATUS_CODE_ERROR,
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


@contextmanager
def collecting() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            made.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made = Collector(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield made
        server.shutdown()
        thread.join()
