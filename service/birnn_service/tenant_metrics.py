"""What is counted by tenant: callers with a name, of which the metrics tell a limited number apart."""

from prometheus_client import CollectorRegistry, Counter

from birnn_service.errors import ServiceError
from birnn_service.tenants import TenantLabels, tenant_of


class TenantMetrics:
    """Counters by tenant. Callers without a name are in none of them: addresses are never labels."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"birnn_tenant_{name}", text, ("tenant", *labels), registry=registry)

        self.labels = TenantLabels()
        self._requests = counter("requests", "Calls by tenant and gRPC status code.", "code")
        self._sequences = counter("sequences", "Sequences that tenants got encoded, or from the response cache.")
        self._engine_seconds = counter("engine_seconds", "Time of engines that tenants took.")
        self._refused = counter("refused", "Calls of tenants that were refused, by reason.", "reason")

    def count_call(self, caller: str, code: str, sequences: int) -> None:
        """Count a call that has ended."""
        if tenant := tenant_of(caller):
            label = self.labels.of(tenant)
            self._requests.labels(label, code).inc()
            if sequences:
                self._sequences.labels(label).inc(sequences)

    def count_refusal(self, caller: str, error: ServiceError) -> None:
        """Count a call that was refused for something that its caller may or may not do."""
        if error.reason and (tenant := tenant_of(caller)):
            self._refused.labels(self.labels.of(tenant), error.reason).inc()

    def charge(self, caller: str, seconds: float) -> None:
        """Count time of an engine."""
        if tenant := tenant_of(caller):
            self._engine_seconds.labels(self.labels.of(tenant)).inc(seconds)
