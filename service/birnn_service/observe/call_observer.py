"""What operators see of a single call: its spans, and its line in the access log. Both are made once it has ended."""

import logging
import random
import time
from collections.abc import Mapping, Sequence

from birnn_bundle.quoting import one_line
from birnn_service.call import Arrived, Call
from birnn_service.catalog import address_of
from birnn_service.errors import Code, ServiceError
from birnn_service.observe.access_log import log_access
from birnn_service.observe.notes import Notes
from birnn_service.observe.spans import NANOSECONDS, Attribute, FinishedSpan, SpanIds
from birnn_service.observe.traceparent import read_traceparent
from birnn_service.observe.tracing import CALL_SPANS, Tracing
from birnn_service.protocols.http_errors import status_of
from birnn_service.protocols.rpc_methods import rpc_methods
from birnn_service.settings import Settings
from birnn_service.tenants import tenant_of

logger = logging.getLogger(__name__)

TRACESTATE = "tracestate"
# A longer `tracestate` is left out, as the standard allows.
MOST_STATE = 512
# Of an id that a caller chose.
MOST_CHARACTERS = 200
# Codes of gRPC by which the server has failed, and not its caller, as OpenTelemetry has it.
FAILURES = frozenset((Code.UNKNOWN, Code.DEADLINE_EXCEEDED, Code.INTERNAL, Code.UNAVAILABLE))
# Refused before anything is noted, so that callers without credentials cannot use up the rate of spans.
REFUSALS = frozenset((Code.UNAUTHENTICATED, Code.PERMISSION_DENIED))


