"""A Prometheus histogram that takes a whole array of observations at once."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector


class Series:
    """One histogram for one set of label values; written to by one thread, read by any."""

    __slots__ = ("_bounds", "_counts", "_edges", "_total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._edges = np.array(self._bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def observe_all(self, values: NDArray[np.int64] | NDArray[np.float64]) -> None:
        """Count every value of an array [n], without a Python object for each."""
        if len(values) == 1:
            self.observe(values.item())
            return
        found = np.bincount(np.searchsorted(self._edges, values), minlength=len(self._counts))
        self._counts = [old + new for old, new in zip(self._counts, found.tolist(), strict=True)]
        self._total += float(values.sum())

    def cumulative(self) -> tuple[list[tuple[str, float]], float]:
        """Buckets as (upper bound, values at or below it), as Prometheus wants them, and the sum of all values."""
        counts, total = np.cumsum(self._counts).tolist(), self._total
        bounds = [*map(str, self._bounds), "+Inf"]
        return list(zip(bounds, map(float, counts), strict=True)), total


class ArrayHistogram(Collector):
    """A histogram of prometheus-client's shape; its own takes one value at a time, under a lock, and slowly."""

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str],
        bounds: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        """Register a histogram.

        Args:
            name: Of the metric.
            documentation: What it counts.
            labels: Names of its labels.
            bounds: Upper bounds of its buckets, ascending, without infinity.
            registry: Where it is scraped.
        """
        self._name = name
        self._documentation = documentation
        self.label_names = tuple(labels)
        self._bounds = tuple(bounds)
        self._series: dict[tuple[str, ...], Series] = {}
        registry.register(self)

    def labels(self, *values: str) -> Series:
        """The series of these label values, made when it is first asked for.

        Raises:
            ValueError: There are not as many values as labels.
        """
        series = self._series.get(values)
        if series is None:
            if len(values) != len(self.label_names):
                raise ValueError(f"{self._name} has the labels {self.label_names}, got {values}")
            series = self._series[values] = Series(self._bounds)
        return series

    def describe(self) -> Iterable[HistogramMetricFamily]:
        """The metric without samples; lets the registry refuse a second of its name."""
        return [self._family()]

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """All series, for a scrape."""
        family = self._family()
        # A copy, because a scrape runs on a thread of its own and new series may come meanwhile.
        for values, series in list(self._series.items()):
            buckets, total = series.cumulative()
            family.add_metric(values, buckets, total)
        return [family]

    def _family(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(self._name, self._documentation, labels=self.label_names)
