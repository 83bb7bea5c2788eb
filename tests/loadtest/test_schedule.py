from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birnn_loadtest.schedule import choices, poisson_arrivals


@given(rate=st.floats(0.1, 2000), seconds=st.floats(0.01, 5), seed=st.integers(0, 1000))
def test_arrivals_ascend_within_the_test_and_repeat_with_the_seed(rate: float, seconds: float, seed: int) -> None:
    arrivals = poisson_arrivals(rate, seconds, seed)
    assert np.all(np.diff(arrivals) >= 0)
    assert np.all((arrivals >= 0) & (arrivals < seconds))
    np.testing.assert_array_equal(arrivals, poisson_arrivals(rate, seconds, seed))


def test_another_seed_gives_other_arrivals() -> None:
    assert not np.array_equal(poisson_arrivals(100, 1, 0)[:10], poisson_arrivals(100, 1, 1)[:10])


def test_a_longer_test_begins_with_the_same_arrivals() -> None:
    short, long = poisson_arrivals(700, 3, 5), poisson_arrivals(700, 30, 5)
    np.testing.assert_array_equal(long[: len(short)], short)


def test_arrivals_come_at_the_rate_with_exponential_gaps() -> None:
    arrivals = poisson_arrivals(1000, 100, 3)
    gaps = np.diff(arrivals)
    assert len(arrivals) == pytest.approx(100_000, rel=0.02)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.02)
    assert np.mean(gaps > 0.001) == pytest.approx(np.exp(-1), rel=0.02)


@given(population=st.integers(1, 50), batch=st.integers(1, 9000), seed=st.integers(0, 100))
def test_choices_are_of_the_population_and_repeat_with_the_seed(population: int, batch: int, seed: int) -> None:
    first = list(islice(choices(population, batch, seed), 3))
    again = list(islice(choices(population, batch, seed), 3))
    np.testing.assert_array_equal(first, again)
    assert all(rows.shape == (batch,) and rows.min() >= 0 and rows.max() < population for rows in first)


def test_choices_go_on_beyond_a_block_and_reach_every_sequence() -> None:
    rows = np.array(list(islice(choices(10, 3, 0), 10_000)))
    assert len(np.unique(rows[:5000], axis=0)) > 900
    np.testing.assert_allclose(np.bincount(rows.ravel()) / rows.size, 0.1, atol=0.01)
