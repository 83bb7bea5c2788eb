from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birnn_bundle.errors import ItemError, ItemErrorCode
from birnn_bundle.ragged import RaggedBatch
from birnn_service.encoded import Encoded, Notice, in_form
from birnn_service.engine.engine import Output
from birnn_service.repository.served_encoder import ServedEncoder
from birnn_service.vectors import ElementType

WIDTH = 3


def encoded(
    values: Any, lengths: list[int], errors: list[ItemError], notices: list[Notice], output: Output = Output.POOLED
) -> Encoded:
    array = np.asarray(values, dtype=np.float32).reshape(-1, WIDTH)
    return Encoded(
        cast(ServedEncoder, None),
        output,
        array,
        np.array(lengths),
        errors,
        notices,
        RaggedBatch.from_lists([]),
        0.1,
        0.2,
        0.3,
    )


def halved(before: Encoded) -> Encoded:
    return in_form(before, ElementType.FLOAT16, normalize=False)


@given(st.lists(st.lists(st.floats(-65_519, 65_519, width=32), min_size=WIDTH, max_size=WIDTH), min_size=1))
def test_numbers_within_range_are_rounded_to_the_nearest(rows: list[list[float]]) -> None:
    before = encoded(rows, [1] * len(rows), [], [])
    after = halved(before)
    assert after.values.dtype == np.float16
    assert np.isfinite(after.values).all()
    assert (
        np.abs(after.values.astype(np.float64) - before.values) <= np.abs(before.values) * 2.0**-11 + 2.0**-25
    ).all()
    assert (after.errors, after.tokenize, after.queue, after.compute) == ([], 0.1, 0.2, 0.3)


@pytest.mark.parametrize("number", [65_520.0, -1e5, float("inf")])
def test_a_pooled_item_beyond_the_range_fails_alone(number: float) -> None:
    failed = ItemError(2, ItemErrorCode.EMPTY, "empty")
    notices = [Notice(0, 1, 0), Notice(1, 2, 0), Notice(3, 0, 1)]
    rows = [[1, 2, 3], [0, number, 1], [np.nan] * 3, [4, -65_504, 6]]
    after = halved(encoded(rows, [5, 6, 0, 7], [failed], notices))
    assert after.values[[0, 3]].tolist() == [[1, 2, 3], [4, -65_504, 6]]
    assert np.isnan(after.values[[1, 2]]).all()
    assert after.lengths.tolist() == [5, 0, 0, 7]
    assert [(error.index, error.code) for error in after.errors] == [
        (1, ItemErrorCode.OUT_OF_RANGE),
        (2, ItemErrorCode.EMPTY),
    ]
    assert "beyond the range of float16; ask for float32" in after.errors[0].reason
    assert after.notices == [notices[0], notices[2]]


def test_a_per_token_item_beyond_the_range_loses_all_of_its_rows() -> None:
    rows = [[1, 1, 1], [2, 2, 2], [3, 1e6, 3], [4, 4, 4], [5, 5, 5], [-7e4, 0, 9e4]]
    failed = ItemError(1, ItemErrorCode.TOO_LONG, "long")
    after = halved(encoded(rows, [2, 0, 2, 1, 1], [failed], [], Output.TOKENS))
    assert after.values.tolist() == [[1, 1, 1], [2, 2, 2], [5, 5, 5]]
    assert after.lengths.tolist() == [2, 0, 0, 1, 0]
    assert [error.index for error in after.errors] == [1, 2, 4]
    assert "size 90000" in after.errors[2].reason


def test_int8_has_a_scale_for_each_row_and_failed_items_have_none() -> None:
    failed = ItemError(1, ItemErrorCode.EMPTY, "empty")
    rows = [[1, -127, 0.4], [np.nan] * 3, [0, np.inf, 1], [0, 0, 0]]
    after = in_form(encoded(rows, [3, 0, 4, 2], [failed], []), ElementType.INT8, normalize=False)
    assert after.values.dtype == np.int8
    assert after.values.tolist() == [[1, -127, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert after.scales is not None
    assert np.array_equal(after.scales, [1, np.nan, np.nan, 0], equal_nan=True)
    assert [error.index for error in after.errors] == [1, 2]
    assert after.lengths.tolist() == [3, 0, 0, 2]


@pytest.mark.parametrize("output", list(Output))
def test_vectors_are_scaled_to_length_1_before_they_are_rounded(output: Output) -> None:
    before = encoded([[3e5, 4e5, 0], [0, 0, 2]], [1, 1], [], [], output)
    after = in_form(before, ElementType.FLOAT16, normalize=True)
    assert after.values.tolist() == np.array([[0.6, 0.8, 0], [0, 0, 1]], np.float16).tolist()
    assert in_form(before, ElementType.FLOAT32, normalize=True).values.dtype == np.float32
