import numpy as np
import pytest

from birnn_bundle.ragged import RaggedBatch
from birnn_export.id_source import IdSource

SHORT, LONG = list(range(10, 15)), list(range(20, 40))


@pytest.mark.parametrize("length", [6, 13, 20])
def test_a_piece_is_of_one_real_sequence_where_one_is_long_enough(length: int) -> None:
    source = IdSource(50, 0, RaggedBatch.from_lists([SHORT, LONG, SHORT]))
    for _ in range(20):
        piece = source.text(length).tolist()
        assert piece == list(range(piece[0], piece[0] + length))
        assert set(piece) <= set(LONG)


def test_longer_pieces_are_of_several_sequences_back_to_back() -> None:
    everything = [*SHORT, *LONG, *SHORT]
    piece = IdSource(50, 0, RaggedBatch.from_lists([SHORT, LONG, SHORT])).text(28).tolist()
    assert any(everything[begin : begin + 28] == piece for begin in range(3))


def test_without_enough_real_ids_random_ones_are_drawn_that_are_neither_padding_nor_mask() -> None:
    piece = IdSource(50, 0, RaggedBatch.from_lists([SHORT])).text(500)
    assert piece.min() > 2
    assert piece.max() < 50
    assert len(np.unique(piece)) > 20
