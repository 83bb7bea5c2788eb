"""Which series there are, from when, and until when."""

import asyncio
import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from birnn_service.errors import ANSWERS, Reason
from birnn_service.observe import metrics as module
from birnn_service.observe.histogram import Bucket
from birnn_service.observe.metrics import CALL_SECONDS, Metrics
from birnn_service.observe.rpc_durations import BUCKETS
from birnn_service.tenants import MOST_LABELS
from tests.service.observe.counting import counted

SMILES = ("smiles", "1")


def requests(metrics: Metrics, **labels: str) -> set[tuple[str, str, str, str]]:
    """Encoder, version, method and code of the series of calls."""
    samples = [sample for family in metrics.requests.collect() for sample in family.samples]
    found = [sample.labels for sample in samples if labels.items() <= sample.labels.items()]
    return {(one["encoder"], one["version"], one["method"], one["code"]) for one in found}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - no one tells
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("is_served_first", [True, False])
def test_failures_of_a_version_begin_at_0_whether_it_or_the_methods_came_first(is_served_first: bool) -> None:
    metrics = Metrics()
    if is_served_first:
        metrics.begin(SMILES)
    metrics.take_calls(["Encode", "ModelInfer"])
    if not is_served_first:
        metrics.begin(SMILES)
    assert requests(metrics, encoder="smiles") == {
        (*SMILES, method, code.name) for method in ("Encode", "ModelInfer") for code in ANSWERS
    }
    # A version that cannot be found has another fate than one that was.
    assert ("", "", "Encode", "NOT_FOUND") in requests(metrics)
    refused = {sample.labels["reason"] for family in metrics.refused.collect() for sample in family.samples}
    assert refused == {str(reason) for reason in Reason}
    assert counted(metrics, "birnn_refused_total") == counted(metrics, "birnn_requests_total") == 0


def test_failures_of_a_tenant_begin_at_0_with_its_first_call_and_their_series_are_bounded() -> None:
    metrics = Metrics()
    metrics.tenants.count_call("name:lab", "OK", 3)
    assert counted(metrics, "birnn_tenant_requests_total") == 1
    codes = {sample.labels["code"] for family in metrics.tenants.requests.collect() for sample in family.samples}
    assert codes == {code.name for code in ANSWERS}
    reasons = {sample.labels["reason"] for family in metrics.tenants.refused.collect() for sample in family.samples}
    assert reasons == {str(reason) for reason in Reason if reason.of_encoder}
    for number in range(2 * MOST_LABELS):
        metrics.tenants.count_call(f"name:{number}", "OK", 1)
    # Each with a label of its own, and one for all others.
    assert len(list(metrics.tenants.requests.items())) == (MOST_LABELS + 1) * len(ANSWERS)


def test_buckets_near_a_deadline_of_a_second_are_a_tenth_wide() -> None:
    assert CALL_SECONDS[0] == 0.00025
    assert CALL_SECONDS[-1] == 60.0
    near = [bound for bound in CALL_SECONDS if 0.5 <= bound <= 1.1]
    assert all(upper <= 1.1001 * lower for lower, upper in itertools.pairwise(near))
    assert set(BUCKETS) <= set(CALL_SECONDS)


@given(st.integers(0, 2**32 - 1), st.floats(0.3, 1.0), st.floats(0.02, 0.5))
def test_a_dashboard_s_p99_near_a_second_is_within_a_tenth_of_the_callers(
    seed: int, center: float, width: float
) -> None:
    took = np.random.default_rng(seed).lognormal(np.log(center), width, 2000)
    took = took[took < 1.0]
    exact = float(np.quantile(took, 0.99))
    assume(exact >= 0.5)
    metrics = Metrics()
    for seconds in took.tolist():
        metrics.of(SMILES).count_call("Encode", "OK", seconds)
    ((_, series),) = metrics.request_seconds.items()
    assert abs(quantile(series.cumulative()[0], 0.99) / exact - 1) < 0.1


def quantile(buckets: list[Bucket], share: float) -> float:
    """What PromQL's `histogram_quantile` says."""
    wanted, below, lower = share * buckets[-1][1], 0.0, 0.0
    for bound, count, *_ in buckets:
        if count >= wanted:
            return lower + (float(bound) - lower) * (wanted - below) / (count - below)
        below, lower = count, float(bound)
    raise AssertionError("the last bucket holds all")


async def test_counts_of_a_version_stay_for_a_while_after_it_was_unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FORGET_SECONDS", 0.05)
    metrics = Metrics()
    metrics.take_calls(["Encode"])
    for address in (SMILES, ("smiles", "2")):
        metrics.begin(address)
        metrics.of(address).count_call("Encode", "OK", 0.1)
        metrics.of(address).tokens.inc(7)
    metrics.end(SMILES)
    assert counted(metrics, "birnn_tokens_total", version="1") == 7
    await until(lambda: not requests(metrics, version="1"))
    left = [sample for family in metrics.registry.collect() for sample in family.samples]
    assert [sample for sample in left if sample.labels.get("version") == "1"] == []
    assert counted(metrics, "birnn_requests_total", version="2") == 1
    assert counted(metrics, "birnn_request_seconds_count", version="2") == 1
    # It may come back, and then counts anew.
    metrics.begin(SMILES)
    metrics.of(SMILES).count_call("Encode", "OK", 0.1)
    assert counted(metrics, "birnn_requests_total", version="1") == 1


async def test_a_version_that_comes_back_in_time_or_got_new_files_keeps_its_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "FORGET_SECONDS", 0.05)
    metrics = Metrics()
    metrics.begin(SMILES)
    metrics.of(SMILES).tokens.inc(7)
    metrics.end(SMILES)
    metrics.begin(SMILES)
    # New files are loaded beside the old ones.
    metrics.begin(SMILES)
    metrics.end(SMILES)
    other = ("smiles", "2")
    metrics.begin(other)
    metrics.of(other).count_call("Encode", "OK", 0.1)
    metrics.end(other)
    await until(lambda: not requests(metrics, version="2"))
    assert counted(metrics, "birnn_tokens_total", version="1") == 7


def test_opentelemetry_s_names_have_the_same_numbers() -> None:
    metrics = Metrics()
    metrics.rpc_durations.methods = {"Encode": "birnn.v1.EncoderService/Encode"}
    metrics.of(SMILES).count_call("Encode", "OK", 0.06)
    metrics.of(SMILES).count_call("Encode", "INTERNAL", 0.2)
    metrics.of(SMILES).count_call("POST /v1/embeddings", "OK", 0.2)
    name = "rpc_server_call_duration_seconds"
    ok = {
        "rpc_system_name": "grpc",
        "rpc_method": "birnn.v1.EncoderService/Encode",
        "rpc_response_status_code": "OK",
        "error_type": "",
    }
    assert counted(metrics, f"{name}_count", **ok) == 1
    assert counted(metrics, f"{name}_sum", **ok) == 0.06
    assert counted(metrics, f"{name}_bucket", **ok, le="0.05") == 0
    assert counted(metrics, f"{name}_bucket", **ok, le="0.075") == 1
    assert counted(metrics, f"{name}_count", error_type="INTERNAL") == 1
    assert counted(metrics, f"{name}_count") == 2
