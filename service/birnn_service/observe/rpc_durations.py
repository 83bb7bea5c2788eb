"""gRPC calls under the names that OpenTelemetry gives them, for dashboards that know those.

They are the same numbers as `birnn_request_seconds`, written once more at each scrape: a call costs nothing for it.
"""

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from birnn_service.observe.histogram import ArrayHistogram

NAME = "rpc_server_call_duration_seconds"
TEXT = (
    "gRPC calls from their arrival to their reply, as OpenTelemetry names them (rpc.server.call.duration); of streams, "
    "each request."
)
LABELS = ("rpc_system_name", "rpc_method", "rpc_response_status_code", "error_type", "encoder", "version")
# Those that OpenTelemetry advises.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)


class RpcDurations(Collector):
    """Another view of the durations of calls."""

    def __init__(self, durations: ArrayHistogram, registry: CollectorRegistry) -> None:
        """Show `durations`, by encoder, version, method and code. Their buckets hold all of `BUCKETS`."""
        self._durations = durations
        self.methods: Mapping[str, str] = {}
        """`service/method` by the names of methods that are called over gRPC; those of others are left out."""
        registry.register(self)

    def describe(self) -> Iterable[HistogramMetricFamily]:
        """The metric without samples."""
        return [HistogramMetricFamily(NAME, TEXT, labels=LABELS)]

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """All series, for a scrape."""
        family = HistogramMetricFamily(NAME, TEXT, labels=LABELS)
        for (encoder, version, method, code), series in self._durations.items():
            if (path := self.methods.get(method)) is not None:
                buckets, total = series.cumulative(BUCKETS)
                error = "" if code == "OK" else code
                family.add_metric(("grpc", path, code, error, encoder, version), buckets, total)
        return [family]
