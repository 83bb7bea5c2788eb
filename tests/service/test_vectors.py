"""Vectors of length 1, as float16 and as int8: right for every float32, tested against float64."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from birnn_service import vectors
from birnn_service.vectors import ElementType, as_type, normalized

MAX = float(np.finfo(np.float32).max)
TINY = float(np.finfo(np.float32).smallest_subnormal)
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
# Rows of one magnitude each, from subnormal numbers to the largest ones, and rows of all at once.
MAGNITUDES = [
    st.floats(-1, 1, width=32),
    st.integers(-400, 400).map(lambda steps: steps * TINY),
    st.floats(MAX / 2, MAX, width=32) | st.floats(-MAX, -MAX / 2, width=32),
    FINITE,
]
ROWS = st.sampled_from([*MAGNITUDES, st.one_of(MAGNITUDES)]).flatmap(
    lambda numbers: arrays.arrays(np.float32, st.tuples(st.integers(0, 5), st.integers(1, 9)), elements=numbers)
)
UNUSUAL = np.array([[1, np.nan, 2], [np.nan] * 3, [0, -0.0, 0], [1, -np.inf, 2], [3, 0, -4]], dtype=np.float32)


@given(ROWS)
def test_normalized_rows_are_those_of_float64(values: NDArray[np.float32]) -> None:
    exact = values.astype(np.longdouble)
    norms = np.sqrt((exact**2).sum(axis=1, keepdims=True))
    exact = np.divide(exact, norms, out=np.zeros_like(exact), where=norms > 0)
    result = normalized(values)
    assert result.dtype == np.float32
    assert (np.abs(result - exact) <= 0.51 * np.spacing(np.abs(result))).all()
    lengths = np.linalg.norm(result.astype(np.float64), axis=1)
    assert lengths == pytest.approx(values.any(axis=1).astype(float), abs=1e-6)


def test_rows_without_a_direction_are_nan_and_zeros_stay() -> None:
    result = normalized(UNUSUAL)
    assert np.isnan(result).all(axis=1).tolist() == [True, True, False, True, False]
    assert result[2].tolist() == [0, 0, 0]
    assert result[4] == pytest.approx([0.6, 0, -0.8])


@given(ROWS)
@example(np.array([[MAX, 1.0]], dtype=np.float32))
@example(np.array([[255 * TINY, 0.0]], dtype=np.float32))
def test_an_integer_times_its_scale_is_off_by_half_a_scale_and_rounding(values: NDArray[np.float32]) -> None:
    result = as_type(values, ElementType.INT8)
    assert result.scales is not None
    assert result.values.dtype == np.int8
    assert result.scales.dtype == np.float32
    assert result.overflown.tolist() == []
    assert (result.values >= -127).all()
    scales = result.scales.astype(np.float64)[:, None]
    errors = np.abs(values.astype(np.float64) - result.values * scales)
    assert (errors <= (0.5 + 1e-5) * scales).all()
    assert np.isfinite(result.values * result.scales[:, None]).all()
    largest = np.abs(values).max(axis=1).astype(np.float64)
    assert (np.abs(result.scales - largest / 127) <= np.spacing(result.scales)).all()


@given(FINITE.filter(lambda number: abs(number) > 1e-36), st.integers(2, 9))
def test_the_largest_number_of_a_row_uses_the_whole_range(number: float, count: int) -> None:
    row = np.full((1, count), number, dtype=np.float32)
    row[0, 1:] = 0
    result = as_type(row, ElementType.INT8)
    assert np.abs(result.values).tolist() == [[127] + [0] * (count - 1)]


def test_rows_of_failed_items_have_zeros_and_no_scale_and_zeros_have_scale_0() -> None:
    result = as_type(UNUSUAL, ElementType.INT8)
    assert result.scales is not None
    assert np.isnan(result.scales).tolist() == [True, True, False, True, False]
    assert not result.values[:4].any()
    assert result.scales[2] == 0
    assert result.values[4].tolist() == [95, 0, -127]
    assert result.overflown.tolist() == [3]


@given(ROWS)
def test_float16_is_rounded_to_nearest_and_rows_beyond_its_range_are_named(values: NDArray[np.float32]) -> None:
    result = as_type(values, ElementType.FLOAT16)
    assert result.values.dtype == np.float16
    assert result.scales is None
    # From there on the nearest of the float16 numbers, if they went on, is beyond the largest.
    beyond = np.asarray((np.abs(values) >= 65520).any(axis=1))
    assert result.overflown.tolist() == np.flatnonzero(beyond).tolist()
    kept = result.select(~beyond)
    wide = kept.values.astype(np.float64)
    assert (np.abs(wide - values[~beyond]) <= 0.5 * np.spacing(np.abs(kept.values)).astype(np.float64)).all()


def test_float16_keeps_nan_and_names_infinities() -> None:
    result = as_type(UNUSUAL, ElementType.FLOAT16)
    assert result.overflown.tolist() == [3]
    assert np.isnan(result.values[:2]).tolist() == [[False, True, False], [True] * 3]


def test_float32_is_what_it_was() -> None:
    result = as_type(UNUSUAL, ElementType.FLOAT32)
    assert result.values is UNUSUAL
    assert (result.scales, result.overflown.tolist()) == (None, [])


@pytest.mark.parametrize("element_type", [ElementType.FLOAT16, ElementType.INT8])
def test_rows_of_failed_items_can_be_cleared_or_left_out(element_type: ElementType) -> None:
    result = as_type(np.arange(12, dtype=np.float32).reshape(4, 3), element_type)
    left = result.select(np.array([0, 2]))
    assert left.values.tolist() == result.values[[0, 2]].tolist()
    result.clear(np.array([1]))
    if element_type is ElementType.FLOAT16:
        assert np.isnan(result.values).all(axis=1).tolist() == [False, True, False, False]
        assert left.scales is None
    else:
        assert result.scales is not None
        assert np.isnan(result.scales).tolist() == [False, True, False, False]
        assert result.values[1].tolist() == [0, 0, 0]
        assert left.scales is not None
        assert left.scales.tolist() == result.scales[[0, 2]].tolist()


@pytest.mark.parametrize("block", [1, 6, 7, 1000])
def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    values = np.random.default_rng(0).standard_normal((50, 3), dtype=np.float32)
    values[17, 1] = 1e6
    lengths = normalized(values)
    whole = [as_type(values, one) for one in ElementType]
    monkeypatch.setattr(vectors, "BLOCK", block)
    assert normalized(values).tobytes() == lengths.tobytes()
    for before, after in zip(whole, (as_type(values, one) for one in ElementType), strict=True):
        assert before.values.tobytes() == after.values.tobytes()
        assert before.overflown.tolist() == after.overflown.tolist()
        if before.scales is not None:
            assert after.scales is not None
            assert before.scales.tolist() == after.scales.tolist()


@pytest.mark.parametrize("element_type", ElementType)
def test_no_rows_are_no_rows(element_type: ElementType) -> None:
    nothing = np.empty((0, 8), dtype=np.float32)
    assert normalized(nothing).shape == as_type(nothing, element_type).values.shape == (0, 8)
