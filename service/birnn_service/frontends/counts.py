"""What front-ends have counted, on its way to the engine process: one scrape there shows the numbers of all processes.

Front-ends report what was counted since the last report, and the engine process adds it to its own counts. So no sum
falls when a front-end ends. What is not counted but read is told as it is, and goes when the front-end goes.
"""

import json
from typing import Any

from birnn_service.observe.counter import Counter
from birnn_service.observe.histogram import ArrayHistogram, Counts
from birnn_service.observe.metrics import Metrics
from birnn_service.observe.read_metric import ReadMetric

# A series: the name of its metric and the values of its labels.
Key = tuple[str, tuple[str, ...]]


class Reporter:
    """Writes the reports of one front-end."""

    def __init__(self, metrics: Metrics) -> None:
        """Report what `metrics` count. Nothing else may scrape them: each report counts from 0 again."""
        self._metrics = metrics
        self._reported: set[Key] = set()

    def report(self) -> bytes:
        """What was counted since the last report, and what is read now, as JSON. Series that are new come even at 0."""
        counted: list[list[Any]] = []
        read = []
        for name, metric in self._metrics.by_name.items():
            match metric:
                case ReadMetric():
                    read.append([name, [[*entry] for entry in metric.read().items()]])
                case Counter():
                    for labels, count in metric.items():
                        if (value := count.take()) or self._is_new(name, labels):
                            counted.append([name, labels, value])
                case ArrayHistogram():
                    for labels, series in metric.items():
                        counts = series.take()
                        if any(counts.buckets) or self._is_new(name, labels):
                            exemplars = [[*entry] for entry in counts.exemplars.items()]
                            counted.append([name, labels, counts.buckets, counts.total, exemplars])
        return json.dumps([counted, read]).encode()

    def _is_new(self, name: str, labels: tuple[str, ...]) -> bool:
        if (name, labels) in self._reported:
            return False
        self._reported.add((name, labels))
        return True


def add_report(metrics: Metrics, life: int, report: bytes) -> None:
    """Add what a front-end reports, by the number of its life, to the counts of the engine process.

    Raises:
        ValueError: It is no report.
    """
    counted, read = json.loads(report)
    for name, values, *counts in counted:
        metric = metrics.by_name[name]
        labels = _bounded(metrics, name, values)
        if isinstance(metric, ArrayHistogram):
            buckets, total, exemplars = counts
            found = {bucket: (value, trace, when) for bucket, (value, trace, when) in exemplars}
            metric.labels(*labels).add(Counts(buckets, total, found))
        else:
            metric.labels(*labels).inc(counts[0])
    for name, entries in read:
        metrics.by_name[name].tell(life, {tuple(labels): value for labels, value in entries})


def end_reports(metrics: Metrics, life: int) -> None:
    """A front-end has ended: what it counted stays, what was read of it goes."""
    for metric in metrics.by_name.values():
        if isinstance(metric, ReadMetric):
            metric.forget(life)


def _bounded(metrics: Metrics, name: str, labels: list[str]) -> tuple[Any, ...]:
    """The labels of a series, with one tenant more only where there is room: each front-end knows others."""
    if name in metrics.tenants.by_name:
        return (metrics.tenants.label(labels[0]), *labels[1:])
    return tuple(labels)
