import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from bundle.smiles import ARRAYS_FROM, SmilesTokenizer
from bundle.tokenizer import Tokenized

TOKENS = ["C", "N", "c", "1", "2", "(", ")", "=", "Cl", "Br", "%12", ">>", ">", "[nH]", "[C@@H]", "[13CH3:123]", "[O-]"]
TOKENIZER = SmilesTokenizer(TOKENS)
PIECES = [
    *TOKENS,
    "B",
    "r",
    "l",
    "%",
    "[",
    "]",
    "[]",
    "[Zz]",
    "[ ]",
    "\n",
    " ",
    "3",
    "x",
    "é",
    "[é]",
    "[X\u2003Y]",
    "\0",
]
SEQUENCES = st.lists(
    st.lists(st.sampled_from(PIECES), max_size=10).map("".join).map(str.encode) | st.binary(max_size=8),
    min_size=ARRAYS_FROM,
    max_size=ARRAYS_FROM + 10,
)


def one_by_one(sequences: list[bytes], max_length: int, truncate: bool) -> list[Tokenized]:
    return [TOKENIZER.tokenize([sequence], max_length, truncate) for sequence in sequences]


@given(SEQUENCES, st.integers(1, 12), st.booleans())
@example([b">>>"] * ARRAYS_FROM, 5, False)
@example([b"C"] * ARRAYS_FROM + ["[é]C".encode()], 5, False)
@example([b""] * ARRAYS_FROM, 5, True)
def test_all_at_once_reads_exactly_what_one_by_one_reads(
    sequences: list[bytes], max_length: int, truncate: bool
) -> None:
    together = TOKENIZER.tokenize(sequences, max_length, truncate)
    alone = one_by_one(sequences, max_length, truncate)
    good = [index for index, single in enumerate(alone) if len(single.rows)]
    assert together.rows.tolist() == good
    for row, index in enumerate(good):
        assert together.batch.row(row).tolist() == alone[index].batch.ids.tolist()
        assert together.unknown[row] == alone[index].unknown[0]
        assert together.truncated[row] == alone[index].truncated[0]
    reasons = [
        (index, single.errors[0].code, single.errors[0].reason) for index, single in enumerate(alone) if single.errors
    ]
    assert [(error.index, error.code, error.reason) for error in together.errors] == reasons


def test_a_vocabulary_without_bracket_atoms_reads_them_as_unknown() -> None:
    tokenized = SmilesTokenizer(["C"]).tokenize([b"C[nH]C"] * ARRAYS_FROM, 10)
    assert tokenized.unknown.tolist() == [1] * ARRAYS_FROM


def test_large_requests_lose_nothing() -> None:
    generator = np.random.default_rng(0)
    strings = ["".join(generator.choice(TOKENS, size=generator.integers(1, 60))) for _ in range(500)]
    tokenized = TOKENIZER.tokenize([string.encode() for string in strings], 1000)
    assert tokenized.errors == []
    # `>` next to `>` is read as `>>`, as the regular expression does; joined again it is the same text.
    assert [TOKENIZER.decode(tokenized.batch.row(row).tolist()) for row in range(500)] == strings
