"""What the server itself measured during a test: its Prometheus metrics before, during and after."""

import math
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from birnn.tls import Tls
from birnn_loadtest.server_names import KINDS, OURS, Measure, ServerNames

SCRAPE_TIMEOUT = 5.0
MOST_BYTES = 32 << 20
MOST_READINGS = 1000


class MetricsError(Exception):
    """The metrics cannot be read; says why."""


@dataclass(frozen=True, slots=True)
class Buckets:
    """A histogram of Prometheus, or a sum and a count as a histogram with one bucket.

    Attributes:
        counts: By upper bound, how many values lie at or below it.
        total: Sum of all values.
    """

    counts: Mapping[float, float]
    total: float

    @property
    def count(self) -> float:
        """How many values there are."""
        return self.counts.get(math.inf, 0.0)

    @property
    def mean(self) -> float | None:
        """Their mean; None where there are none."""
        return self.total / self.count if self.count > 0 else None

    def since(self, before: "Buckets") -> "Buckets":
        """The values that came after `before`."""
        counts = {bound: count - before.counts.get(bound, 0.0) for bound, count in self.counts.items()}
        return Buckets(counts, self.total - before.total)

    def percentile(self, percent: float) -> float | None:
        """As Prometheus estimates it, by a line through the bucket; None without values, or with one bucket for all."""
        wanted, low, below = percent / 100 * self.count, 0.0, 0.0
        if self.count <= 0 or len(self.counts) == 1:
            return None
        for bound in sorted(self.counts):
            if (here := self.counts[bound]) >= wanted:
                if math.isinf(bound):
                    return low
                return low + (bound - low) * (wanted - below) / (here - below) if here > below else bound
            low, below = bound, here
        return low


@dataclass(frozen=True, slots=True)
class Reading:
    """The metrics at one moment, summed over all labels but the encoder, of which only some are counted.

    Attributes:
        time: When, by time.monotonic().
        names: What this kind of server calls them.
        histograms: By name.
        values: Counters and gauges by name without "_total".
        families: Names of all metrics that the server has, also of those that nothing was counted of yet.
    """

    time: float
    names: ServerNames
    histograms: Mapping[str, Buckets]
    values: Mapping[str, float]
    families: Collection[str]

    @classmethod
    def parse(cls, text: str, encoders: Collection[str], moment: float) -> "Reading":
        """Read what /metrics says.

        Args:
            text: The exposition.
            encoders: Names of the encoders that count; what has no such label counts always.
            moment: When it was asked for.
        """
        counts: dict[str, dict[float, float]] = defaultdict(lambda: defaultdict(float))
        values: dict[str, float] = defaultdict(float)
        found = list(text_string_to_metric_families(text))
        families = {family.name for family in found}
        # Of a server that we do not know, all is missing that ours would have.
        names = next((kind for kind in KINDS if any(name.startswith(kind.prefix) for name in families)), OURS)
        histograms = {measure.total for measure in (*names.stages.values(), names.batches) if measure.count is None}
        for family in found:
            for sample in family.samples:
                if sample.labels.get(names.label, next(iter(encoders), "")) not in encoders:
                    continue
                if family.name in histograms and sample.name.endswith("_bucket"):
                    counts[family.name][float(sample.labels["le"])] += sample.value
                else:
                    values[_bare(sample.name)] += sample.value
        buckets = {name: Buckets(dict(bounds), values.get(f"{name}_sum", 0.0)) for name, bounds in counts.items()}
        return cls(moment, names, buckets, dict(values), families)

    def has(self, name: str) -> bool:
        """Whether the server has a metric, by the name of its samples."""
        return _bare(name) in self.families

    def value(self, name: str) -> float:
        """A counter or gauge; 0 where nothing was counted yet."""
        return self.values.get(_bare(name), 0.0)

    def buckets(self, measure: Measure) -> Buckets:
        """The values of a measure until now."""
        if measure.count is None:
            return self.histograms.get(measure.total, Buckets({}, 0.0))
        return Buckets({math.inf: self.value(measure.count)}, self.value(measure.total) * measure.unit)


