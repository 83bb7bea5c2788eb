import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from birnn_bundle.errors import ItemErrorCode
from birnn_bundle.smiles import SmilesTokenizer, split
from birnn_bundle.tokenizer import UNKNOWN_ID, SequenceError, decode_sequence, too_long

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
    max_size=12,
)


def by_definition(sequence: bytes, max_length: int, truncate: bool) -> list[int] | tuple[ItemErrorCode, str]:
    """Ids of one sequence, or why it has none, by the regular expression that defines the language."""
    try:
        ids = [TOKENS.index(token) + 3 if token in TOKENS else UNKNOWN_ID for token in split(decode_sequence(sequence))]
        if len(ids) > max_length and not truncate:
            raise too_long(len(ids), max_length)
    except SequenceError as error:
        return error.code, str(error)
    return ids


@given(SEQUENCES, st.integers(1, 12), st.booleans())
@example([b">>>", b">>>>"], 5, False)
@example([b"C", "[é]C".encode(), b"N"], 5, False)
@example([b"", b"C", b""], 5, True)
@example([], 5, True)
@example([b"Cl[nH]Br"], 5, False)
@example([b""], 5, True)
@example([b"C\n"], 5, True)
@example([b"\x80"], 5, True)
@example(["[é]".encode()], 5, True)
@example([b"C\n\n", b"[\x80]", b"\x80\x81\x82", b"C"], 5, True)
@example([b"[CCl]", b"[Br", b"Cl]", b"CClC", b"l", b"r", b"[\x1c]", b"[\x0e]", b"[\x7f]"], 5, True)
def test_all_at_once_reads_exactly_what_the_regular_expression_reads(
    sequences: list[bytes], max_length: int, truncate: bool
) -> None:
    together = TOKENIZER.tokenize(sequences, max_length, truncate)
    alone = [by_definition(sequence, max_length, truncate) for sequence in sequences]
    good = {index: ids for index, ids in enumerate(alone) if isinstance(ids, list)}
    assert together.rows.tolist() == list(good)
    for row, ids in enumerate(good.values()):
        kept = ids[:max_length]
        assert together.batch.row(row).tolist() == kept
        assert together.unknown[row] == kept.count(UNKNOWN_ID)
        assert together.truncated[row] == len(ids) - len(kept)
    assert [(error.index, (error.code, error.reason)) for error in together.errors] == [
        (index, reason) for index, reason in enumerate(alone) if not isinstance(reason, list)
    ]


def test_a_vocabulary_without_bracket_atoms_reads_them_as_unknown() -> None:
    tokenized = SmilesTokenizer(["C"]).tokenize([b"C[nH]C", b"C%12Cl"], 10)
    assert tokenized.unknown.tolist() == [1, 2]


def test_large_requests_lose_nothing() -> None:
    generator = np.random.default_rng(0)
    strings = ["".join(generator.choice(TOKENS, size=generator.integers(1, 60))) for _ in range(500)]
    tokenized = TOKENIZER.tokenize([string.encode() for string in strings], 1000)
    assert tokenized.errors == []
    # `>` next to `>` is read as `>>`, as the regular expression does; joined again it is the same text.
    assert [TOKENIZER.decode(tokenized.batch.row(row).tolist()) for row in range(500)] == strings
