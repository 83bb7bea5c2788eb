"""What a metric is, before it counts anything: its name, kind, labels and help, as data."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, overload

from prometheus_client import CollectorRegistry, Gauge

from birnn_service.observe.counter import Counter
from birnn_service.observe.histogram import ArrayHistogram
from birnn_service.observe.read_metric import ReadMetric

Kind = Literal["counter", "gauge", "histogram"]
M = TypeVar("M")
PREFIX = "birnn_"


@dataclass(frozen=True, eq=False)
class Definition(Generic[M]):
    """A metric of a class of metrics; in their instances, the metric itself.

    Attributes:
        section: What it is about, as a heading of the documentation.
        kind: What Prometheus takes it for.
        name: Of the metric, without the suffixes of its series.
        text: What it says.
        labels: Names of its labels.
        buckets: Upper bounds of a histogram's buckets, ascending, without infinity.
        make: Makes the metric in a registry.
    """

    section: str
    kind: Kind
    name: str
    text: str
    labels: tuple[str, ...]
    make: Callable[["Definition[M]", CollectorRegistry], M]
    buckets: tuple[float, ...] = ()

    # Instances have the metric in the place of its definition.
    @overload
    def __get__(self, instance: None, owner: type) -> "Definition[M]": ...
    @overload
    def __get__(self, instance: object, owner: type) -> M: ...
    def __get__(self, instance: Any, owner: type) -> Any:
        return self

    @property
    def series(self) -> list[str]:
        """Names of its series, as queries name them."""
        if self.kind == "histogram":
            return [f"{self.name}_{suffix}" for suffix in ("bucket", "sum", "count")]
        return [f"{self.name}_total" if self.kind == "counter" else self.name]


@dataclass(frozen=True)
class Section:
    """Metrics about one thing."""

    title: str

    def counter(self, name: str, text: str, *labels: str) -> Definition[Counter]:
        """What only grows."""

        def make(one: Definition[Counter], registry: CollectorRegistry) -> Counter:
            return Counter(one.name, one.text, one.labels, registry)

        return Definition(self.title, "counter", PREFIX + name, text, labels, make)

    def gauge(self, name: str, text: str, *labels: str) -> Definition[Gauge]:
        """What is set."""

        def make(one: Definition[Gauge], registry: CollectorRegistry) -> Gauge:
            return Gauge(one.name, one.text, one.labels, registry=registry)

        return Definition(self.title, "gauge", PREFIX + name, text, labels, make)

    def read(
        self, name: str, text: str, *labels: str, kind: Literal["counter", "gauge"] = "gauge"
    ) -> Definition[ReadMetric]:
        """What is read whenever it is asked for."""

        def make(one: Definition[ReadMetric], registry: CollectorRegistry) -> ReadMetric:
            return ReadMetric(one.name, one.text, one.labels, registry, kind=kind)

        return Definition(self.title, kind, PREFIX + name, text, labels, make)

    def histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Definition[ArrayHistogram]:
        """What is distributed."""

        def make(one: Definition[ArrayHistogram], registry: CollectorRegistry) -> ArrayHistogram:
            return ArrayHistogram(one.name, one.text, one.labels, one.buckets, registry)

        return Definition(self.title, "histogram", PREFIX + name, text, labels, make, buckets)


class Defined:
    """A class of metrics: its attributes define them, its instances hold them in a registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.by_name: dict[str, Any] = {}
        """Every metric by its name."""
        for attribute, definition in definitions(type(self)).items():
            self.by_name[definition.name] = vars(self)[attribute] = definition.make(definition, registry)

    @property
    def by_address(self) -> list[Any]:
        """Those that count for a version of an encoder."""
        found = definitions(type(self)).values()
        return [self.by_name[one.name] for one in found if "version" in one.labels and one.kind != "gauge"]


def definitions(owner: type) -> dict[str, Definition[Any]]:
    """The definitions of a class of metrics, by attribute, in their order."""
    return {name: value for name, value in vars(owner).items() if isinstance(value, Definition)}
