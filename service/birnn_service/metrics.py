"""Prometheus metrics: all of them, defined once."""

from importlib.metadata import version

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from birnn_service.histogram import ArrayHistogram, Series
from birnn_service.tenant_metrics import TenantMetrics

# From a tenth of a millisecond, the queue of an idle server, to half a minute, the longest backlog by default.
SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
POWERS_OF_TWO = tuple(float(2**n) for n in range(11))
# 1 - cosine: from what half precision does to a vector to vectors that have nothing in common.
DRIFTS = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
RATIOS = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75)


class Metrics:
    """Every metric of one server, in a registry of its own."""

    def __init__(self) -> None:
        # A `_created` series beside every counter doubles the scrape and tells nobody anything.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"birnn_{name}", text, ("encoder", *labels), registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"birnn_{name}", text, labels, registry=self.registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> ArrayHistogram:
            return ArrayHistogram(f"birnn_{name}", text, ("encoder", *labels), buckets, self.registry)

        self.requests = counter("requests", "Calls by method and gRPC status code.", "method", "code")
        self.unexpected_errors = counter("unexpected_errors", "Calls that failed by a fault of the server.", "method")
        self.sequences = counter("sequences", "Sequences encoded.")
        self.tokens = counter("tokens", "Tokens encoded.")
        self.padded_tokens = counter("padded_tokens", "Cells of batches that were padding.")
        self.sequence_errors = counter("sequence_errors", "Sequences refused, by reason.", "code")
        self.unknown_tokens = counter("unknown_tokens", "Tokens encoded as unknown.")
        self.truncated_sequences = counter("truncated_sequences", "Sequences cut to the encoder's longest length.")
        self.shared_sequences = counter("shared_sequences", "Sequences answered by an equal one that was in flight.")
        self.cache_hits = counter("cache_hits", "Sequences found in the response cache.")
        self.cache_misses = counter("cache_misses", "Sequences not found in the response cache.")

        self.request_seconds = histogram("request_seconds", "From a call's arrival to its reply.", SECONDS, "method")
        self.tokenize_seconds = histogram("tokenize_seconds", "Tokenizing one call, its wait included.", SECONDS)
        self.queue_seconds = histogram("queue_seconds", "From queued to the start of a call's last batch.", SECONDS)
        self.compute_seconds = histogram("compute_seconds", "Running one batch.", SECONDS)
        self.batch_sequences = histogram("batch_sequences", "Sequences in a batch.", POWERS_OF_TWO)
        self.batch_padding_ratio = histogram("batch_padding_ratio", "Share of a batch that is padding.", RATIOS)
        self.cost_error_ratio = histogram(
            "cost_error_ratio", "How far the predicted time of a batch was from its time, as a share of it.", RATIOS
        )
        self.sequence_length = histogram("sequence_length", "Tokens of a sequence.", POWERS_OF_TWO)

        self.health_probes = counter(
            "health_probes", "Forward passes by which an idle encoder proves itself, by what came of them.", "outcome"
        )
        self.shadow_requests = counter(
            "shadow_requests", "Requests that also went to a candidate, by what came of that.", "candidate", "outcome"
        )
        self.shadow_sequences = counter(
            "shadow_sequences", "Sequences that a candidate was asked for, by what can be said.", "candidate", "outcome"
        )
        self.shadow_drift = histogram(
            "shadow_drift", "1 - cosine of a candidate's vector to the one served.", DRIFTS, "candidate"
        )
        self.shadow_compute_seconds = histogram(
            "shadow_compute_seconds", "Longest run of a shadowed request, served and by its candidate.", SECONDS,
            "candidate", "role",
        )  # fmt: skip
        self.queue_sequences = gauge("queue_sequences", "Sequences waiting.", "encoder")
        self.queue_tokens = gauge("queue_tokens", "Tokens waiting.", "encoder")
        self.frontends = gauge("frontends", "Front-end processes that take calls.")
        self.frontend_restarts = Counter(
            "birnn_frontend_restarts", "Front-end processes that ended and were started again.", registry=self.registry
        )
        self.descriptors_exhausted = Counter(
            "birnn_descriptors_exhausted",
            "Times that a process had no file descriptor left for another connection.",
            registry=self.registry,
        )
        self.cache_bytes = gauge("cache_bytes", "Size of the response cache.")
        self.encoder_loads = counter("encoder_loads", "Versions loaded or refused, by what came of it.", "outcome")
        self.certificate_not_after = gauge(
            "certificate_not_after_seconds", "When the certificate ends, in seconds since the epoch; 0 without TLS."
        )
        self.tenants = TenantMetrics(self.registry)
        self.encoder_ready = gauge("encoder_ready", "1 where a version is served, else 0.", "encoder", "version")
        self.encoder_info = gauge(
            "encoder_info", "What is served, and by what.",
            "encoder", "version", "architecture", "dimension", "pooling", "engine", "device", "precision",
        )  # fmt: skip
        self.server_info = gauge("server_info", "Versions of the server and of onnxruntime.", "version", "onnxruntime")

        self._encoders: dict[str, EncoderMetrics] = {}
        self._calls: dict[tuple[str, str, str], tuple[Counter, Series]] = {}

    def of(self, encoder: str) -> "EncoderMetrics":
        """The metrics of one encoder."""
        found = self._encoders.get(encoder)
        if found is None:
            found = self._encoders[encoder] = EncoderMetrics(self, encoder)
        return found

    def count_call(self, encoder: str, method: str, code: str, seconds: float) -> None:
        """Count a call that ended with a gRPC status code after `seconds`."""
        labels = (encoder, method, code)
        found = self._calls.get(labels)
        if found is None:
            found = self._calls[labels] = (self.requests.labels(*labels), self.request_seconds.labels(encoder, method))
        requests, request_seconds = found
        requests.inc()
        request_seconds.observe(seconds)

    def describe_server(self, onnxruntime: str) -> None:
        """Publish the versions that run."""
        self.server_info.labels(server_version(), onnxruntime).set(1)


class EncoderMetrics:
    """What every call and batch of one encoder updates.

    Its series are looked up once: prometheus-client takes longer to find one than to add to it.
    """

    def __init__(self, metrics: Metrics, encoder: str) -> None:
        self.sequences = metrics.sequences.labels(encoder)
        self.tokens = metrics.tokens.labels(encoder)
        self.padded_tokens = metrics.padded_tokens.labels(encoder)
        self.unknown_tokens = metrics.unknown_tokens.labels(encoder)
        self.truncated_sequences = metrics.truncated_sequences.labels(encoder)
        self.shared_sequences = metrics.shared_sequences.labels(encoder)
        self.cache_hits = metrics.cache_hits.labels(encoder)
        self.cache_misses = metrics.cache_misses.labels(encoder)
        self.tokenize_seconds = metrics.tokenize_seconds.labels(encoder)
        self.queue_seconds = metrics.queue_seconds.labels(encoder)
        self.compute_seconds = metrics.compute_seconds.labels(encoder)
        self.batch_sequences = metrics.batch_sequences.labels(encoder)
        self.batch_padding_ratio = metrics.batch_padding_ratio.labels(encoder)
        self.cost_error_ratio = metrics.cost_error_ratio.labels(encoder)
        self.sequence_length = metrics.sequence_length.labels(encoder)


def server_version() -> str:
    """Version of the installed distribution."""
    return version("birnn-serving")
