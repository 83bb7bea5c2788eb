"""Metrics of the queue and of the batches that run."""

from collections.abc import Iterable, Sequence
from functools import partial

from birnn_service.metrics import Metrics
from birnn_service.queueing.lane import Lane
from birnn_service.queueing.request import Request
from birnn_service.queueing.run import Run


class QueueMetrics:
    """An `Observer` that counts calls and batches, but no health probes, except one that shares a batch with a call."""

    def __init__(self, metrics: Metrics, lanes: Iterable[Lane] = ()) -> None:
        """Count into `metrics`, and let each scrape read how much waits in `lanes`."""
        self._metrics = metrics
        # By encoder; replaced as a whole, since scrapes read it on threads of their own.
        self._lanes: dict[str, tuple[Lane, ...]] = {}
        self.add(lanes)

    def add(self, lanes: Iterable[Lane]) -> None:
        """Read these lanes, too."""
        for lane in lanes:
            self._read(lane.encoder, (*self._lanes.get(lane.encoder, ()), lane))

    def remove(self, lanes: Iterable[Lane]) -> None:
        """Read these lanes no more."""
        for lane in lanes:
            self._read(lane.encoder, tuple(other for other in self._lanes.get(lane.encoder, ()) if other is not lane))

    def _read(self, encoder: str, lanes: tuple[Lane, ...]) -> None:
        self._lanes[encoder] = lanes
        gauges = {self._metrics.queue_sequences: _waiting_sequences, self._metrics.queue_tokens: _waiting_tokens}
        for gauge, waiting in gauges.items():
            if lanes:
                gauge.labels(encoder).set_function(partial(waiting, lanes))
            else:
                gauge.remove(encoder)
        if not lanes:
            del self._lanes[encoder]

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
