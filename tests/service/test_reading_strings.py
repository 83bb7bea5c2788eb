from hypothesis import given
from hypothesis import strategies as st

from birnn_bundle.smiles import SmilesTokenizer
from birnn_service.reading import tokenize

TOKENIZER = SmilesTokenizer(["C", "N", "O"])


def test_oversized_sequences_fail_alone_among_the_other_errors_in_order() -> None:
    request = [b"CC", b"C" * 101, b"x", b"N", b"O" * 200, b""]
    tokenized = tokenize(TOKENIZER, request, max_length=100, max_bytes=100, truncate=True)
    assert tokenized.rows.tolist() == [0, 3]
    assert [(error.index, error.code.name) for error in tokenized.errors] == [
        (1, "TOO_LONG"),
        (2, "UNKNOWN_CHARACTERS"),
        (4, "TOO_LONG"),
        (5, "EMPTY"),
    ]
    assert "200 bytes and this server accepts 100" in tokenized.errors[2].reason


@given(st.lists(st.binary(max_size=20), max_size=400))
def test_every_item_of_a_request_is_either_encoded_or_refused(request: list[bytes]) -> None:
    tokenized = tokenize(TOKENIZER, request, max_length=10, max_bytes=15, truncate=False)
    failed = [error.index for error in tokenized.errors]
    assert failed == sorted(failed)
    assert sorted(tokenized.rows.tolist() + failed) == list(range(len(request)))
    assert len(tokenized.batch) == len(tokenized.rows) == len(tokenized.unknown) == len(tokenized.truncated)
