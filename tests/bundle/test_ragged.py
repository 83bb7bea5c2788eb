import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birnn_bundle.ragged import RaggedBatch

ROWS = st.lists(st.lists(st.integers(0, 1000), max_size=12), max_size=10)


@given(ROWS)
def test_rows_come_back_as_they_went_in(rows: list[list[int]]) -> None:
    batch = RaggedBatch.from_lists(rows)
    assert [batch.row(index).tolist() for index in range(len(batch))] == rows
    assert batch.lengths.tolist() == list(map(len, rows))
    assert batch.tokens == sum(map(len, rows))


@given(ROWS, st.data())
def test_take_picks_rows_in_the_order_asked_for_with_repeats(rows: list[list[int]], data: st.DataObject) -> None:
    picks = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=12)) if rows else []
    taken = RaggedBatch.from_lists(rows).take(np.array(picks, dtype=np.intp))
    assert [taken.row(index).tolist() for index in range(len(taken))] == [rows[pick] for pick in picks]


@given(st.lists(ROWS, max_size=4))
def test_concatenate_keeps_every_row(parts: list[list[list[int]]]) -> None:
    batch = RaggedBatch.concatenate([RaggedBatch.from_lists(rows) for rows in parts])
    assert [batch.row(index).tolist() for index in range(len(batch))] == [row for rows in parts for row in rows]


@given(ROWS, st.integers(0, 5), st.integers(-1, 3))
def test_padding_is_time_major_and_only_behind_the_end(rows: list[list[int]], extra: int, pad_id: int) -> None:
    batch = RaggedBatch.from_lists(rows)
    steps = max(map(len, rows), default=0) + extra
    dense = batch.padded(pad_id, steps)
    assert dense.shape == (steps, len(rows))
    for column, row in enumerate(rows):
        assert dense[:, column].tolist() == row + [pad_id] * (steps - len(row))


def test_padding_to_fewer_steps_than_the_longest_sequence_is_refused() -> None:
    with pytest.raises(ValueError, match="3 tokens does not fit in 2"):
        RaggedBatch.from_lists([[1, 2, 3]]).padded(steps=2)


@pytest.mark.parametrize("offsets", [[], [1, 2], [0, 1], [0, 2, 1, 3], [0, 4]])
def test_offsets_that_do_not_cover_the_ids_are_refused(offsets: list[int]) -> None:
    with pytest.raises(ValueError, match=r"offsets|flat"):
        RaggedBatch(np.array([1, 2, 3], dtype=np.int32), np.array(offsets, dtype=np.int64))


def test_features_are_rows_of_a_matrix_and_everything_else_works_as_with_ids() -> None:
    rows = [np.arange(length * 2, dtype=np.float32).reshape(length, 2) + length for length in (3, 1, 4)]
    batch = RaggedBatch.from_features(rows)
    assert (len(batch), batch.tokens, batch.features) == (3, 8, 2)
    assert np.array_equal(batch.row(2), rows[2])
    taken = batch.take(np.array([2, 0]))
    assert np.array_equal(taken.values, np.concatenate([rows[2], rows[0]]))
    joined = RaggedBatch.concatenate([taken, batch])
    assert joined.lengths.tolist() == [4, 3, 3, 1, 4]
    keys = joined.keys()
    assert keys[0] == keys[4] != keys[1] == keys[2]
    padded = batch.padded(steps=5)
    assert padded.shape == (5, 3, 2)
    assert padded.dtype == np.float32
    assert np.array_equal(padded[:1, 1], rows[1])
    assert not padded[1:, 1].any()


def test_a_batch_of_features_has_no_ids() -> None:
    batch = RaggedBatch.from_features([np.zeros((1, 2), dtype=np.float32)])
    with pytest.raises(TypeError, match="no token ids"):
        _ = batch.ids
    assert RaggedBatch.from_lists([[1]]).features == 0


def test_a_flat_array_of_floats_is_no_batch() -> None:
    with pytest.raises(ValueError, match="ids and offsets are flat arrays and features a matrix"):
        RaggedBatch(np.zeros(3, dtype=np.float32), np.array([0, 3]))
