import pytest
from hypothesis import given
from hypothesis import strategies as st

from birnn_bundle.errors import BundleError, ItemErrorCode
from birnn_bundle.smiles import SmilesTokenizer, split
from birnn_bundle.tokenizer import PAD_ID, UNKNOWN_ID, SequenceError, load_tokenizer

AWKWARD = [
    "O=[Si]=O", "[Sn]", "c1cn[nH]c1", "C%10CCCC%10", "N[C@@H](C)C(=O)O", "[2H]C", "O=[Os+2]=O", "Br.CNC", "Cl\\C=C/Cl",
    "c1cc[se]c1", "[*]C", "*C", "[CH3:1][OH:2]>>[CH3:1]Cl", "CC>O>CCO", "C$C", "C~C", "C:C", "F/C=C\\F", "[13CH4]",
    "N#[N+][O-]",
]  # fmt: skip
TOKENS = ["C", "N", "O", "c", "n", "Cl", "Br", "(", ")", "1", "%12", "=", "#", "[nH]", "[C@@H]", "[O-]", ".", "/", "\\"]


@pytest.mark.parametrize("smiles", AWKWARD)
def test_awkward_smiles_split_without_loss(smiles: str) -> None:
    assert "".join(split(smiles)) == smiles


def test_two_letter_elements_brackets_and_large_ring_closures_are_one_token() -> None:
    assert split("ClC%10[C@@H]Br") == ["Cl", "C", "%10", "[C@@H]", "Br"]


@given(st.text(max_size=30))
def test_any_text_splits_without_loss_or_is_refused(text: str) -> None:
    code = None
    joined = None
    try:
        joined = "".join(split(text))
    except SequenceError as error:
        code = error.code
    assert joined == text or code is ItemErrorCode.UNKNOWN_CHARACTERS


@given(st.lists(st.lists(st.sampled_from(TOKENS), min_size=1, max_size=20), max_size=8))
def test_known_tokens_survive_the_round_trip(molecules: list[list[str]]) -> None:
    tokenizer = SmilesTokenizer(TOKENS)
    strings = ["".join(tokens) for tokens in molecules]
    tokenized = tokenizer.tokenize([string.encode() for string in strings], max_length=400)
    assert tokenized.errors == []
    assert [tokenizer.decode(tokenized.batch.row(row).tolist()) for row in range(len(strings))] == strings


def test_items_fail_alone_each_with_its_reason() -> None:
    tokenizer = SmilesTokenizer(TOKENS)
    request = [b"CC", b"", b"C\xff", b"CCO ethanol", b"CxC", b"C" * 11, b"OC"]
    tokenized = tokenizer.tokenize(request, max_length=10)
    assert tokenized.rows.tolist() == [0, 6]
    assert [(error.index, error.code.name) for error in tokenized.errors] == [
        (1, "EMPTY"),
        (2, "NOT_UTF8"),
        (3, "UNKNOWN_CHARACTERS"),
        (4, "UNKNOWN_CHARACTERS"),
        (5, "TOO_LONG"),
    ]
    reasons = [error.reason for error in tokenized.errors]
    assert "position 3" in reasons[2]
    assert "without a name" in reasons[2]
    assert "'x' at position 1" in reasons[3]
    assert "11 tokens" in reasons[4]
    assert "10" in reasons[4]


def test_truncation_cuts_only_when_asked_and_says_how_much() -> None:
    tokenized = SmilesTokenizer(TOKENS).tokenize([b"C" * 12, b"CC"], max_length=10, truncate=True)
    assert tokenized.errors == []
    assert tokenized.batch.lengths.tolist() == [10, 2]
    assert tokenized.truncated.tolist() == [2, 0]


def test_tokens_outside_the_vocabulary_are_unknown_and_counted() -> None:
    tokenized = SmilesTokenizer(TOKENS).tokenize([b"C[Xx][Yy]C", b"CC"], max_length=10)
    assert tokenized.unknown.tolist() == [2, 0]
    assert tokenized.batch.row(0).tolist()[1:3] == [UNKNOWN_ID, UNKNOWN_ID]


@pytest.mark.parametrize("text", [b"[PAD]", b"[UNK]", b"[special: pad]", b"[MASK]"])
def test_no_text_can_produce_a_padding_or_mask_id(text: bytes) -> None:
    tokenized = SmilesTokenizer(TOKENS).tokenize([text], max_length=10)
    assert PAD_ID not in tokenized.batch.ids
    assert all(number == UNKNOWN_ID for number in tokenized.batch.ids.tolist())


def test_training_keeps_frequent_tokens_in_order_of_frequency() -> None:
    tokenizer = SmilesTokenizer.train(["CCO"] * 5 + ["CN"] * 3 + ["[Hg]"], minimum_count=3)
    again = load_tokenizer("smiles", tokenizer.to_json())
    assert again.vocab_size == 3 + 3
    assert again.tokenize([b"CON[Hg]"], 10).batch.ids.tolist() == [3, 4, 5, UNKNOWN_ID]


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"kind": "text", "vocabulary": []}', '{"kind": "smiles", "vocabulary": [1]}']
)
def test_anything_but_a_smiles_tokenizer_is_refused(text: str) -> None:
    with pytest.raises(BundleError, match="not a SMILES tokenizer"):
        load_tokenizer("smiles", text)


def test_unknown_tokenizer_kind_names_the_known_ones() -> None:
    with pytest.raises(BundleError, match="smiles, text"):
        load_tokenizer("protein", "{}")
