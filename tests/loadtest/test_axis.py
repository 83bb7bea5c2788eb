"""Axes: every value has its place, and round numbers stand beside them."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birnn_loadtest.report.axis import Axis, fitting, linear, logarithmic, number_text, percentiles
from birnn_loadtest.report.chart import spaced

POSITIVE = st.floats(1e-6, 1e9)


def check(axis: Axis, values: list[float]) -> None:
    assert 2 <= len(axis.ticks) <= 12
    ticks = [value for value, _ in axis.ticks]
    assert ticks == sorted(set(ticks))
    assert len({text for _, text in axis.ticks}) == len(ticks), axis.ticks
    for value in (*values, *ticks):
        assert axis.low - 1e-9 * abs(axis.low) <= value <= axis.high * (1 + 1e-9)
        assert min(axis.start, axis.end) <= axis.place(value) <= max(axis.start, axis.end)
    places = [axis.place(value) for value in sorted(values)]
    assert places == sorted(places, reverse=axis.end < axis.start)


@given(st.lists(POSITIVE, min_size=1, max_size=20))
def test_any_values_have_an_axis_that_holds_them(values: list[float]) -> None:
    check(fitting(values, 300, 20), values)
    check(linear(max(values), 60, 640), values)


@given(POSITIVE, st.floats(1, 1e6))
def test_logarithmic_axes_end_at_round_numbers(least: float, ratio: float) -> None:
    axis = logarithmic(least, least * ratio, 0, 100)
    check(axis, [least, least * ratio])
    for end in (axis.low, axis.high):
        assert f"{end:.6e}"[0] in "125"


@given(st.floats(-1e4, -1e-3), st.floats(0, 1e4))
def test_differences_have_an_axis_with_zero(least: float, most: float) -> None:
    axis = linear(most, 0, 100, least)
    assert 0 in [value for value, _ in axis.ticks]
    assert axis.low <= least + 1e-6 * (most - least)
    assert axis.high >= most - 1e-6 * (most - least)


@given(st.integers(1, 10**8))
def test_each_nine_takes_as_much_room(count: int) -> None:
    axis = percentiles(count, 0, 100)
    places = [axis.place(value) for value, _ in axis.ticks][2:]
    steps = [later - before for before, later in itertools.pairwise(places)]
    assert steps == pytest.approx(steps[:1] * len(steps), rel=1e-4)
    assert axis.place(1.0) == 100


def test_percentiles_are_written_with_their_nines() -> None:
    assert [text for _, text in percentiles(20_000, 0, 1).ticks] == ["0 %", "50 %", "90 %", "99 %", "99.9 %", "99.99 %"]


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.25, "0.25"), (20, "20"), (1913.7, "1,914"), (-3.5, "−3.5"), (0.000123, "0.000123")]
)
def test_numbers_have_as_many_digits_as_they_need(value: float, text: str) -> None:
    assert number_text(value) == text


@given(st.lists(st.floats(20, 300), max_size=10))
def test_labels_that_fit_do_not_overlap_and_stay_inside(places: list[float]) -> None:
    moved = sorted(spaced(places, 15, 20, 300))
    assert all(later - before >= 15 - 1e-9 for before, later in itertools.pairwise(moved))
    assert all(20 <= place <= 300 for place in moved)
    apart = sorted(places)
    if all(later - before > 15 for before, later in itertools.pairwise(apart)):
        assert math.dist(moved, apart) == pytest.approx(0)