@dataclass(slots=True)
class ServerSplit:
    """What the server measured between the first reading of a test and the last.

    Attributes:
        names: What the server calls its metrics.
        stages: By stage, its values.
        batches: Sequences in a batch.
        counters: By name, how far each rose.
        waiting: Sequences waiting in the queue over time: (seconds since the first reading, sequences).
        missing: Names of metrics that the server does not have.
        problems: What went wrong with reading them, each once.
    """

    names: ServerNames = OURS
    stages: dict[str, Buckets] = field(default_factory=dict)
    batches: Buckets | None = None
    counters: dict[str, float] = field(default_factory=dict)
    waiting: list[tuple[float, float]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @classmethod
    def between(cls, readings: list[Reading], problems: list[str]) -> "ServerSplit":
        """From readings in order of time."""
        split = cls(problems=problems)
        if len(readings) < 2:
            split.problems.append("there are not two readings, before and after the test, to compare")
            return split
        first, last = readings[0], readings[-1]
        names = split.names = last.names

        def risen(measure: Measure) -> Buckets | None:
            missing = [name for name in (measure.total, measure.count) if name is not None and not last.has(name)]
            split.missing += [name for name in missing if name not in split.missing]
            return None if missing else last.buckets(measure).since(first.buckets(measure))

        for stage, measure in names.stages.items():
            if (buckets := risen(measure)) is not None:
                split.stages[stage] = buckets
        split.batches = risen(names.batches)
        for counter, name in names.counters.items():
            if last.has(name):
                split.counters[counter] = last.value(name) - first.value(name)
            elif name not in split.missing:
                split.missing.append(name)
        if names.waiting is not None:
            if last.has(names.waiting):
                split.waiting = [(reading.time - first.time, reading.value(names.waiting)) for reading in readings]
            else:
                split.missing.append(names.waiting)
        if any(value < 0 for value in split.counters.values()):
            split.problems.append("counters fell: the server was restarted during the test, or there are several")
        return split

    @property
    def rest(self) -> float | None:
        """Mean seconds of a call that no stage accounts for: reading, waiting for its turn, writing the reply.

        Ours counts a batch once, however many calls share it, so this is an estimate: a call takes a mean batch's time.
        """
        means = [self.stages[stage].mean if stage in self.stages else None for stage in self.names.stages]
        if any(mean is None for mean in means):
            return None
        request, *parts = (mean or 0.0 for mean in means)
        return max(0.0, request - sum(parts))


def _bare(name: str) -> str:
    # The parser adds the "_total" that Triton leaves out.
    return name.removesuffix("_total")


class MetricsSource:
    """A server's /metrics.

    Args:
        url: Where they are.
        encoders: Names of the encoders that count.
        token: A bearer token; None for none.
        tls: How an https URL is trusted; None for the authorities of this system.
    """

    def __init__(self, url: str, encoders: Collection[str], token: str | None, tls: Tls | None) -> None:
        self._url = url
        self._encoders = frozenset(encoders)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        context: ssl.SSLContext = (tls or Tls()).context()
        # Not through http_proxy, which is often set without a no_proxy for this machine.
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )

    def read(self) -> Reading:
        """The metrics now.

        Raises:
            MetricsError: They cannot be read.
        """
        moment = time.monotonic()
        request = urllib.request.Request(self._url, headers=self._headers)
        try:
            with self._opener.open(request, timeout=SCRAPE_TIMEOUT) as reply:
                text = reply.read(MOST_BYTES + 1)
            if len(text) > MOST_BYTES:
                raise MetricsError(f"{self._url}: more than {MOST_BYTES >> 20} MiB of metrics")
            return Reading.parse(text.decode(), self._encoders, moment)
        except urllib.error.HTTPError as error:
            hint = "; the token needs the right `metrics` (--metrics-token)" if error.code in (401, 403) else ""
            raise MetricsError(f"{self._url}: HTTP {error.code}{hint}") from error
        except (OSError, ValueError) as error:
            raise MetricsError(f"{self._url}: cannot be read: {error}") from error


class MetricsWatch:
    """Reads metrics at the beginning of what is measured, during it and after it, in a thread of its own.

    Args:
        source: What is read.
        warmup: Seconds until the first reading.
        every: Seconds between two readings.
    """

    def __init__(self, source: MetricsSource, warmup: float, every: float) -> None:
        self._source = source
        self._warmup = warmup
        self._every = every
        self._readings: list[Reading] = []
        self._problems: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "MetricsWatch":
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._over.set()
        self._thread.join()
        self._read()

    def split(self) -> ServerSplit:
        """What came between the first and the last reading."""
        return ServerSplit.between(self._readings, self._problems)

    def _watch(self) -> None:
        wait = self._warmup
        while not self._over.wait(wait):
            self._read()
            wait = self._every

    def _read(self) -> None:
        try:
            reading = self._source.read()
        except MetricsError as error:
            if str(error) not in self._problems:
                self._problems.append(str(error))
            return
        if len(self._readings) >= MOST_READINGS:
            # The first and the last are what counts; every other one between them goes.
            self._readings = [self._readings[0], *self._readings[1::2]]
            self._every *= 2
        self._readings.append(reading)