class CallObserver:
    """Notes what is sampled of calls."""

    def __init__(self, settings: Settings, tracing: Tracing | None) -> None:
        """Observe by the settings; without `tracing` there are no spans."""
        self._tracing = tracing
        self._trace_ratio = settings.trace_ratio
        self._content_bytes = settings.trace_content_bytes if tracing is not None else 0
        self._log_ratio = settings.access_log
        self._scheme = "http" if settings.tls_cert is None else "https"
        self._rpc_methods: Mapping[str, str] = rpc_methods()

    @classmethod
    def of(cls, settings: Settings, tracing: Tracing | None) -> "CallObserver | None":
        """As the settings say; None where nothing is sampled."""
        return cls(settings, tracing) if tracing is not None or settings.access_log else None

    def begin(self, incoming: Arrived) -> Notes | None:
        """Whether to note what becomes of a call: what to note it in, or None."""
        notes = None if self._tracing is None else self._traced(self._tracing, incoming)
        if self._is_logged():
            notes = notes or Notes()
            notes.logged = True
        return notes

    def end(self, method: str, incoming: Arrived, call: Call, code: Code, error: ServiceError | None) -> None:
        """A call has ended with a code, and with an error if it failed by one."""
        try:
            self._end(method, incoming, call, code, error)
        except Exception as fault:  # must not become the caller's
            logger.error("%s could not be traced or logged", method, exc_info=fault)

    def _end(self, method: str, incoming: Arrived, call: Call, code: Code, error: ServiceError | None) -> None:
        notes = call.notes
        if notes is None:
            if code not in REFUSALS or not self._is_logged():
                return
            notes = Notes(logged=True)
        ended = time.perf_counter()
        if notes.logged:
            log_access(method, incoming, call, notes, code, ended - call.started)
        if notes.ids is not None and self._tracing is not None:
            self._tracing.export(self._spans(method, incoming, call, notes, notes.ids, code, error, ended))

    def _traced(self, tracing: Tracing, incoming: Arrived) -> Notes | None:
        """The caller decides whether its trace is recorded, and chance where it has none; the budget bounds both."""
        header = incoming.traceparent
        found = read_traceparent(header) if header else None
        if not (found.sampled if found is not None else random.random() < self._trace_ratio):
            return None
        if not tracing.admits(CALL_SPANS):
            return None
        if found is None:
            return Notes(SpanIds.root(), content_bytes=self._content_bytes)
        parent = SpanIds(int(found.trace, 16), int(found.span, 16))
        state = incoming.header(TRACESTATE)
        return Notes(
            parent.child(), parent, state if len(state) <= MOST_STATE else "", content_bytes=self._content_bytes
        )

    def _is_logged(self) -> bool:
        return self._log_ratio > 0 and random.random() < self._log_ratio

    def _spans(
        self,
        method: str,
        incoming: Arrived,
        call: Call,
        notes: Notes,
        ids: SpanIds,
        code: Code,
        error: ServiceError | None,
        ended: float,
    ) -> list[FinishedSpan]:
        """The span of a call, and those of its stages."""
        # What both clocks say now, in nanoseconds.
        offset = time.time_ns() - round(time.perf_counter() * NANOSECONDS)
        name, attributes, failure = self._described(method, incoming, call, notes, code, error)

        def stage(name: str, start: float, end: float, links: Sequence[SpanIds] = ()) -> FinishedSpan:
            """One that has no end yet, 0, ended as the call did."""
            times = (offset + round(start * NANOSECONDS), offset + round((end or ended) * NANOSECONDS))
            ended_so = None if end else failure
            return FinishedSpan(name, ids.child(), *times, ids, state=notes.state, links=links, failure=ended_so)

        stages = [stage("receive", call.started, notes.received)]
        if notes.tokenizing:
            stages.append(stage("tokenize", notes.tokenizing, notes.tokenized))
        if (spent := call.spent) is not None:
            dequeued, encoded = notes.tokenized + spent.queue, call.started + spent.until
            # Encodings that were all in the cache waited for nothing.
            if spent.compute:
                stages.append(stage("queue", notes.tokenized, dequeued))
                # Of several batches the longest may have begun before the last one did.
                stages.append(stage("compute", dequeued, min(dequeued + spent.compute, encoded), notes.batches))
            stages.append(stage("reply", encoded, 0.0))
        elif notes.tokenized:
            # Where it got to, between the queue and the engine, is not known.
            stages.append(stage("encode", notes.tokenized, 0.0))
        whole = FinishedSpan(
            name,
            ids,
            offset + round(call.started * NANOSECONDS),
            offset + round(ended * NANOSECONDS),
            notes.parent,
            notes.parent is not None,
            notes.state,
            "server",
            attributes,
            failure=failure,
        )
        return [whole, *stages]

    def _described(
        self, method: str, incoming: Arrived, call: Call, notes: Notes, code: Code, error: ServiceError | None
    ) -> tuple[str, dict[str, Attribute], str | None]:
        """Name, attributes and failure of a call's span, by OpenTelemetry's conventions for RPC and HTTP."""
        attributes: dict[str, Attribute]
        if incoming.path:
            verb, _, route = method.partition(" ")
            status = 200 if code is Code.OK else status_of(error) if error is not None else None
            name, failed, kind = method, status is not None and status >= 500, str(status)
            attributes = {
                "http.request.method": verb,
                "http.route": route,
                "url.path": one_line(incoming.path, MOST_CHARACTERS),
                "url.scheme": self._scheme,
            }
            if status is not None:
                attributes["http.response.status_code"] = status
        else:
            name, failed, kind = self._rpc_methods.get(method, method), code in FAILURES, code.name
            attributes = {"rpc.system.name": "grpc", "rpc.method": name, "rpc.response.status_code": code.name}
        if failed:
            attributes["error.type"] = kind
        if tenant := tenant_of(call.caller):
            attributes["enduser.id"] = tenant
        else:
            # Without what kind of address it is.
            attributes["client.address"] = call.caller.partition(":")[2] or call.caller
        if call.encoder is not None:
            attributes["birnn.encoder"], attributes["birnn.version"] = address_of(call.encoder)
        if notes.tokenizing:
            attributes |= {"birnn.sequences": notes.sequences, "birnn.tokens": notes.tokens}
        if notes.content:
            attributes["birnn.content"] = notes.content
        if incoming.request_id:
            attributes["birnn.request_id"] = one_line(incoming.request_id, MOST_CHARACTERS)
        # The messages of these errors are about the server, and quote nothing of a request.
        return name, attributes, (error.message if error is not None else code.name) if failed else None
