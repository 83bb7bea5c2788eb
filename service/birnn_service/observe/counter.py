"""A Prometheus counter for the event loop."""

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily

from birnn_service.observe.family import Family


class Count:
    """One counter for one set of label values."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1.0) -> None:
        """Count something."""
        self.value += amount

    def take(self) -> float:
        """What has been counted; from now on it counts from 0 again."""
        value, self.value = self.value, 0.0
        return value


class Counter(Family[Count]):
    """What only grows."""

    def _make(self) -> Count:
        return Count()

    def inc(self, amount: float = 1.0) -> None:
        """Count something, where there are no labels."""
        self._series[()].inc(amount)

    def collect(self) -> Iterable[CounterMetricFamily]:
        """All series, for a scrape."""
        family = self._family()
        for values, count in self.items():
            family.add_metric(values, count.value)
        return [family]

    def _family(self) -> CounterMetricFamily:
        return CounterMetricFamily(self._name, self._documentation, labels=self.label_names)
