"""A Prometheus histogram that takes a whole array of observations at once."""

import time
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.samples import Exemplar

from birnn_service.observe.family import Family

TRACE_ID = "trace_id"
"""The label of an exemplar by which Grafana finds the trace."""


Bucket = tuple[str, float] | tuple[str, float, Exemplar]


@dataclass(slots=True)
class Counts:
    """What a series has counted.

    Attributes:
        buckets: Values in each bucket alone, the one without a bound last.
        total: The sum of all values.
        exemplars: By bucket: the latest value of a call that is traced, its trace, and when it was observed, in
            seconds since the epoch.
    """

    buckets: list[int]
    total: float
    exemplars: dict[int, tuple[float, str, float]]


class Series:
    """One histogram for one set of label values; written to by one thread, read by any."""

    __slots__ = ("_bounds", "_counts", "_edges", "_exemplars", "_total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._edges = np.array(self._bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._exemplars: dict[int, tuple[float, str, float]] = {}
        self._total = 0.0

    def observe(self, value: float, exemplar: str = "") -> None:
        """Count one value, of the call whose trace `exemplar` identifies; empty for one that is not traced."""
        bucket = bisect_left(self._bounds, value)
        self._counts[bucket] += 1
        self._total += value
        if exemplar:
            self._exemplars[bucket] = value, exemplar, time.time()

    def observe_all(self, values: NDArray[np.int64] | NDArray[np.float64]) -> None:
        """Count every value of an array [n], without a Python object for each."""
        if len(values) == 1:
            self.observe(values.item())
            return
        found = np.bincount(np.searchsorted(self._edges, values), minlength=len(self._counts))
        self._counts = [old + new for old, new in zip(self._counts, found.tolist(), strict=True)]
        self._total += float(values.sum())

    def add(self, counts: Counts) -> None:
        """Count what another series has counted."""
        self._counts = [old + new for old, new in zip(self._counts, counts.buckets, strict=True)]
        self._total += counts.total
        self._exemplars.update(counts.exemplars)

    def take(self) -> Counts:
        """What has been counted; from now on it counts from 0 again."""
        counts = Counts(self._counts, self._total, self._exemplars)
        self._counts, self._total, self._exemplars = [0] * len(self._counts), 0.0, {}
        return counts

    def cumulative(self, bounds: Sequence[float] | None = None) -> tuple[list[Bucket], float]:
        """Buckets as Prometheus wants them, and the sum of all values.

        Args:
            bounds: Of the buckets, some of those of this series; all by default.

        Returns:
            For each bucket its upper bound, the values at or below it, and its latest exemplar if there is one.
        """
        counts, total, exemplars = np.cumsum(self._counts).tolist(), self._total, dict(self._exemplars)
        bounds = bounds or self._bounds
        places = [*map(self._bounds.index, bounds), len(self._bounds)]
        buckets: list[Bucket] = []
        first = 0
        for name, place in zip([*map(str, bounds), "+Inf"], places, strict=True):
            within = [exemplars[one] for one in range(first, place + 1) if one in exemplars] if exemplars else []
            if within:
                value, trace, when = max(within, key=lambda exemplar: exemplar[2])
                buckets.append((name, float(counts[place]), Exemplar({TRACE_ID: trace}, value, when)))
            else:
                buckets.append((name, float(counts[place])))
            first = place + 1
        return buckets, total


class ArrayHistogram(Family[Series]):
    """A histogram that takes arrays; prometheus-client's own takes one value at a time."""

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str],
        bounds: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        """Register a histogram with buckets up to `bounds`, ascending, without infinity; see `Family`."""
        self._bounds = tuple(bounds)
        super().__init__(name, documentation, labels, registry)

    def _make(self) -> Series:
        return Series(self._bounds)

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """All series, for a scrape."""
        family = self._family()
        for values, series in self.items():
            buckets, total = series.cumulative()
            family.add_metric(values, buckets, total)
        return [family]

    def _family(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(self._name, self._documentation, labels=self.label_names)
