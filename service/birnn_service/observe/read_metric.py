"""A metric that is not kept up to date, but read whenever it is asked for."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

Values = Mapping[tuple[str, ...], float]
"""Values by those of the labels."""


class ReadMetric(Collector):
    """Numbers that others keep anyway. They cost nothing until somebody asks.

    They are read by scrapes, on threads of their own, and by front-ends' reports.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str],
        registry: CollectorRegistry,
        *,
        kind: Literal["counter", "gauge"] = "gauge",
    ) -> None:
        self._name = name
        self._documentation = documentation
        self.label_names = tuple(labels)
        self._family = GaugeMetricFamily if kind == "gauge" else CounterMetricFamily
        self._reads: list[Callable[[], Values]] = []
        # Of other processes, by the number of their life, as of their last report.
        self._told: dict[int, Values] = {}
        registry.register(self)

    def read_by(self, read: Callable[[], Values]) -> None:
        """Ask `read` for values, too. It is called on any thread and must be short."""
        self._reads.append(read)

    def read_one(self, read: Callable[[], float], *labels: str) -> None:
        """Ask `read` for the one value of these labels."""
        self.read_by(lambda: {labels: read()})

    def read(self) -> dict[tuple[str, ...], float]:
        """The values of this process now."""
        return {labels: float(value) for read in self._reads for labels, value in read().items()}

    def tell(self, life: int, values: Values) -> None:
        """Take the values of another process, in the place of those that it told before."""
        self._told[life] = values

    def forget(self, life: int) -> None:
        """Another process has ended."""
        self._told.pop(life, None)

    def describe(self) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
        """The metric without values; lets the registry refuse a second of its name."""
        return [self._family(self._name, self._documentation, labels=self.label_names)]

    def collect(self) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
        """All values, for a scrape."""
        family = self._family(self._name, self._documentation, labels=self.label_names)
        for values in (self.read(), *list(self._told.values())):
            for labels, value in values.items():
                family.add_metric(labels, value)
        return [family]
