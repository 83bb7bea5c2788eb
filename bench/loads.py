"""Loads, and what is measured under them."""

import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Load:
    """Callers that each wait for their reply before they call again.

    Attributes:
        name: Short, for files and options.
        batch: Sequences a call.
        in_flight: Callers.
    """

    name: str
    batch: int
    in_flight: int

    def __str__(self) -> str:
        sequences = "sequence" if self.batch == 1 else "sequences"
        return f"{self.batch} {sequences} a call, {self.in_flight} in flight"


LOADS = {load.name: load for load in (Load("bulk", 32, 8), Load("many", 1, 64), Load("lone", 1, 1))}


@dataclass(frozen=True, slots=True)
class Sample:
    """What one run of a load generator saw. Times are in seconds, rates per second.

    Attributes:
        calls: Calls that both began and ended in the measured time.
        seconds: That time.
        calls_per_second: Throughput.
        sequences_per_second: Throughput in sequences.
        p50, p99: Percentiles of the latency of these calls; values that occurred.
        begin: When that time began, in seconds since the epoch; 0 if it is unknown.
    """

    calls: int
    seconds: float
    calls_per_second: float
    sequences_per_second: float
    p50: float
    p99: float
    begin: float = 0.0

    @classmethod
    def of(cls, calls: NDArray[np.float64], batch: int, begin: float, end: float) -> "Sample":
        """Figures of the calls [n, 2] (sent, answered, since the epoch) of `batch` sequences within begin..end.

        The throughput counts answers; the latency that of calls which were also sent within, so that both ends of the
        measured time are alike.

        Raises:
            ValueError: No call lies within.
        """
        sent, answered = calls.T
        latency = (answered - sent)[(sent >= begin) & (answered <= end)]
        if not len(latency):
            raise ValueError(f"no call began and ended within the {end - begin:.2f} seconds measured; measure longer")
        rate = int(((answered >= begin) & (answered <= end)).sum()) / (end - begin)
        p50, p99 = np.percentile(latency, [50, 99], method="inverted_cdf").tolist()
        return cls(len(latency), end - begin, rate, rate * batch, p50, p99, begin)

    @classmethod
    def from_json(cls, text: str) -> "Sample":
        """Read what `dataclasses.asdict` and `json.dumps` wrote."""
        return cls(**json.loads(text))
