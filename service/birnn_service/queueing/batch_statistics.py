"""Statistics of the batches that run."""

from collections.abc import Mapping

from birnn_service.queueing.lane import Lane
from birnn_service.queueing.request import Request
from birnn_service.queueing.run import Run
from birnn_service.state import Address
from birnn_service.statistics import Statistics


class BatchStatistics:
    """An `Observer` that counts batches, but none of health probes alone."""

    def __init__(self, statistics: Statistics, addresses: Mapping[Lane, Address]) -> None:
        """Count into `statistics`; `addresses` says whose each lane is."""
        self._statistics = statistics
        self._addresses = addresses

    def shared(self, request: Request, sequences: int) -> None:
        """Nothing to count."""

    def answered(self, request: Request, queue: float) -> None:
        """Nothing to count: who took the call does."""

    def ran(self, run: Run, seconds: float, predicted: float) -> None:
        """Count a batch."""
        if not run.is_probe:
            self._statistics.count_batch(self._addresses[run.lane], len(run.batch), seconds)
