import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from birnn_bundle.ragged import RaggedBatch
from birnn_service.observe.notes import Notes, excerpt


@given(st.lists(st.binary(max_size=20), max_size=20), st.integers(0, 100))
def test_an_excerpt_is_the_beginning_and_no_longer_than_allowed(sequences: list[bytes], most: int) -> None:
    found = excerpt(sequences, most)
    sizes = [len(sequence) for sequence in sequences]
    assert len(found) <= min(len(sequences), most)
    assert all(len(text) <= size for text, size in zip(found, sizes, strict=False))
    assert sum(map(len, found)) <= most
    whole = found[:-1]
    assert whole == [sequence.decode(errors="replace") for sequence in sequences[: len(whole)]]


def test_ids_are_numbers_and_features_are_left_out() -> None:
    assert excerpt(RaggedBatch.from_lists([[1, 22], [333], [4]]), 8) == ["1 22", "333", "4"]
    assert excerpt(RaggedBatch.from_lists([[1, 22], [333], [4]]), 6) == ["1 22", "33"]
    features = RaggedBatch(np.ones((3, 2), dtype=np.float32), np.array([0, 3]))
    assert excerpt(features, 100) == []


def test_nothing_is_noted_of_the_content_unless_it_is_asked_for() -> None:
    notes = Notes()
    notes.begin_tokenizing([b"secret"], 1.0)
    assert (notes.sequences, notes.content) == (1, ())
