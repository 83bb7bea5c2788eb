"""Errors and cosines of encodings and their reference."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from birnn_bundle.agreement import agreement, least_cosine

Matrix = NDArray[np.float64]
NUMBERS = st.floats(-100, 100, allow_subnormal=False).map(lambda value: 0.0 if abs(value) < 1e-3 else value)
PAIRS = st.tuples(st.integers(2, 6), st.integers(1, 5)).flatmap(
    lambda shape: st.tuples(arrays(np.float64, shape, elements=NUMBERS), arrays(np.float64, shape, elements=NUMBERS))
)


@given(PAIRS)
def test_it_is_the_worst_row_of_all(pair: tuple[Matrix, Matrix]) -> None:
    found, expected = pair
    result = agreement(pair, [])
    assert result is not None
    assert result.sequences == len(found)
    assert result.max_error == np.abs(found - expected).max()
    cosines = [
        float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other))) if one.any() else 0.0
        for one, other in zip(found, expected, strict=True)
        if other.any()
    ]
    assert result.least_cosine == pytest.approx(min([1.0, *cosines]), abs=1e-9)


@given(PAIRS, st.integers(1, 5))
def test_tokens_count_too_in_whatever_parts_they_come(pair: tuple[Matrix, Matrix], size: int) -> None:
    found, expected = pair
    parts = [(found[start : start + size], expected[start : start + size]) for start in range(0, len(found), size)]
    exact = np.ones((2, 3))
    split, whole = agreement((exact, exact), parts), agreement((exact, exact), [pair])
    assert split == whole
    assert whole is not None
    assert whole.max_error == np.abs(found - expected).max()
    assert whole.least_token_cosine == min(1.0, *(least_cosine(*part) for part in parts))
    # Of encodings of sequences only.
    assert whole.least_cosine == pytest.approx(1)
    assert whole.least_centered_cosine == 1


@given(arrays(np.float64, (5, 3), elements=NUMBERS), arrays(np.float64, (3,), elements=NUMBERS))
def test_what_all_vectors_share_hides_errors_of_direction_but_not_in_centered_ones(
    vectors: Matrix, shared: Matrix
) -> None:
    turned = vectors[:, ::-1].copy()
    alone, moved = agreement((turned, vectors), []), agreement((turned + shared, vectors + shared), [])
    assert alone is not None
    assert moved is not None
    assert alone.least_centered_cosine == pytest.approx(moved.least_centered_cosine, abs=1e-6)


def test_a_large_shared_mean_brings_all_cosines_near_one() -> None:
    vectors = np.eye(4)
    found = agreement((vectors[::-1] + 1000, vectors + 1000), [])
    assert found is not None
    assert found.least_cosine > 0.99999
    assert found.least_centered_cosine is not None
    assert found.least_centered_cosine < 0


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_not_finite_agrees_with_nothing(wrong: float) -> None:
    exact = np.ones((2, 3))
    broken = exact.copy()
    broken[1, 2] = wrong
    assert agreement((broken, exact), []) is None
    assert agreement((exact, exact), [(broken, exact)]) is None


def test_a_vector_of_zeros_has_no_direction_and_nothing_may_become_one() -> None:
    zeros, ones = np.zeros((1, 3)), np.ones((1, 3))
    assert least_cosine(ones, zeros) == 1
    assert least_cosine(zeros, ones) == 0


def test_a_lone_sequence_has_no_mean_to_subtract() -> None:
    found = agreement((np.ones((1, 3)), np.ones((1, 3))), [])
    assert found is not None
    assert found.least_centered_cosine is None


def test_copies_of_one_vector_have_nothing_left_to_compare_once_centered() -> None:
    expected = np.full((3, 4), 0.1)
    found = agreement((expected + np.arange(12).reshape(3, 4) * 1e-5, expected), [])
    assert found is not None
    assert found.least_centered_cosine == 1
