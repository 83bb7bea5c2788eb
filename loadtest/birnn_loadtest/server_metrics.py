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

# Stages of a call, with the histogram that measures each.
STAGES = {
    "request": ("birnn_request_seconds", "from a call's arrival to its reply, for each call"),
    "tokenize": ("birnn_tokenize_seconds", "strings to tokens, its wait included, for each call"),
    "queue": ("birnn_queue_seconds", "from queued to the start of its last batch, for each call"),
    "compute": ("birnn_compute_seconds", "for each batch, which calls share"),
}
BATCHES = "birnn_batch_sequences"
WAITING = "birnn_queue_sequences"
COUNTERS = {
    "calls": "birnn_requests_total",
    "sequences": "birnn_sequences_total",
    "tokens": "birnn_tokens_total",
    "padded_tokens": "birnn_padded_tokens_total",
    "shared_sequences": "birnn_shared_sequences_total",
    "cache_hits": "birnn_cache_hits_total",
}
SCRAPE_TIMEOUT = 5.0
MOST_BYTES = 32 << 20
MOST_READINGS = 1000


class MetricsError(Exception):
    """The metrics cannot be read; says why."""


@dataclass(frozen=True, slots=True)
class Buckets:
    """A histogram of Prometheus.

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
        """As Prometheus estimates it, by a line through the bucket; None where there are no values."""
        wanted, low, below = percent / 100 * self.count, 0.0, 0.0
        if self.count <= 0:
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
        histograms: By name.
        values: Counters and gauges by name.
        families: Names of all metrics that the server has, also of those that nothing was counted of yet.
    """

    time: float
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
        names = {name for name, _ in STAGES.values()} | {BATCHES}
        counts: dict[str, dict[float, float]] = defaultdict(lambda: defaultdict(float))
        values: dict[str, float] = defaultdict(float)
        families = set()
        for family in text_string_to_metric_families(text):
            families.add(family.name)
            for sample in family.samples:
                if sample.labels.get("encoder", next(iter(encoders), "")) not in encoders:
                    continue
                if family.name in names and sample.name.endswith("_bucket"):
                    counts[family.name][float(sample.labels["le"])] += sample.value
                else:
                    values[sample.name] += sample.value
        histograms = {name: Buckets(dict(found), values.get(f"{name}_sum", 0.0)) for name, found in counts.items()}
        return cls(moment, histograms, dict(values), families)


@dataclass(slots=True)
class ServerSplit:
    """What the server measured between the first reading of a test and the last.

    Attributes:
        stages: By stage, its values.
        batches: Sequences in a batch.
        counters: By name, how far each rose.
        waiting: Sequences waiting in the queue over time: (seconds since the first reading, sequences).
        missing: Names of metrics that the server does not have.
        problems: What went wrong with reading them, each once.
    """

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
        empty = Buckets({}, 0.0)

        def risen(name: str) -> Buckets | None:
            if name not in last.families:
                split.missing.append(name)
                return None
            return last.histograms.get(name, empty).since(first.histograms.get(name, empty))

        for stage, (name, _) in STAGES.items():
            if (buckets := risen(name)) is not None:
                split.stages[stage] = buckets
        split.batches = risen(BATCHES)
        for counter, name in COUNTERS.items():
            if name.removesuffix("_total") in last.families:
                split.counters[counter] = last.values.get(name, 0.0) - first.values.get(name, 0.0)
            else:
                split.missing.append(name)
        if WAITING in last.families:
            split.waiting = [(reading.time - first.time, reading.values.get(WAITING, 0.0)) for reading in readings]
        else:
            split.missing.append(WAITING)
        if any(value < 0 for value in split.counters.values()):
            split.problems.append("counters fell: the server was restarted during the test, or there are several")
        return split

    @property
    def rest(self) -> float | None:
        """Mean seconds of a call that no stage accounts for: reading, waiting for its turn, writing the reply.

        A batch is counted once, however many calls share it, so this is an estimate: a call takes a mean batch's time.
        """
        means = [self.stages[stage].mean if stage in self.stages else None for stage in STAGES]
        if any(mean is None for mean in means):
            return None
        request, *parts = (mean or 0.0 for mean in means)
        return max(0.0, request - sum(parts))


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
