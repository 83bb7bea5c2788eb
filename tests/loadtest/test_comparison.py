"""Comparisons of runs whose difference is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from birnn_loadtest.comparison import CONFIDENCE, FEWEST_WINDOWS, Difference, Windows, compare
from birnn_loadtest.histogram import Histogram
from birnn_loadtest.recorder import Interval


def interval(latency: list[float], failed: int = 0) -> Interval:
    return Interval(len(latency) + failed, failed, len(latency), Histogram.of(latency))


def run(seed: int, scale: float = 0.004, count: int = 20, rate: int = 200, vary: float = 0.0) -> Windows:
    """Windows of a second; `vary` is the standard deviation of the logarithm of their mean latency."""
    random = np.random.default_rng(seed)
    means = scale * np.exp(random.normal(0, vary, count))
    return Windows([interval(random.exponential(mean, rate).tolist()) for mean in means], count)


def by_name(before: Windows, after: Windows) -> dict[str, Difference]:
    return {one.name: one for one in compare(before, after)}


def test_a_run_does_not_differ_from_itself() -> None:
    for one in compare(run(0), run(0)):
        assert one.verdict == "within noise", one
        assert one.before == one.after


def test_what_is_slower_is_told_with_how_much() -> None:
    found = by_name(run(0), run(1, scale=0.006))
    for name in ("mean", "p50", "p90", "p99"):
        one = found[name]
        assert one.verdict == "higher"
        assert one.ratio is not None
        middle, low, high = one.ratio
        assert low < middle < high
        assert low < 0.5 < high
    assert found["calls"].verdict == "within noise"
    assert by_name(run(1, scale=0.006), run(0))["p50"].verdict == "lower"


def test_windows_that_vary_widely_hide_what_steady_ones_show() -> None:
    """Twice the mean is beyond noise only where seconds are alike: calls do not count one by one."""
    assert by_name(run(0), run(1, scale=0.008))["mean"].verdict == "higher"
    assert by_name(run(2, vary=2.0), run(3, scale=0.008, vary=2.0))["mean"].verdict == "within noise"


def test_runs_of_the_same_server_seldom_differ() -> None:
    """Of 30 pairs, 0.3 are expected beyond noise for each figure; 20 windows say a little too much."""
    beyond = dict.fromkeys(("mean", "p50", "p99"), 0)
    for seed in range(30):
        found = by_name(run(seed, rate=60, vary=0.3), run(1000 + seed, rate=60, vary=0.3))
        for name in beyond:
            beyond[name] += found[name].verdict != "within noise"
    assert max(beyond.values()) <= 2, beyond


def test_errors_and_throughput_are_compared() -> None:
    well = Windows([interval([0.01] * 50) for _ in range(20)], 20)
    ill = Windows([interval([0.01] * 40, failed=8 + number % 4) for number in range(20)], 20)
    found = by_name(well, ill)
    assert (found["failed"].verdict, found["calls"].verdict) == ("higher", "lower")
    assert (found["calls"].before, found["calls"].after) == (50, 40)
    assert found["failed"].ratio is None, "nothing is a share of no failures"


@pytest.mark.parametrize("count", [1, FEWEST_WINDOWS - 1])
def test_too_few_windows_tell_no_noise(count: int) -> None:
    for one in compare(run(0, count=count), run(1)):
        assert one.verdict == "unknown"
        assert one.before != one.after or one.name in ("calls", "failed")


def test_what_too_few_calls_support_is_not_compared() -> None:
    found = by_name(run(0, rate=10), run(1, rate=10))
    assert (found["p99"].before, found["p99"].verdict) == (None, "unknown")
    assert found["p50"].verdict == "within noise"


def test_a_run_in_which_nothing_was_answered_can_be_compared() -> None:
    found = by_name(run(0), Windows([interval([], failed=5) for _ in range(20)], 20))
    assert found["mean"].verdict == found["p50"].verdict == "unknown"
    assert (found["failed"].verdict, found["calls"].verdict) == ("higher", "lower")
    assert compare(Windows([], 0), Windows([], 0)) == []


@settings(deadline=None, max_examples=25)
@given(st.lists(st.lists(st.floats(1e-6, 100), max_size=30), min_size=1, max_size=15))
def test_figures_are_those_of_all_calls(latency: list[list[float]]) -> None:
    figures = Windows([interval(one) for one in latency], len(latency)).figures()
    together = Histogram.of([value for one in latency for value in one])
    assert figures.get("mean", 0.0) == pytest.approx(together.mean or figures.get("mean", 0.0))
    for percent in (50.0, 99.0):
        assert figures.get(f"p{percent:g}") == (together.supported(percent) if together.count else None)


def test_the_interval_is_of_drawn_windows() -> None:
    """Of means of n windows that are 0 or 1, the draws are binomial; so is their spread."""
    windows = Windows([interval([1e-6] * 1000 if number % 2 else [1.0] * 1000) for number in range(40)], 40)
    draws = windows.drawn(0)["mean"]
    assert draws.std() == pytest.approx(0.5 / 40**0.5, rel=0.1)
    assert np.quantile(draws, CONFIDENCE) > 0.65
