import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from birnn_bundle.errors import ItemErrorCode
from birnn_bundle.ragged import RaggedBatch
from birnn_service.reading import read_ids

VOCABULARY, LONGEST = 50, 5
ROWS = st.lists(st.lists(st.integers(0, 49) | st.integers(-(2**31), 2**31 - 1), max_size=8), min_size=1, max_size=10)


@given(ROWS, st.booleans())
def test_each_sequence_is_read_or_fails_by_itself(rows: list[list[int]], truncate: bool) -> None:
    found = read_ids(RaggedBatch.from_lists(rows), vocab_size=VOCABULARY, max_length=LONGEST, truncate=truncate)
    errors = {error.index: error.code for error in found.errors}
    assert sorted([*errors, *found.rows.tolist()]) == list(range(len(rows)))
    for index, row in enumerate(rows):
        if not row:
            assert errors[index] is ItemErrorCode.EMPTY
        elif len(row) > LONGEST and not truncate:
            assert errors[index] is ItemErrorCode.TOO_LONG
        elif not all(0 <= number < VOCABULARY for number in row):
            assert errors[index] is ItemErrorCode.UNKNOWN_CHARACTERS
        else:
            (position,) = np.flatnonzero(found.rows == index)
            assert found.batch.row(int(position)).tolist() == row[:LONGEST]
            assert found.truncated[position] == max(0, len(row) - LONGEST)


def test_an_id_that_the_encoder_does_not_have_is_named() -> None:
    batch = RaggedBatch.from_lists([[1, 2], [3, 50, -1], [49]])
    (error,) = read_ids(batch, vocab_size=VOCABULARY, max_length=LONGEST, truncate=False).errors
    assert error.index == 1
    assert error.reason.startswith("token 1 is 50, and the ids of this encoder go from 0 to 49")
