import numpy as np
import pytest

from birnn_bundle.ragged import RaggedBatch
from birnn_bundle.tokenizer import MASK_ID
from birnn_export.golden_sequences import COUNT, TOKEN_BYTES, golden_lengths, golden_sequences
from birnn_export.id_source import IdSource


@pytest.mark.parametrize("token_dimension", [2, 64, 512, 2048, 8192])
@pytest.mark.parametrize("max_length", [1, 2, 40, 256, 4096])
def test_lengths_rise_from_one_token_and_their_vectors_stay_small(max_length: int, token_dimension: int) -> None:
    lengths = golden_lengths(max_length, token_dimension)
    assert lengths[0] == 1
    assert lengths == sorted(set(lengths))
    assert len(lengths) <= COUNT
    assert lengths[-1] <= max_length
    assert sum(lengths) * token_dimension * 4 <= TOKEN_BYTES


def test_the_longest_sequence_is_golden_where_there_is_room() -> None:
    assert golden_lengths(256, 512)[-1] == 256


def test_real_sequences_are_taken_once_each_where_their_length_is_near() -> None:
    real = RaggedBatch.from_lists([np.full(length, length, dtype=np.int32) for length in (3, 10, 10, 41)])
    source = IdSource(50, seed=0, sequences=real)
    found = golden_sequences(source, [1, 3, 9, 10, 40], real)
    assert found.lengths.tolist() == [1, 3, 10, 10, 41]
    assert found.row(1).tolist() == [3, 3, 3]
    assert found.row(4).tolist() == [41] * 41


def test_without_real_sequences_ids_are_drawn_that_a_text_can_have() -> None:
    found = golden_sequences(IdSource(7, seed=0), [1, 2, 300])
    assert found.lengths.tolist() == [1, 2, 300]
    assert set(found.ids.tolist()) == set(range(MASK_ID + 1, 7))


def test_an_id_source_cuts_pieces_from_real_sequences() -> None:
    source = IdSource(1000, seed=0, sequences=RaggedBatch.from_lists([list(range(100, 130)), list(range(130, 150))]))
    for length in (1, 7, 50):
        piece = source.text(length)
        assert len(piece) == length
        assert (np.diff(piece) == 1).all()
    assert len(source.text(51)) == 51


def test_a_vocabulary_of_special_ids_only_can_be_drawn_from() -> None:
    assert set(IdSource(1, seed=0).text(5).tolist()) == {0}
    assert set(IdSource(3, seed=0).text(50).tolist()) == {2}
