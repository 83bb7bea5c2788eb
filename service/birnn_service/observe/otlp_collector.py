"""Spans as OpenTelemetry has them, on their way to a collector: OTLP over HTTP."""

import logging
import os
from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from birnn_service.observe.spans import FinishedSpan, SpanIds
from birnn_service.server_version import server_version

KINDS = {"server": SpanKind.SERVER, "internal": SpanKind.INTERNAL}
SAMPLED = TraceFlags(TraceFlags.SAMPLED)


class OtlpCollector:
    """A collector at a URL. Used by one thread, but for `stop`.

    How long a request may take, headers, certificates and compression are the exporter's business, by its variables
    OTEL_EXPORTER_OTLP_*. It warns of values that it does not know, and repeats requests that may succeed later.
    """

    def __init__(self, url: str, process: str) -> None:
        """Send the spans of a process to a URL.

        Raises:
            ValueError, OSError, RuntimeError: The exporter's variables cannot be used.
        """
        self._exporter = OTLPSpanExporter(endpoint=url)
        self._reason = _LastMessage()
        library = logging.getLogger("opentelemetry")
        # It writes lines for every attempt; one for the first that fails is enough.
        library.addHandler(self._reason)
        library.propagate = False
        self._made = _Made()
        self._ids = _GivenIds()
        provider = TracerProvider(
            sampler=ALWAYS_ON, resource=_resource(process), shutdown_on_exit=False, id_generator=self._ids
        )
        provider.add_span_processor(self._made)
        self._tracer = provider.get_tracer("birnn_service", server_version())

    def send(self, spans: Sequence[FinishedSpan]) -> str:
        """See `birnn_service.observe.tracing.Collector`."""
        for span in spans:
            self._make(span)
        if self._exporter.export(self._made.take()) is SpanExportResult.SUCCESS:
            return ""
        return self._reason.text or "the collector did not take them"

    def stop(self) -> None:
        """See `birnn_service.observe.tracing.Collector`."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def _make(self, span: FinishedSpan) -> None:
        self._ids.ids = span.ids
        context = Context()
        if span.parent is not None:
            state = TraceState.from_header([span.state]) if span.state else None
            parent = SpanContext(*span.parent, is_remote=span.remote, trace_flags=SAMPLED, trace_state=state)
            context = set_span_in_context(NonRecordingSpan(parent), context)
        links = [Link(SpanContext(*linked, is_remote=True, trace_flags=SAMPLED)) for linked in span.links]
        made = self._tracer.start_span(
            span.name, context, KINDS[span.kind], span.attributes, links, start_time=span.started
        )
        if span.failure is not None:
            made.set_status(Status(StatusCode.ERROR, span.failure))
        made.end(span.ended)


class _GivenIds(IdGenerator):
    """Gives the next span the ids that it has had since it began, when others were told of them."""

    ids: SpanIds

    def generate_span_id(self) -> int:
        return self.ids.span

    def generate_trace_id(self) -> int:
        return self.ids.trace


class _Made(SpanProcessor):
    """Keeps spans until they are taken."""

    def __init__(self) -> None:
        self._spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self._spans.append(span)

    def take(self) -> list[ReadableSpan]:
        spans, self._spans = self._spans, []
        return spans


class _LastMessage(logging.Handler):
    """Keeps the last line of the library's log: the reason why something failed."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage()


def _resource(process: str) -> Resource:
    """What is said of this process. What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say goes first."""
    said = OTELResourceDetector().detect().attributes
    ours: dict[str, str | int] = {
        "service.name": "birnn-serving",
        "service.version": server_version(),
        "process.pid": os.getpid(),
        "birnn.process": process,
    }
    return Resource.create({name: value for name, value in ours.items() if name not in said})
