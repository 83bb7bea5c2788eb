"""Metrics of the queue and of the batches that run."""

from collections.abc import Sequence
from functools import partial

from birnn_service.metrics import Metrics
from birnn_service.queueing.lane import Lane
from birnn_service.queueing.request import Request
from birnn_service.queueing.run import Run


class QueueMetrics:
    """An `Observer` that counts calls and batches, but no health probes, except one that shares a batch with a call."""

    def __init__(self, metrics: Metrics, lanes: Sequence[Lane]) -> None:
        """Count into `metrics`, and let each scrape read how much waits in `lanes`."""
        self._metrics = metrics
        for encoder in {lane.encoder for lane in lanes}:
            its_lanes = [lane for lane in lanes if lane.encoder == encoder]
            metrics.queue_sequences.labels(encoder).set_function(partial(_waiting_sequences, its_lanes))
            metrics.queue_tokens.labels(encoder).set_function(partial(_waiting_tokens, its_lanes))

    def shared(self, request: Request, sequences: int) -> None:
        """Count sequences that need no computing."""
        if not request.is_probe:
            self._metrics.of(request.lane.encoder).shared_sequences.inc(sequences)

    def answered(self, request: Request, queue: float) -> None:
        """Note how long a request waited."""
        if not request.is_probe:
            self._metrics.of(request.lane.encoder).queue_seconds.observe(queue)

    def ran(self, run: Run, seconds: float, predicted: float) -> None:
        """Note a batch's time, size and padding."""
        if run.is_probe:
            return
        metrics, batch = self._metrics.of(run.lane.encoder), run.batch
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


def _waiting_sequences(lanes: Sequence[Lane]) -> float:
    return float(sum(lane.queue.sequences for lane in lanes))


def _waiting_tokens(lanes: Sequence[Lane]) -> float:
    return float(sum(lane.queue.tokens for lane in lanes))
