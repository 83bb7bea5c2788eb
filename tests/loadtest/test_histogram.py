import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birnn_loadtest.histogram import Histogram, needed

times = st.lists(st.floats(1e-6, 3600), min_size=1, max_size=300)


@given(values=times, percent=st.sampled_from([1.0, 50.0, 90.0, 99.0, 99.9, 100.0]))
def test_a_percentile_is_the_value_that_covers_its_share_to_three_digits(values: list[float], percent: float) -> None:
    exact = float(np.percentile(values, percent, method="inverted_cdf"))
    assert Histogram.of(values).percentile(percent) == pytest.approx(exact, rel=2e-3, abs=1.1e-6)


@given(first=times, second=times)
def test_merged_histograms_are_that_of_all_values(first: list[float], second: list[float]) -> None:
    merged = Histogram.merged([Histogram.of(first), Histogram.of(second), Histogram()])
    np.testing.assert_array_equal(merged.counts, Histogram.of([*first, *second]).counts)


@given(values=st.lists(st.floats(1e-6, 3600), max_size=100))
def test_text_and_other_processes_get_the_same(values: list[float]) -> None:
    histogram = Histogram.of(values)
    for copy in (Histogram(histogram.encoded()), pickle.loads(pickle.dumps(histogram))):
        np.testing.assert_array_equal(copy.counts, histogram.counts)
        assert (copy.count, copy.maximum, copy.mean) == (histogram.count, histogram.maximum, histogram.mean)


@given(values=times, limit=st.floats(1e-5, 3600))
def test_counts_within_a_limit_never_count_what_is_clearly_beyond(values: list[float], limit: float) -> None:
    within = Histogram.of(values).count_within(limit)
    assert within <= sum(value <= limit * 1.001 + 1e-6 for value in values)
    assert within >= sum(value <= limit * 0.998 - 1e-6 for value in values)


def test_what_is_out_of_range_counts_as_its_end() -> None:
    histogram = Histogram.of([0.0, -1.0, 1e9])
    assert histogram.count == 3
    assert histogram.percentile(50) == pytest.approx(1e-6)
    assert histogram.maximum == pytest.approx(3600, rel=1e-3)


@pytest.mark.parametrize(("percent", "calls"), [(50, 5), (95, 59), (99, 299), (99.9, 2995)])
def test_percentiles_need_calls(percent: float, calls: int) -> None:
    assert needed(percent) == calls
    assert Histogram.of([0.01] * (calls - 1)).supported(percent) is None
    assert Histogram.of([0.01] * calls).supported(percent) == pytest.approx(0.01, rel=1e-3)


def test_an_empty_one_has_no_figures() -> None:
    histogram = Histogram()
    assert (histogram.count, histogram.mean, histogram.maximum) == (0, 0.0, 0.0)
    assert histogram.supported(50) is None
