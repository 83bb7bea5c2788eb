"""Prometheus metrics: all of them, defined once. docs/metrics.md is made from these definitions (`make monitoring`)."""

import asyncio
from collections import Counter as Tally
from collections.abc import Sequence

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from birnn_bundle.errors import ItemErrorCode
from birnn_service.errors import ANSWERS, LOOKUPS, REFUSALS, Reason
from birnn_service.observe.counter import Count
from birnn_service.observe.definitions import Defined, Section
from birnn_service.observe.histogram import Series
from birnn_service.observe.rpc_durations import RpcDurations
from birnn_service.observe.tenant_metrics import TenantMetrics
from birnn_service.server_version import server_version
from birnn_service.state import Address

# From a quarter of a millisecond to a minute. From 0.5 to 1.1 s each is at most a tenth above the one before, so a p99
# near a deadline of 1 s is off by less than that. They include those that OpenTelemetry advises.
CALL_SECONDS = (
    0.00025, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.035, 0.05,
    0.075, 0.1, 0.125, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95,
    1.0, 1.1, 1.25, 1.5, 2.0, 2.5, 3.5, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
)  # fmt: skip
# From a tenth of a millisecond, the queue of an idle server, to a minute.
STAGE_SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
LAG_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
POWERS_OF_TWO = tuple(float(2**n) for n in range(11))
# 1 - cosine: from what half precision does to a vector to vectors that have nothing in common.
DRIFTS = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
RATIOS = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75)

# Seconds for which the series of a version stay after it was unloaded: scrapes are to see the last of its counts.
FORGET_SECONDS = 600.0
OUTCOMES = ("passed", "refused", "failed")
"""What becomes of a health probe."""
UNKNOWN: Address = ("", "")
"""The labels of calls that did not get as far as to an encoder. Names that callers made up are not labels."""

ENGINE_PROCESS = "engine"
"""The name of the process with the engines, as a label; others are `frontend-1` and so on."""
ADDRESS = ("encoder", "version")
CALLS = Section("Calls")
SEQUENCES = Section("Sequences and tokens")
STAGES = Section("Where the time of a call goes")
BATCHES = Section("Batches and the engine")
SATURATION = Section("Saturation")
CACHE = Section("Response cache and sharing")
ENCODERS = Section("What is served")
CANDIDATES = Section("Candidates (`--shadow`)")
TRACES = Section("Traces")
PROCESSES = Section("Processes and the server")


