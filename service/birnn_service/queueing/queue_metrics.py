"""Metrics of the queue and of the batches that run."""

from collections import Counter
from collections.abc import Callable

from birnn_service.observe.metrics import Metrics
from birnn_service.queueing.dispatcher import Dispatcher
from birnn_service.queueing.lane import Lane
from birnn_service.queueing.request import Request
from birnn_service.queueing.run import Run


class QueueMetrics:
    """An `Observer` that counts calls and batches, but no health probes, except one that shares a batch with a call.

    Only the time for which slots are occupied includes probes.
    """

    def __init__(self, metrics: Metrics) -> None:
        """Count into `metrics`."""
        self._metrics = metrics

    def shared(self, request: Request, sequences: int) -> None:
        """Count sequences that need no computing."""
        if not request.is_probe:
            self._metrics.of(request.lane.address).shared_sequences.inc(sequences)

    def answered(self, request: Request, queue: float) -> None:
        """Note how long a request waited."""
        if not request.is_probe:
            self._metrics.of(request.lane.address).queue_seconds.observe(queue)

    def ended(self, run: Run, seconds: float, error: Exception | None) -> None:
        """Count the time for which slots were occupied."""
        self._metrics.of(run.lane.address).engine_busy_seconds.inc(seconds * run.slots)

    def ran(self, run: Run, seconds: float, predicted: float) -> None:
        """Note a batch's time, size and padding."""
        if run.is_probe:
            return
        metrics, batch = self._metrics.of(run.lane.address), run.batch
        cells = run.lane.cost.cells(batch.lengths)
        for part in run.parts:
            share = int(part.request.batch.lengths[part.rows].sum()) / batch.tokens
            self._metrics.tenants.charge(part.request.caller, seconds * run.slots * share)
        metrics.cost_error_ratio.observe(abs(seconds - predicted) / max(seconds, 1e-9))
        metrics.compute_seconds.observe(seconds)
        metrics.batch_sequences.observe(len(batch))
        metrics.batch_padding_ratio.observe(1 - batch.tokens / cells)
        metrics.padded_tokens.inc(cells - batch.tokens)
        metrics.sequences.inc(len(batch))
        metrics.tokens.inc(batch.tokens)


def read_queue(metrics: Metrics, dispatcher: Dispatcher, max_backlog_seconds: float) -> None:
    """Let `metrics` read what waits for a dispatcher, which lets `max_backlog_seconds` wait."""

    def each(value: Callable[[Lane], float]) -> Callable[[], Counter[tuple[str, ...]]]:
        def read() -> Counter[tuple[str, ...]]:
            sums: Counter[tuple[str, ...]] = Counter()
            for lane in list(dispatcher.lanes):
                sums[lane.address] += value(lane)  # type: ignore[assignment]
            return sums

        return read

    metrics.queue_sequences.read_by(each(lambda lane: lane.queue.sequences))
    metrics.queue_tokens.read_by(each(lambda lane: lane.queue.tokens))
    metrics.backlog_seconds.read_by(each(dispatcher.backlog_of))
    metrics.backlog_limit_seconds.read_one(lambda: max_backlog_seconds)
    metrics.engine_slots.read_one(lambda: dispatcher.slots)
