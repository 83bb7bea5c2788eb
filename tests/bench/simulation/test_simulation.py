"""The simulation's own pieces: loads, other servers' policies, the bound, and the offline planner."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from bench.planner import LOADS, planner
from bench.simulation.bound import least_mean_latency
from bench.simulation.clairvoyant import Clairvoyant
from bench.simulation.device import CPU, GPU, PACKED, Device, simulate
from bench.simulation.load import Fixed, HeavyTailed, LogNormal, Mixed, Recorded, Request, Sizes, bursts, make_load
from bench.simulation.policies import Fifo, Ours, Triton

LENGTHS = LogNormal()


@pytest.mark.parametrize("sizes", [Fixed(7), Mixed((1, 32), (0.75, 0.25)), HeavyTailed(largest=64)])
def test_sizes_have_the_mean_that_they_say(sizes: Sizes) -> None:
    random = np.random.default_rng(0)
    assert np.mean([sizes(random) for _ in range(20_000)]) == pytest.approx(sizes.mean, rel=0.05)


def test_bursts_come_in_their_share_of_the_time_at_the_same_rate_on_average() -> None:
    times = bursts(100.0, 20_000, np.random.default_rng(0), share=0.25, cycle=0.5)
    assert (np.diff(times) >= 0).all()
    assert (times % 0.5 <= 0.125 + 1e-9).all()
    assert len(times) / times[-1] == pytest.approx(100.0, rel=0.05)


def test_recorded_lengths_are_drawn_from_the_recording() -> None:
    assert set(Recorded(np.array([3, 5]))(np.random.default_rng(0), 100).tolist()) == {3, 5}


def requests_at(*arrivals: float, rows: int = 1) -> list[Request]:
    return [Request(arrival, np.full(rows, 10)) for arrival in arrivals]


def test_triton_waits_for_a_preferred_batch_until_its_oldest_request_has_waited_long_enough() -> None:
    device = replace(CPU, slots=1)
    early = simulate(Triton(8, preferred=2, delay=0.01), requests_at(0.0, 0.001), device)
    assert [batch.start for batch in early.batches] == [0.001]
    late = simulate(Triton(8, preferred=4, delay=0.01), requests_at(0.0, 0.001), device)
    assert [batch.start for batch in late.batches] == [0.01]


def test_triton_never_splits_a_request_that_fits() -> None:
    outcome = simulate(Triton(8, preferred=1, delay=0.0), requests_at(0.0, 0.0, 0.0, rows=5), replace(CPU, slots=1))
    assert [len(batch.rows) for batch in outcome.batches] == [5, 5, 5]


def test_a_token_budget_counts_padding() -> None:
    requests = [Request(0.0, np.array([10, 90, 10, 10]))]
    outcome = simulate(Fifo(100, max_tokens=200.0), requests, replace(CPU, slots=1))
    assert [len(batch.rows) for batch in outcome.batches] == [2, 2]


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("device", [CPU, PACKED, GPU])
def test_nobody_beats_the_bound(device: Device, load: str) -> None:
    sizes, arrivals = LOADS[load]
    for share in (0.1, 0.8):
        rate = share * device.capacity(LENGTHS) / sizes.mean
        requests = make_load(rate, max(20, int(400 / sizes.mean)), sizes, LENGTHS, seed=2, arrivals=arrivals)
        bound = least_mean_latency(requests, device)
        assert 0 < bound <= simulate(Ours(device), requests, device).latencies.mean()
        assert bound <= simulate(Fifo(8), requests, device).latencies.mean()


def test_the_bound_is_met_where_every_request_is_alone_and_fills_the_device() -> None:
    device = replace(CPU, slots=1)
    requests = requests_at(0.0, 1.0, 2.0, rows=32)
    assert least_mean_latency(requests, device) == pytest.approx(device.seconds(np.full(32, 10), 1))


@pytest.mark.parametrize(("device", "rows", "count"), [(PACKED, 8, 60), (PACKED, 32, 30), (CPU, 8, 25)])
def test_ours_is_within_15_percent_of_a_planner_that_knows_what_is_to_come(
    device: Device, rows: int, count: int
) -> None:
    requests = make_load(0.8 * device.capacity(LENGTHS) / rows, count, Fixed(rows), LENGTHS, seed=1)
    ours = simulate(Ours(device), requests, device)
    offline = simulate(Clairvoyant(device, requests, horizon=4 * ours.latencies.mean()), requests, device)
    assert np.isfinite(offline.finished).all()
    assert ours.latencies.mean() <= 1.15 * offline.latencies.mean()
    assert least_mean_latency(requests, device) <= offline.latencies.mean()


def test_the_command_prints_a_table_and_writes_the_results(tmp_path: Path) -> None:
    sequences = tmp_path / "some.smi"
    sequences.write_text("CCO\nc1ccccc1\n\n")
    arguments = ["--device", "packed", "--load", "8 a call", "--share", "0.5", "--count", "200", "--offline"]
    result = CliRunner().invoke(planner, [*arguments, "--sequences", str(sequences), "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    results = json.loads((tmp_path / "planner.json").read_text())["results"]
    assert results[0]["policy"] == "ours"
    assert {one["requests"] for one in results} == {50}
    assert all(one["mean"] >= one["bound"] for one in results)
    assert "| packed | 8 a call, 50% | ours |" in result.output
