import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birnn_loadtest.confidence import bounds

windows = st.lists(
    st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), min_size=1, max_size=30
)


@given(windows=windows, confidence=st.floats(0.6, 0.99))
def test_bounds_surround_the_share(windows: list[tuple[int, int]], confidence: float) -> None:
    lower, upper = bounds(windows, confidence)
    share = sum(k for k, _ in windows) / sum(n for _, n in windows)
    assert 0 <= lower <= share <= upper <= 1
    wider = bounds(windows, (confidence + 1) / 2)
    assert wider[0] <= lower + 1e-12
    assert wider[1] >= upper - 1e-12


def test_without_misses_it_is_the_exact_binomial_bound() -> None:
    # (1 - upper)^n = 0.05.
    assert bounds([(0, 100), (0, 199)], 0.95)[1] == pytest.approx(1 - 0.05 ** (1 / 299))
    assert bounds([(0, 299)], 0.95)[1] < 0.01 + 1e-4


def test_misses_that_come_together_say_less_than_as_many_that_do_not() -> None:
    apart, together = [(5, 500)] * 20, [(100, 500)] + [(0, 500)] * 19
    assert bounds(together, 0.95)[1] > 2 * bounds(apart, 0.95)[1]


def test_nothing_is_known_without_calls() -> None:
    assert bounds([], 0.95) == (0.0, 1.0)
    assert bounds([(0, 0)], 0.95) == (0.0, 1.0)


@pytest.mark.parametrize(("spread", "often"), [(0.0, 0.94), (0.4, 0.9), (0.8, 0.85)])
def test_the_upper_bound_holds_about_as_often_as_it_says(spread: float, often: float) -> None:
    # Shares of windows vary log-normally around 1 %, or do not. Where few windows miss much, twenty tell too little.
    random = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        shares = 0.01 * np.exp(random.normal(-(spread**2) / 2, spread, 20))
        counts = random.binomial(500, shares)
        held += bounds([(int(count), 500) for count in counts], 0.95)[1] >= 0.01
    assert held / 400 >= often
