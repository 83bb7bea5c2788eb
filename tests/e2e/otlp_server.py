"""A collector of OpenTelemetry's, as far as tests need one: it takes traces as OTLP over HTTP, or behaves badly."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass
class Received:
    """A span that has arrived.

    Attributes:
        span: Itself.
        attributes: By name.
        process: Attributes of the process that sent it.
    """

    span: Span
    attributes: dict[str, object]
    process: dict[str, object]

    @property
    def trace(self) -> str:
        return self.span.trace_id.hex()

    @property
    def id(self) -> str:
        return self.span.span_id.hex()

    @property
    def parent(self) -> str:
        return self.span.parent_span_id.hex()

    @property
    def links(self) -> list[tuple[str, str]]:
        """Trace and span of each link."""
        return [(link.trace_id.hex(), link.span_id.hex()) for link in self.span.links]


@dataclass
class OtlpServer:
    """What has arrived, and how it answers.

    Attributes:
        url: Where it listens.
        status: With which it answers; it takes spans only with 200.
        open: It answers once this is set.
        asked: Set once a request has come.
    """

    url: str = ""
    status: int = 200
    open: threading.Event = field(default_factory=threading.Event)
    asked: threading.Event = field(default_factory=threading.Event)
    spans: list[Received] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            process = attributes_of(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.spans += [Received(span, attributes_of(span.attributes), process) for span in scope.spans]

    def named(self, name: str) -> list[Received]:
        """Spans of a name."""
        return [received for received in list(self.spans) if received.span.name == name]

    def children(self, parent: Received) -> list[Received]:
        """Spans within another one, in the order of their start."""
        found = [each for each in list(self.spans) if each.parent == parent.id and each.trace == parent.trace]
        return sorted(found, key=lambda each: each.span.start_time_unix_nano)


def attributes_of(pairs: Iterable[KeyValue]) -> dict[str, object]:
    return {pair.key: value_of(pair) for pair in pairs}


def value_of(pair: KeyValue) -> object:
    kind = pair.value.WhichOneof("value")
    if kind == "array_value":
        return [value.string_value for value in pair.value.array_value.values]
    return getattr(pair.value, kind) if kind else None


@contextmanager
def otlp_server(*, opened: bool = True) -> Iterator[OtlpServer]:
    """A collector on a port of its own; unless `opened`, it takes requests and does not answer."""
    collector = OtlpServer()
    if opened:
        collector.open.set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.headers = {name.lower(): value for name, value in self.headers.items()}
            collector.asked.set()
            collector.open.wait()
            if collector.status == 200:
                assert self.path == "/v1/traces"
                collector.take(body)
            self.send_response(collector.status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    # Or closing would wait for the connections that exporters keep.
    server.block_on_close = False
    collector.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield collector
    finally:
        collector.open.set()
        server.shutdown()
        server.server_close()
        thread.join()