class Metrics(Defined):
    """Every metric of one process, in a registry of its own."""

    requests = CALLS.counter("requests", "Calls by method and gRPC status code.", *ADDRESS, "method", "code")
    request_seconds = CALLS.histogram(
        "request_seconds", "From a call's arrival to its reply.", CALL_SECONDS, *ADDRESS, "method", "code"
    )
    refused = CALLS.counter(
        "refused", "Calls refused, by reason, whether or not their request had been read.", *ADDRESS, "reason"
    )
    unexpected_errors = CALLS.counter(
        "unexpected_errors", "Calls that failed by a fault of the server.", *ADDRESS, "method"
    )

    sequences = SEQUENCES.counter("sequences", "Sequences encoded.", *ADDRESS)
    tokens = SEQUENCES.counter("tokens", "Tokens encoded.", *ADDRESS)
    padded_tokens = SEQUENCES.counter("padded_tokens", "Cells of batches that were padding.", *ADDRESS)
    sequence_errors = SEQUENCES.counter("sequence_errors", "Sequences refused, by reason.", *ADDRESS, "code")
    unknown_tokens = SEQUENCES.counter("unknown_tokens", "Tokens encoded as unknown.", *ADDRESS)
    truncated_sequences = SEQUENCES.counter(
        "truncated_sequences", "Sequences cut to the encoder's longest length.", *ADDRESS
    )
    sequence_length = SEQUENCES.histogram("sequence_length", "Tokens of a sequence.", POWERS_OF_TWO, *ADDRESS)

    tokenize_seconds = STAGES.histogram(
        "tokenize_seconds", "Tokenizing one call, its wait included.", STAGE_SECONDS, *ADDRESS
    )
    queue_seconds = STAGES.histogram(
        "queue_seconds", "From queued to the start of a call's last batch.", STAGE_SECONDS, *ADDRESS
    )
    compute_seconds = STAGES.histogram("compute_seconds", "Running one batch.", STAGE_SECONDS, *ADDRESS)

    batch_sequences = BATCHES.histogram("batch_sequences", "Sequences in a batch.", POWERS_OF_TWO, *ADDRESS)
    batch_padding_ratio = BATCHES.histogram(
        "batch_padding_ratio", "Share of a batch that is padding.", RATIOS, *ADDRESS
    )
    cost_error_ratio = BATCHES.histogram(
        "cost_error_ratio",
        "How far the predicted time of a batch was from its time, as a share of it.",
        RATIOS,
        *ADDRESS,
    )
    engine_slots = BATCHES.read("engine_slots", "Batches that run at the same time.")
    engine_busy_seconds = BATCHES.counter(
        "engine_busy_seconds",
        "Seconds for which batches, health probes included, occupied slots. Its rate over birnn_engine_slots is the "
        "share of the engine that is busy.",
        *ADDRESS,
    )

    calls_in_flight = SATURATION.read(
        "calls_in_flight",
        "Calls that hold one of the places of --max-calls. Without an encoder: those whose request is still being "
        "received or whose reply is still being taken, and streams.",
        "process", *ADDRESS,
    )  # fmt: skip
    calls_limit = SATURATION.read("calls_limit", "Places for calls (--max-calls).", "process")
    call_memory_bytes = SATURATION.read("call_memory_bytes", "Memory that is set aside for calls under way.", "process")
    call_memory_limit_bytes = SATURATION.read(
        "call_memory_limit_bytes", "Memory that there is for calls (--memory-mib).", "process"
    )
    backlog_seconds = SATURATION.read(
        "backlog_seconds",
        "Predicted seconds until all that waits has been computed; admission compares their sum with the limit.",
        *ADDRESS,
    )
    backlog_limit_seconds = SATURATION.read(
        "backlog_limit_seconds", "Predicted seconds that may wait (--max-backlog-seconds)."
    )
    queue_sequences = SATURATION.read("queue_sequences", "Sequences waiting.", *ADDRESS)
    queue_tokens = SATURATION.read("queue_tokens", "Tokens waiting.", *ADDRESS)
    loop_lag_seconds = SATURATION.histogram(
        "loop_lag_seconds", "How late the event loop wakes what is due, looked at ten times a second.", LAG_SECONDS,
        "process",
    )  # fmt: skip
    descriptors_exhausted = SATURATION.counter(
        "descriptors_exhausted", "Times that a process had no file descriptor left for another connection."
    )

    cache_hits = CACHE.counter("cache_hits", "Sequences found in the response cache.", *ADDRESS)
    cache_misses = CACHE.counter("cache_misses", "Sequences not found in the response cache.", *ADDRESS)
    cache_bytes = CACHE.read("cache_bytes", "Size of the response cache.")
    cache_limit_bytes = CACHE.read("cache_limit_bytes", "Largest size of the response cache (--cache-mib).")
    shared_sequences = CACHE.counter(
        "shared_sequences", "Sequences answered by an equal one that was in flight.", *ADDRESS
    )

    encoder_ready = ENCODERS.gauge("encoder_ready", "1 where a version is served, else 0.", *ADDRESS)
    encoder_info = ENCODERS.gauge(
        "encoder_info", "What is served, and by what.",
        *ADDRESS, "architecture", "dimension", "pooling", "engine", "device", "precision",
    )  # fmt: skip
    encoder_fallback = ENCODERS.gauge(
        "encoder_fallback",
        "1 where `auto` could not have the device or the engine that it tried first, else 0; the log says why.",
        *ADDRESS,
    )
    encoder_loads = ENCODERS.counter(
        "encoder_loads", "Versions loaded (also with new files), refused and unloaded.", *ADDRESS, "outcome"
    )
    encoder_loaded_time_seconds = ENCODERS.gauge(
        "encoder_loaded_time_seconds", "When a version was loaded, in seconds since the epoch.", *ADDRESS
    )
    health_probes = ENCODERS.counter(
        "health_probes", "Forward passes by which an encoder proves itself, by outcome: passed, refused by a full "
        "queue, or failed.", *ADDRESS, "outcome",
    )  # fmt: skip
    golden_drift_ratio = ENCODERS.gauge(
        "golden_drift_ratio",
        "How far the last health probe was from the golden vector, as a share of what is allowed; above 1 it fails.",
        *ADDRESS,
    )

    shadow_requests = CANDIDATES.counter(
        "shadow_requests", "Requests that also went to a candidate, by outcome: answered, failed or skipped.",
        *ADDRESS, "candidate", "outcome",
    )  # fmt: skip
    shadow_sequences = CANDIDATES.counter(
        "shadow_sequences", "Sequences that a candidate was asked for: compared, both_failed, only_candidate_failed, "
        "only_served_failed, or other_width where vectors cannot be compared.", *ADDRESS, "candidate", "outcome",
    )  # fmt: skip
    shadow_drift = CANDIDATES.histogram(
        "shadow_drift", "1 - cosine of a candidate's vector to the one served.", DRIFTS, *ADDRESS, "candidate"
    )
    shadow_compute_seconds = CANDIDATES.histogram(
        "shadow_compute_seconds", "Longest run of a shadowed request, by role: served and candidate.", STAGE_SECONDS,
        *ADDRESS, "candidate", "role",
    )  # fmt: skip

    spans_exported = TRACES.counter("spans_exported", "Spans that the collector has taken.")
    spans_dropped = TRACES.counter(
        "spans_dropped",
        "Spans of sampled calls that were not exported, by reason: rate (--trace-spans-per-second), queue "
        "(--trace-queue-spans), export (the collector did not take them), shutdown (--trace-flush-seconds).",
        "reason",
    )

    frontends = PROCESSES.read("frontends", "Front-end processes that take calls.")
    frontends_wanted = PROCESSES.read("frontends_wanted", "Front-end processes that there are to be (--frontends).")
    frontend_restarts = PROCESSES.counter("frontend_restarts", "Front-end processes that ended and were started again.")
    process_cpu_seconds = PROCESSES.read(
        "process_cpu_seconds", "CPU time of each process of the server.", "process", kind="counter"
    )
    process_resident_bytes = PROCESSES.read(
        "process_resident_bytes", "Memory of each process of the server.", "process"
    )
    process_descriptors = PROCESSES.read("process_descriptors", "Open files, sockets included.", "process")
    process_descriptors_limit = PROCESSES.read(
        "process_descriptors_limit", "Files that a process may open (ulimit -n).", "process"
    )
    connections_refused = PROCESSES.read(
        "connections_refused",
        "Connections closed at once, or while they waited, because there are as many as there may be "
        "(--max-connections); grpcio has no such limit.",
        "process",
        "transport",
        kind="counter",
    )
    certificate_not_after_seconds = PROCESSES.read(
        "certificate_not_after_seconds", "When the certificate ends, in seconds since the epoch; 0 without TLS."
    )
    server_info = PROCESSES.gauge("server_info", "Versions of the server and of onnxruntime.", "version", "onnxruntime")

    def __init__(self, process: str = ENGINE_PROCESS) -> None:
        """Make the metrics of a process.

        Args:
            process: Its name, as a label; see `ENGINE_PROCESS`.
        """
        # A `_created` series for every counter doubles the scrape, and is of no use.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.process = process
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        super().__init__(self.registry)
        self.tenants = TenantMetrics(self.registry)
        self.by_name |= self.tenants.by_name
        self.rpc_durations = RpcDurations(self.request_seconds, self.registry)
        # Methods that encode, of the protocols of this process.
        self._methods: Sequence[str] = ()
        self._encoders: dict[Address, EncoderMetrics] = {}
        self.unknown = CallMetrics(self, UNKNOWN)
        """Of calls without an encoder."""
        # How many loads of a version are served or not freed yet; and when series of others are forgotten.
        self._loads: Tally[Address] = Tally()
        self._forgetting: dict[Address, asyncio.TimerHandle] = {}

    def of(self, address: Address) -> "EncoderMetrics":
        """The metrics of one version of an encoder."""
        found = self._encoders.get(address)
        if found is None:
            found = self._encoders[address] = EncoderMetrics(self, address)
        return found

    def calls_by_encoder(self) -> dict[Address, int]:
        """Calls under way, by the version that answers them."""
        return {address: found.calls for address, found in list(self._encoders.items())}

    def take_calls(self, methods: Sequence[str]) -> None:
        """This process takes calls of `methods`, which encode.

        Series of failures begin at 0, with the start or a new version: `rate` cannot see the first of a series.
        """
        self._methods = methods
        for method in methods:
            for code in LOOKUPS:
                self.requests.labels(*UNKNOWN, method, code.name)
            self.unexpected_errors.labels(*UNKNOWN, method)
        for reason in Reason:
            self.refused.labels(*UNKNOWN, reason)
        for address in self._loads:
            self._prepare(address)

    def begin(self, address: Address) -> None:
        """A version is served from now on; `end` is to follow, for each of its loads."""
        self._loads[address] += 1
        if (handle := self._forgetting.pop(address, None)) is not None:
            handle.cancel()
        self._prepare(address)

    def end(self, address: Address) -> None:
        """A version was unloaded. Its counts stay for `FORGET_SECONDS`, unless it is served again by then."""
        self._loads[address] -= 1
        if not self._loads[address]:
            del self._loads[address]
            later = asyncio.get_running_loop().call_later(FORGET_SECONDS, self._forget, address)
            self._forgetting[address] = later

    def describe_server(self, onnxruntime: str) -> None:
        """Publish the versions that run."""
        self.server_info.labels(server_version(), onnxruntime).set(1)

    def _prepare(self, address: Address) -> None:
        """Have the series of a version that tell of failures, before there is one."""
        self.of(address)
        for method in self._methods:
            for code in ANSWERS:
                self.requests.labels(*address, method, code.name)
            self.unexpected_errors.labels(*address, method)
        if self._methods:
            for reason in REFUSALS:
                self.refused.labels(*address, reason)
            for item in ItemErrorCode:
                self.sequence_errors.labels(*address, item.name)

    def _forget(self, address: Address) -> None:
        del self._forgetting[address]
        self._encoders.pop(address, None)
        labels = dict(zip(ADDRESS, address, strict=True))
        for metric in self.by_address:
            metric.remove_by_labels(labels)


