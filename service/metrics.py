"""Prometheus metrics: all of them, defined once."""

from importlib.metadata import version

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

# From a tenth of a millisecond, the queue of an idle server, to half a minute, the longest backlog by default.
SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
POWERS_OF_TWO = tuple(float(2**n) for n in range(11))
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

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"birnn_{name}", text, ("encoder", *labels), buckets=buckets, registry=self.registry)

        self.requests = counter("requests", "Calls by method and gRPC status code.", "method", "code")
        self.sequences = counter("sequences", "Sequences encoded.")
        self.tokens = counter("tokens", "Tokens encoded.")
        self.padded_tokens = counter("padded_tokens", "Cells of batches computed in vain, as padding.")
        self.sequence_errors = counter("sequence_errors", "Sequences refused, by reason.", "code")
        self.unknown_tokens = counter("unknown_tokens", "Tokens encoded as unknown.")
        self.truncated_sequences = counter("truncated_sequences", "Sequences cut to the encoder's longest length.")

        self.request_seconds = histogram("request_seconds", "From a call's arrival to its reply.", SECONDS, "method")
        self.tokenize_seconds = histogram("tokenize_seconds", "Tokenizing one call.", SECONDS)
        self.queue_seconds = histogram("queue_seconds", "From queued to the start of a call's last batch.", SECONDS)
        self.compute_seconds = histogram("compute_seconds", "Running one batch.", SECONDS)
        self.batch_sequences = histogram("batch_sequences", "Sequences in a batch.", POWERS_OF_TWO)
        self.batch_padding_ratio = histogram("batch_padding_ratio", "Share of a batch that is padding.", RATIOS)
        self.cost_error_ratio = histogram(
            "cost_error_ratio", "How far the predicted time of a batch was from its time, as a share of it.", RATIOS
        )
        self.sequence_length = histogram("sequence_length", "Tokens of a sequence.", POWERS_OF_TWO)

        self.queue_sequences = gauge("queue_sequences", "Sequences waiting.", "encoder")
        self.queue_tokens = gauge("queue_tokens", "Tokens waiting.", "encoder")
        self.encoder_ready = gauge("encoder_ready", "1 where a version is served, else 0.", "encoder", "version")
        self.encoder_info = gauge(
            "encoder_info", "What is served, and by what.",
            "encoder", "version", "architecture", "dimension", "pooling", "engine", "device", "precision",
        )  # fmt: skip
        self.server_info = gauge("server_info", "Versions of the server and of onnxruntime.", "version", "onnxruntime")

    def describe_server(self, onnxruntime: str) -> None:
        """Publish the versions that run."""
        self.server_info.labels(server_version(), onnxruntime).set(1)


def server_version() -> str:
    """Version of the installed distribution."""
    return version("birnn-serving")
