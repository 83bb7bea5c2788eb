"""Statistics of the batches that run."""

from birnn_service.queueing.request import Request
from birnn_service.queueing.run import Run
from birnn_service.statistics import Statistics


class BatchStatistics:
    """An `Observer` that counts batches, but none of health probes alone."""

    def __init__(self, statistics: Statistics) -> None:
        """Count into `statistics`."""
        self._statistics = statistics

    def shared(self, request: Request, sequences: int) -> None:
        """Nothing to count."""

    def answered(self, request: Request, queue: float) -> None:
        """Nothing to count: who took the call does."""

    def ended(self, run: Run, seconds: float, error: Exception | None) -> None:
        """Nothing to count."""

    def ran(self, run: Run, seconds: float, predicted: float) -> None:
        """Count a batch."""
        if not run.is_probe:
            self._statistics.count_batch(run.lane.instance, len(run.batch), seconds)