class CallMetrics:
    """How calls to one version of an encoder, or to none, have ended."""

    def __init__(self, metrics: Metrics, address: Address) -> None:
        self.address = address
        self._metrics = metrics
        self._ended: dict[tuple[str, str], tuple[Count, Series]] = {}

    def count_call(self, method: str, code: str, seconds: float, trace: str = "") -> None:
        """Count a call that ended with a gRPC status code after `seconds`, and is part of a `trace` if one is named."""
        found = self._ended.get((method, code))
        if found is None:
            labels = (*self.address, method, code)
            series = self._metrics.requests.labels(*labels), self._metrics.request_seconds.labels(*labels)
            found = self._ended[method, code] = series
        requests, request_seconds = found
        requests.inc()
        request_seconds.observe(seconds, trace)


class EncoderMetrics(CallMetrics):
    """What every call and batch of one version of an encoder updates; its series are looked up once."""

    def __init__(self, metrics: Metrics, address: Address) -> None:
        super().__init__(metrics, address)
        self.calls = 0
        """Its calls under way."""
        self.sequences = metrics.sequences.labels(*address)
        self.tokens = metrics.tokens.labels(*address)
        self.padded_tokens = metrics.padded_tokens.labels(*address)
        self.unknown_tokens = metrics.unknown_tokens.labels(*address)
        self.truncated_sequences = metrics.truncated_sequences.labels(*address)
        self.shared_sequences = metrics.shared_sequences.labels(*address)
        self.cache_hits = metrics.cache_hits.labels(*address)
        self.cache_misses = metrics.cache_misses.labels(*address)
        self.engine_busy_seconds = metrics.engine_busy_seconds.labels(*address)
        self.tokenize_seconds = metrics.tokenize_seconds.labels(*address)
        self.queue_seconds = metrics.queue_seconds.labels(*address)
        self.compute_seconds = metrics.compute_seconds.labels(*address)
        self.batch_sequences = metrics.batch_sequences.labels(*address)
        self.batch_padding_ratio = metrics.batch_padding_ratio.labels(*address)
        self.cost_error_ratio = metrics.cost_error_ratio.labels(*address)
        self.sequence_length = metrics.sequence_length.labels(*address)
