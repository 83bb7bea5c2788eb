"""One scrape for all processes: what front-ends have counted is added to what the engine process has."""

import json
import threading
from collections.abc import Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector

from birnn_service.tenants import TenantLabels

PREFIX = "birnn_"
SUMMED = ("counter", "histogram")
# One series: name of its metric and of itself, and its labels.
Key = tuple[str, str, tuple[tuple[str, str], ...]]


def write_counts(registry: CollectorRegistry) -> bytes:
    """Counters and histograms of a front-end, as JSON; the gauges are the engine process's business."""
    return json.dumps(
        [
            [family.name, sample.name, list(sample.labels.items()), sample.value]
            for family in registry.collect()
            if family.name.startswith(PREFIX) and family.type in SUMMED
            for sample in family.samples
        ]
    ).encode()


class MergedMetrics(Collector):
    """The registry of the engine process and the counts of all front-ends, those that have ended included.

    Counts are kept per life of a front-end, so that no sum falls when one ends.
    """

    def __init__(self, registry: CollectorRegistry, tenants: TenantLabels | None = None) -> None:
        """Merge into the metrics of `registry`, with no more tenants than `tenants` tells apart."""
        self._registry = registry
        self._tenants = tenants or TenantLabels()
        # Scrapes run on threads of their own.
        self._lock = threading.Lock()
        self._latest: dict[int, bytes] = {}
        self._ended: dict[Key, float] = {}

    def update(self, life: int, counts: bytes) -> None:
        """Take what a front-end has counted so far; see `write_counts`."""
        with self._lock:
            self._latest[life] = counts

    def end(self, life: int) -> None:
        """Keep the last counts of a front-end that has ended."""
        with self._lock:
            counts = self._latest.pop(life, None)
            if counts is not None:
                _add(self._ended, counts)

    def describe(self) -> Iterable[Metric]:
        """Nothing: the engine process's registry has seen to it that names are unique."""
        return []

    def collect(self) -> Iterable[Metric]:
        """All metrics, for a scrape."""
        totals = self._totals()
        families = list(self._registry.collect())
        for family in families:
            samples = totals.pop(family.name, {})
            for position, sample in enumerate(family.samples):
                added = samples.pop((sample.name, tuple(sorted(sample.labels.items()))), None)
                if added is not None:
                    family.samples[position] = sample._replace(value=sample.value + added)
            for (name, labels), value in samples.items():
                family.add_sample(name, dict(labels), value)
        return families

    def _totals(self) -> dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]]:
        """Sums over all front-ends, by family."""
        with self._lock:
            sums, latest = dict(self._ended), list(self._latest.values())
        for counts in latest:
            _add(sums, counts)
        families: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
        for (family, name, labels), value in sums.items():
            series = (name, self._bounded(labels))
            samples = families.setdefault(family, {})
            samples[series] = samples.get(series, 0.0) + value
        return families

    def _bounded(self, labels: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        """The labels of a series, with one tenant more only where there is room: each front-end knows others."""
        return tuple((label, self._tenants.of(text) if label == "tenant" else text) for label, text in labels)


def _add(sums: dict[Key, float], counts: bytes) -> None:
    entries: list[tuple[str, str, list[tuple[str, str]], Any]] = json.loads(counts)
    for family, name, labels, value in entries:
        # `le` comes last in a histogram's labels, and is last in order too only by chance: sorted, both sides agree.
        key = (family, name, tuple(sorted((label, text) for label, text in labels)))
        sums[key] = sums.get(key, 0.0) + value
