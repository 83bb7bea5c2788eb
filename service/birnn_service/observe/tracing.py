"""Traces of one process: how many spans it may export, and their way out.

The event loop only puts spans into a queue. A thread makes OpenTelemetry's spans of them and sends these to the
collector, so a collector that is slow, or away, delays no call. What does not fit into the queue is dropped and
counted.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from birnn_bundle.quoting import one_line
from birnn_service.engine.cores import yield_to_event_loop
from birnn_service.observe.metrics import Metrics
from birnn_service.observe.otlp import open_collector, otlp_url
from birnn_service.observe.span_budget import SpanBudget
from birnn_service.observe.spans import FinishedSpan
from birnn_service.settings import Settings

logger = logging.getLogger(__name__)

# Why spans are dropped.
REASONS = ("rate", "queue", "export", "shutdown")
# Most spans of a call: itself, receive, tokenize, queue, compute, reply.
CALL_SPANS = 6
# Spans that are sent together. Making and encoding one takes some 30 us, in which the event loop may have to wait.
BATCH_SPANS = 64
# How long spans wait for others.
WAIT_SECONDS = 1.0


class Collector(Protocol):
    """Where spans go."""

    def send(self, spans: Sequence[FinishedSpan]) -> str:
        """Send spans, however long that takes; returns why they were not taken, empty if they were."""

    def stop(self) -> None:
        """Give up what is being sent, as far as possible."""


class Tracing:
    """Exports the spans of one process."""

    def __init__(self, collector: Collector, settings: Settings, metrics: Metrics) -> None:
        """Prepare to send spans to a collector."""
        self._collector = collector
        self._metrics = metrics
        # Each process has an equal share.
        processes = 1 + settings.frontends
        self._budget = SpanBudget(settings.trace_spans_per_second / processes, CALL_SPANS)
        # From 0 on, or `rate` would not see the first.
        for reason in REASONS:
            metrics.spans_dropped.labels(reason)
        self._most = settings.trace_queue_spans
        self._flush_seconds = settings.trace_flush_seconds
        # Used by the event loop, which adds to one end, and by the thread, which takes from the other.
        self._queue: deque[FinishedSpan] = deque()
        self._sending = 0
        self._due = threading.Event()
        self._closing = self._given_up = False
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="birnn-traces", daemon=True)
        self._loop: asyncio.AbstractEventLoop

    @classmethod
    def of(cls, settings: Settings, metrics: Metrics) -> "Tracing | None":
        """As the settings and OpenTelemetry's variables say; None where spans go nowhere.

        Raises:
            StartupError: They cannot be followed, or OpenTelemetry is not installed.
        """
        url = otlp_url(settings)
        return None if url is None else cls(open_collector(url, metrics.process), settings, metrics)

    def start(self) -> None:
        """Begin to send. From now on `close` is to follow."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def close(self) -> None:
        """Send what is left, within the bound of the settings."""
        await asyncio.to_thread(self._flush)

    def admits(self, spans: int) -> bool:
        """Whether so many more spans may be made; if not, they are counted."""
        if self._budget.take(spans):
            return True
        self._metrics.spans_dropped.labels("rate").inc(spans)
        return False

    def export(self, spans: Sequence[FinishedSpan]) -> None:
        """Send spans of one trace in a while, all of them or none."""
        if len(self._queue) + len(spans) > self._most:
            self._metrics.spans_dropped.labels("queue").inc(len(spans))
            return
        self._queue.extend(spans)
        if len(self._queue) >= BATCH_SPANS:
            self._due.set()

    def _run(self) -> None:
        yield_to_event_loop()
        while not self._closing or (self._queue and not self._given_up):
            self._due.wait(WAIT_SECONDS)
            self._due.clear()
            while self._queue and not self._given_up:
                spans = [self._queue.popleft() for _ in range(min(BATCH_SPANS, len(self._queue)))]
                self._sending = len(spans)
                self._send(spans)
                self._sending = 0

    def _send(self, spans: Sequence[FinishedSpan]) -> None:
        try:
            failure = self._collector.send(spans)
        except Exception as error:  # or no more spans would be sent
            failure = f"{type(error).__name__}: {error}"
        if not self._given_up:
            self._loop.call_soon_threadsafe(self._count, len(spans), failure)

    def _count(self, spans: int, failure: str) -> None:
        """Count the outcome of spans that were sent; on the event loop, as its counters are."""
        if not failure:
            self._metrics.spans_exported.inc(spans)
            if self._failing:
                logger.info("spans are exported again")
        else:
            self._metrics.spans_dropped.labels("export").inc(spans)
            if not self._failing:
                logger.warning(
                    "spans cannot be exported; until they can, birnn_spans_dropped_total counts them: %s",
                    one_line(failure, 500),
                )
        self._failing = bool(failure)

    def _flush(self) -> None:
        self._closing = True
        self._due.set()
        self._thread.join(self._flush_seconds)
        if self._thread.is_alive():
            self._given_up = True
            left = len(self._queue) + self._sending
            self._collector.stop()
            self._loop.call_soon_threadsafe(self._count_left, left)

    def _count_left(self, spans: int) -> None:
        self._metrics.spans_dropped.labels("shutdown").inc(spans)
        logger.warning(
            "%d spans were not exported within %g s (--trace-flush-seconds) and are lost", spans, self._flush_seconds
        )
