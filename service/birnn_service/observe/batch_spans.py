"""Spans of the batches that run, linked to the calls that they serve."""

import time

from birnn_service.observe.spans import MOST_LINKS, NANOSECONDS, FinishedSpan, SpanIds
from birnn_service.observe.tracing import Tracing
from birnn_service.queueing.request import Request
from birnn_service.queueing.run import Run


class BatchSpans:
    """An `Observer` that makes a span of each batch with a call that is traced.

    A batch serves many calls, so its span is part of none of their traces: it begins one of its own and links to them.
    """

    def __init__(self, tracing: Tracing) -> None:
        """Export what `tracing` admits."""
        self._tracing = tracing

    def shared(self, request: Request, sequences: int) -> None:
        """No batch."""

    def answered(self, request: Request, queue: float) -> None:
        """No batch."""

    def ended(self, run: Run, seconds: float, error: Exception | None) -> None:
        """Make the span of a batch, and have its calls link to it."""
        served = _served(run)
        traced = [request for request in served if request.span is not None]
        if not traced or not self._tracing.admits(1):
            return
        ids, ended = SpanIds.root(), time.time_ns()
        for request in traced:
            if len(request.batches) < MOST_LINKS:
                request.batches = (*request.batches, ids)
        encoder, version = run.lane.address
        span = FinishedSpan(
            "batch",
            ids,
            ended - round(seconds * NANOSECONDS),
            ended,
            attributes={
                "birnn.encoder": encoder,
                "birnn.version": version,
                "birnn.output": run.lane.output.value,
                "birnn.engine": run.lane.engine.info.label,
                "birnn.batch.calls": len(served),
                "birnn.batch.sequences": len(run.batch),
                "birnn.batch.tokens": run.batch.tokens,
                "birnn.batch.slots": run.slots,
                "birnn.batch.omitted_links": max(0, len(traced) - MOST_LINKS),
            },
            links=[request.span for request in traced[:MOST_LINKS] if request.span is not None],
            failure=None if error is None else type(error).__name__,
        )
        self._tracing.export([span])

    def ran(self, run: Run, seconds: float, predicted: float) -> None:
        """Its span was made when it ended."""


def _served(run: Run) -> list[Request]:
    """Calls with a row in a batch, and those that share such a row."""
    found: dict[Request, None] = {}
    for part in run.parts:
        found[part.request] = None
        if part.request.followers:
            for row in part.rows.tolist():
                found.update(dict.fromkeys(follower for follower, _ in part.request.followers.get(row, ())))
    return list(found)
