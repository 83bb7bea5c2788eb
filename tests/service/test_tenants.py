"""Tenants in metrics, and the limits of the server with the engines."""

import pytest

from birnn_service.errors import ForbiddenError, InvalidRequestError, RateLimitedError
from birnn_service.frontends.counts import Reporter, add_report, end_reports
from birnn_service.frontends.messages import Decoder, Failed, pack
from birnn_service.observe.metrics import Metrics
from birnn_service.tenants import MOST_LABELS, OTHER, TenantLabels, tenant_of


@pytest.mark.parametrize(
    ("caller", "tenant"),
    [("name:lab", "lab"), ("name:name:lab", "name:lab"), ("ipv4:192.0.2.1", ""), ("unix", ""), ("health", "")],
)
def test_only_callers_with_a_name_are_tenants(caller: str, tenant: str) -> None:
    assert tenant_of(caller) == tenant


def test_labels_are_bounded_and_those_with_a_line_come_first() -> None:
    labels = TenantLabels(lambda: ["listed-1", "listed-2"])
    assert [labels.of(f"new-{number}") for number in range(MOST_LABELS - 2)] == [
        f"new-{number}" for number in range(MOST_LABELS - 2)
    ]
    assert [labels.of(name) for name in ("too-many", "listed-1", "listed-2", "new-0")] == [
        OTHER,
        "listed-1",
        "listed-2",
        "new-0",
    ]


def test_what_is_counted_of_whom() -> None:
    metrics = Metrics()
    tenants, get = metrics.tenants, metrics.registry.get_sample_value
    tenants.count_call("name:lab", "OK", 8)
    tenants.count_call("ipv4:192.0.2.1", "OK", 8)
    tenants.count_refusal("name:lab", RateLimitedError("", 1.0))
    tenants.count_refusal("name:lab", ForbiddenError(""))
    tenants.count_refusal("name:lab", InvalidRequestError(""))
    tenants.charge("name:lab", 0.5)
    tenants.charge("health", 0.5)
    assert get("birnn_tenant_requests_total", {"tenant": "lab", "code": "OK"}) == 1
    assert get("birnn_tenant_sequences_total", {"tenant": "lab"}) == 8
    assert get("birnn_tenant_engine_seconds_total", {"tenant": "lab"}) == 0.5
    assert get("birnn_tenant_refused_total", {"tenant": "lab", "reason": "rate"}) == 1
    assert get("birnn_tenant_refused_total", {"tenant": "lab", "reason": "right"}) == 1
    samples = [
        sample for family in metrics.registry.collect() for sample in family.samples if "tenant" in sample.labels
    ]
    assert {sample.labels["tenant"] for sample in samples} == {"lab"}


def test_the_bound_holds_over_all_front_ends() -> None:
    engine = Metrics()
    engine.tenants.labels = TenantLabels(lambda: ["listed"])
    for life in range(3):
        front_end = Metrics(f"frontend-{life}")
        for number in range(MOST_LABELS):
            front_end.tenants.count_call(f"name:{life}-{number}", "OK", 1)
        add_report(engine, life, Reporter(front_end).report())
    end_reports(engine, 0)
    found = [sample for family in engine.registry.collect() for sample in family.samples if "tenant" in sample.labels]
    requests = {
        sample.labels["tenant"]: sample.value
        for sample in found
        if sample.name.endswith("requests_total") and sample.labels["code"] == "OK"
    }
    assert len(requests) == MOST_LABELS  # `listed` has its place, and has sent nothing; the rest is `other`
    assert sum(requests.values()) == 3 * MOST_LABELS
    assert requests[OTHER] == 2 * MOST_LABELS + 1


def test_front_ends_hear_of_a_limit_when_to_come_back() -> None:
    (message,) = Decoder().feed(pack(Failed(7, RateLimitedError("too many", 2.5))))
    assert isinstance(message, Failed)
    assert isinstance(message.error, RateLimitedError)
    assert message.error.retry_after == 2.5
