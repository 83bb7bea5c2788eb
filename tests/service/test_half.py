from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birnn_bundle.errors import ItemError, ItemErrorCode
from birnn_service.encoders import ServedEncoder
from birnn_service.engine.engine import Output
from birnn_service.half import halved
from birnn_service.pipeline import Encoded, Notice

WIDTH = 3


def encoded(values: Any, lengths: list[int], errors: list[ItemError], notices: list[Notice]) -> Encoded:
    array = np.asarray(values, dtype=np.float32).reshape(-1, WIDTH)
    return Encoded(cast(ServedEncoder, None), array, np.array(lengths), errors, notices, 0.1, 0.2, 0.3)


@given(st.lists(st.lists(st.floats(-65_519, 65_519, width=32), min_size=WIDTH, max_size=WIDTH), min_size=1))
def test_numbers_within_range_are_rounded_to_the_nearest(rows: list[list[float]]) -> None:
    before = encoded(rows, [1] * len(rows), [], [])
    after = halved(before, Output.POOLED)
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
    after = halved(encoded(rows, [5, 6, 0, 7], [failed], notices), Output.POOLED)
    assert after.values[[0, 3]].tolist() == [[1, 2, 3], [4, -65_504, 6]]
    assert np.isnan(after.values[[1, 2]]).all()
    assert after.lengths.tolist() == [5, 0, 0, 7]
    assert [(error.index, error.code) for error in after.errors] == [
        (1, ItemErrorCode.OUT_OF_RANGE),
        (2, ItemErrorCode.EMPTY),
    ]
    assert "ends at 65504; ask for float32" in after.errors[0].reason
    assert after.notices == [notices[0], notices[2]]


def test_a_per_token_item_beyond_the_range_loses_all_of_its_rows() -> None:
    rows = [[1, 1, 1], [2, 2, 2], [3, 1e6, 3], [4, 4, 4], [5, 5, 5], [-7e4, 0, 9e4]]
    failed = ItemError(1, ItemErrorCode.TOO_LONG, "long")
    after = halved(encoded(rows, [2, 0, 2, 1, 1], [failed], []), Output.TOKENS)
    assert after.values.tolist() == [[1, 1, 1], [2, 2, 2], [5, 5, 5]]
    assert after.lengths.tolist() == [2, 0, 0, 1, 0]
    assert [error.index for error in after.errors] == [1, 2, 4]
    assert "size 90000" in after.errors[2].reason
