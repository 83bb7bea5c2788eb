"""Tenants with weights, in simulated time: engine time and backlog go by weight, and nothing is left unused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from bench.simulation.device import PACKED, Device, Outcome, simulate
from bench.simulation.load import LogNormal, Request
from bench.simulation.neighbors import NEIGHBORS, beside
from bench.simulation.policies import Ours
from bench.tenants import FIFO, tenants
from tests.bench.simulation.test_neighbors import assert_bounded

LENGTHS = LogNormal()
SECONDS = 2.0
ONE_TENANT = [name for name in NEIGHBORS if "ever new" not in name]


def flood(caller: str, size: int, device: Device, seed: int) -> list[Request]:
    """Three times what the device can do, in calls of `size`."""
    random = np.random.default_rng(seed)
    rate = 3 * device.capacity(LENGTHS) / size
    return [Request(time, LENGTHS(random, size), None, caller) for time in np.arange(0.0, SECONDS, 1 / rate).tolist()]


def served(weights: dict[str, float], sizes: dict[str, int], device: Device = PACKED) -> dict[str, float]:
    """The share of the tokens that each tenant got while all of them had more to do than the device could."""
    floods = [flood(caller, size, device, seed) for seed, (caller, size) in enumerate(sizes.items())]
    requests = sorted((call for calls in floods for call in calls), key=lambda call: call.arrival)
    outcome = simulate(Ours(device, max_backlog_seconds=0.3, weights=weights), requests, device)
    tokens = dict.fromkeys(sizes, 0)
    for batch in outcome.batches:
        if 0.3 < batch.start < SECONDS:
            for (number, _), length in zip(batch.rows, batch.lengths.tolist(), strict=True):
                tokens[requests[number].caller] += length
    return {caller: count / sum(tokens.values()) for caller, count in tokens.items()}


@pytest.mark.parametrize("sizes", [{"a": 8, "b": 8}, {"a": 64, "b": 1}, {"a": 1, "b": 64}, {"a": 256, "b": 256}])
@pytest.mark.parametrize("weights", [{"a": 4.0}, {"a": 1.0}, {"a": 0.8, "b": 0.2}, {"b": 0.25}, {"a": 20.0, "b": 80.0}])
def test_engine_time_goes_by_weight(weights: dict[str, float], sizes: dict[str, int]) -> None:
    a, b = weights.get("a", 1.0), weights.get("b", 1.0)
    assert served(weights, sizes)["a"] == pytest.approx(a / (a + b), abs=0.04)


def test_three_tenants_share_by_weight() -> None:
    shares = served({"a": 4.0, "b": 2.0}, {"a": 8, "b": 8, "c": 8})
    assert [shares[caller] for caller in "abc"] == pytest.approx([4 / 7, 2 / 7, 1 / 7], abs=0.04)


def ran(outcome: Outcome) -> list[tuple[object, float, float]]:
    return [(batch.rows, batch.start, batch.end) for batch in outcome.batches]


@pytest.mark.parametrize("weight", [0.01, 4.0, 100.0])
def test_a_lone_tenant_has_the_whole_device_whatever_its_weight(weight: float) -> None:
    requests = flood("a", 8, PACKED, 0)[:2000]
    one, other = (
        simulate(Ours(PACKED, max_backlog_seconds=0.3, weights={"a": given}), requests, PACKED)
        for given in (1.0, weight)
    )
    assert ran(one) == ran(other)
    assert one.late == other.late


@pytest.mark.parametrize("neighbor", ONE_TENANT)
@pytest.mark.parametrize("weight", [0.1, 4.0, 16.0])
def test_a_neighbor_of_any_weight_costs_who_stays_within_its_share_no_more_than_three_batches(
    neighbor: str, weight: float
) -> None:
    assert_bounded(beside(PACKED, NEIGHBORS[neighbor], LENGTHS, weight=weight))


@pytest.mark.parametrize("device", [PACKED, replace(PACKED, slots=1, wide_cost=None)])
def test_the_backlog_is_shared_by_weight(device: Device) -> None:
    policy = Ours(device, max_backlog_seconds=1.0, weights={"a": 4.0})
    lane, waiting = policy.lanes[0], {"a": 0.0, "b": 0.0}
    # Both have called before, so that they are known.
    for number, now in enumerate((0.0, 2.0, 2.0)):
        for caller in waiting:
            assert policy.add(
                1000 * number + len(caller) + ord(caller), Request(now, np.full(1, 45), None, caller), now
            )
    full = dict.fromkeys(waiting, False)
    for number in range(10_000, 100_000):
        caller = min((caller for caller in waiting if not full[caller]), key=lambda caller: waiting[caller], default="")
        if not caller:
            break
        request = Request(2.0, np.full(8, 45), None, caller)
        full[caller] = not policy.add(number, request, 2.0)
        waiting[caller] += 0.0 if full[caller] else lane.seconds(request.lengths) / device.slots
    # Both took half of the bound while there was room; beyond it only the heavier one is within its share.
    assert waiting == pytest.approx({"a": 0.8, "b": 0.5}, abs=0.1)


def test_a_change_of_weights_counts_at_once() -> None:
    weights = {"a": 1.0, "b": 1.0}
    policy = Ours(PACKED, weights=weights)
    for number in range(4000):
        policy.add(number, Request(0.0, np.full(8, 45), None, "ab"[number % 2]), 0.0)

    def share(batches: int) -> float:
        rows = [row for _ in range(batches) for launch in policy.fill(1, 1.0)[0] for row in launch.rows]
        return sum(number % 2 == 0 for number, _ in rows) / len(rows)

    assert share(60) == pytest.approx(0.5, abs=0.05)
    weights["a"] = 9.0
    # The next request of a tenant brings its weight.
    policy.add(4000, Request(1.0, np.full(8, 45), None, "a"), 1.0)
    assert share(60) == pytest.approx(0.9, abs=0.05)


def test_the_greedy_tenant_is_drawn_beside_the_promise(tmp_path: Path) -> None:
    done = CliRunner().invoke(tenants, ["--quick", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "tenants.json").read_text())["rows"]
    for row in rows:
        worst = dict(row["worst"])
        assert row["bound"] < worst.pop(FIFO)
        assert max(worst.values()) <= row["bound"]
        assert not any(lost for kind, lost in row["lost"].items() if kind != FIFO)
    assert (tmp_path / "tenants.png").read_bytes().startswith(b"\x89PNG")
