"""A collector for OpenTelemetry's spans: OTLP over HTTP on a real socket, in a thread."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True, slots=True)
class Arrived:
    """A span as it arrived. Times in nanoseconds since 1970, ids in hexadecimal digits."""

    name: str
    kind: int
    trace_id: str
    id: str
    parent: str
    start: int
    end: int
    failed: bool
    status: str
    attributes: dict[str, Any]
    events: list[tuple[str, int, dict[str, Any]]]
    resource: dict[str, Any]


@dataclass(slots=True)
class Collector:
    """What arrived, and where to send it. `answer` is the HTTP status of the answers."""

    url: str
    answer: int = 200
    spans: list[Arrived] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url, "NO_PROXY": "127.0.0.1"}

    def named(self, start: str) -> list[Arrived]:
        return [span for span in self.spans if span.name.startswith(start)]

    def one(self, start: str) -> Arrived:
        (span,) = self.named(start)
        return span

    def children(self, parent: Arrived) -> list[Arrived]:
        found = [span for span in self.spans if span.parent == parent.id]
        return sorted(found, key=lambda span: span.start)

    def take(self, body: bytes) -> None:
        self.bodies.append(body)
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = _plain(of_resource.resource.attributes)
            for of_scope in of_resource.scope_spans:
                assert of_scope.scope.name == "r2reasoner"
                self.spans += [_arrived(span, resource) for span in of_scope.spans]


@contextmanager
def collector() -> Iterator[Collector]:
    """Run a collector."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.path == "/v1/traces" and taking.answer == 200:
                assert self.headers["content-type"] == "application/x-protobuf"
                taking.take(body)
            self.send_response(taking.answer)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    taking = Collector(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield taking
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _arrived(span: Any, resource: dict[str, Any]) -> Arrived:
    return Arrived(
        name=span.name,
        kind=span.kind,
        trace_id=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        failed=span.status.code == 2,
        status=span.status.message,
        attributes=_plain(span.attributes),
        events=[(e.name, e.time_unix_nano, _plain(e.attributes)) for e in span.events],
        resource=resource,
    )


def _plain(attributes: Any) -> dict[str, Any]:
    return {each.key: _value(each.value) for each in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind)
