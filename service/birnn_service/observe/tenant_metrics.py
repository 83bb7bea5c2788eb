"""What is counted by tenant: callers with a name, of which the metrics tell a limited number apart."""

from prometheus_client import CollectorRegistry

from birnn_service.errors import ANSWERS, REFUSALS, ServiceError
from birnn_service.observe.definitions import Defined, Section
from birnn_service.tenants import TenantLabels, tenant_of

TENANTS = Section("Tenants")


class TenantMetrics(Defined):
    """Counters by tenant. Callers without a name are in none of them: addresses are never labels."""

    requests = TENANTS.counter("tenant_requests", "Calls by gRPC status code.", "tenant", "code")
    sequences = TENANTS.counter(
        "tenant_sequences", "Sequences that were encoded, or found in the response cache.", "tenant"
    )
    engine_seconds = TENANTS.counter("tenant_engine_seconds", "Slot seconds of the engine.", "tenant")
    refused = TENANTS.counter("tenant_refused", "Calls refused, by reason; see birnn_refused.", "tenant", "reason")

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.labels = TenantLabels()
        self._begun: set[str] = set()

    def label(self, tenant: str) -> str:
        """The label of a tenant. Its series of failures begin at 0 with its first call, whatever becomes of that."""
        label = self.labels.of(tenant)
        if label not in self._begun:
            self._begun.add(label)
            for code in ANSWERS:
                self.requests.labels(label, code.name)
            for reason in REFUSALS:
                self.refused.labels(label, reason)
        return label

    def count_call(self, caller: str, code: str, sequences: int) -> None:
        """Count a call that has ended."""
        if tenant := tenant_of(caller):
            label = self.label(tenant)
            self.requests.labels(label, code).inc()
            if sequences:
                self.sequences.labels(label).inc(sequences)

    def count_refusal(self, caller: str, error: ServiceError) -> None:
        """Count a call that was refused for something that its caller may or may not do."""
        if error.reason and (tenant := tenant_of(caller)):
            self.refused.labels(self.label(tenant), error.reason).inc()

    def charge(self, caller: str, seconds: float) -> None:
        """Count time of an engine."""
        if tenant := tenant_of(caller):
            self.engine_seconds.labels(self.label(tenant)).inc(seconds)
