from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birnn_bundle.errors import BundleError, ItemErrorCode
from birnn_bundle.tokenizer import load_tokenizer
from birnn_bundle.vocabulary import VocabularyTokenizer

# Ids as people have them: with gaps, special ones at the end, padding in the middle.
IDS = {"C": 7, "c": 2, "Cl": 11, "1": 3, "O": 5, "<pad>": 4, "<unk>": 40, "<s>": 41, "</s>": 42}


def tokenizer(**more: Any) -> VocabularyTokenizer:
    return VocabularyTokenizer(IDS, "smiles", **{"unknown": "<unk>", **more})


def test_ids_are_those_of_the_table() -> None:
    found = tokenizer().tokenize(["CCl", b"c1O"], 10)
    assert [found.batch.row(0).tolist(), found.batch.row(1).tolist()] == [[7, 11], [2, 3, 5]]
    assert tokenizer().vocab_size == 43


def test_tokens_around_a_sequence_are_put_where_asked_for_and_survive_a_cut() -> None:
    around = tokenizer(begin="<s>", end="</s>")
    assert around.tokenize(["CCO"], 5).batch.ids.tolist() == [41, 7, 7, 5, 42]
    found = around.tokenize(["CCOCC"], 5, truncate=True)
    assert found.batch.ids.tolist() == [41, 7, 7, 5, 42]
    assert found.truncated.tolist() == [2]
    assert around.tokenize(["CCOC"], 5).errors[0].code is ItemErrorCode.TOO_LONG


def test_an_unknown_token_is_counted_or_fails_where_the_vocabulary_has_none() -> None:
    found = tokenizer().tokenize(["CN", "CC"], 10)
    assert found.batch.row(0).tolist() == [7, 40]
    assert found.unknown.tolist() == [1, 0]
    (error,) = tokenizer(unknown=None).tokenize(["CC", "CN"], 10).errors
    assert (error.index, error.code) == (1, ItemErrorCode.UNKNOWN_CHARACTERS)
    assert "token 'N' is not in the vocabulary" in error.reason


@pytest.mark.parametrize("special", ["<unk>", "<s>"])
def test_spelling_out_a_special_token_does_not_give_it(special: str) -> None:
    words = VocabularyTokenizer(IDS, "words", unknown="<unk>", begin="<s>")
    found = words.tokenize([f"C {special}"], 10)
    assert found.batch.ids.tolist() == [41, 7, 40]
    assert found.unknown.tolist() == [1]


@pytest.mark.parametrize(
    ("split", "text", "tokens"),
    [
        ("characters", "CCl", ["C", "C", "l"]),
        ("words", " a  b\tc ", ["a", "b", "c"]),
        ("selfies", "[C][=O].[N]", ["[C]", "[=O]", ".", "[N]"]),
        ("smiles", "[nH]Br%10", ["[nH]", "Br", "%10"]),
    ],
)
def test_texts_are_cut_as_asked(split: Any, text: str, tokens: list[str]) -> None:
    table = VocabularyTokenizer({token: number for number, token in enumerate(dict.fromkeys(tokens))}, split)
    ids = table.tokenize([text], 10).batch.ids.tolist()
    assert table.decode(ids) == (" " if split == "words" else "").join(tokens)


@pytest.mark.parametrize(
    ("split", "text", "code"),
    [
        ("words", "  ", ItemErrorCode.EMPTY),
        ("selfies", "[C]=O", ItemErrorCode.UNKNOWN_CHARACTERS),
        ("smiles", "C C", ItemErrorCode.UNKNOWN_CHARACTERS),
        ("characters", "", ItemErrorCode.EMPTY),
    ],
)
def test_what_cannot_be_cut_fails_alone(split: Any, text: str, code: ItemErrorCode) -> None:
    table = VocabularyTokenizer({"C": 0, "[C]": 1}, split, unknown="C")
    assert [error.code for error in table.tokenize([text], 10).errors] == [code]


@given(st.text(st.sampled_from("abcdefgh"), min_size=1, max_size=30))
def test_known_characters_survive_the_round_trip(text: str) -> None:
    table = VocabularyTokenizer({character: 3 * number for number, character in enumerate("abcdefgh")}, "characters")
    assert table.decode(table.tokenize([text], 30).batch.ids.tolist()) == text


def test_the_file_gives_the_same_tokenizer_again() -> None:
    before = tokenizer(begin="<s>", end="</s>")
    after = load_tokenizer("vocabulary", before.to_json())
    sequences = ["CCl", "cNO", "?"]
    first, second = (one.tokenize(sequences, 10) for one in (before, after))
    assert first.batch.ids.tolist() == second.batch.ids.tolist()
    assert first.errors == second.errors
    assert after.to_json() == before.to_json()


@pytest.mark.parametrize(
    ("ids", "more", "message"),
    [
        ({}, {}, "at least one token"),
        ({"C": -1}, {}, "ids of at least 0"),
        ({"C": 1, "c": 1}, {}, "an id stands for more than one token"),
        ({"C": 1}, {"unknown": "<unk>"}, "the unknown token '<unk>' is not in the vocabulary"),
        ({"C": 1}, {"end": "</s>"}, "the end token"),
    ],
)
def test_tables_that_cannot_be_are_refused(ids: dict[str, int], more: dict[str, str], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        VocabularyTokenizer(ids, "smiles", **more)


@pytest.mark.parametrize(
    "text",
    [
        "not JSON",
        '{"kind": "smiles"}',
        '{"kind": "vocabulary", "split": "smiles", "unknown": null, "begin": null, "end": null, "ids": {"C": "1"}}',
        '{"kind": "vocabulary", "split": "syllables", "unknown": null, "begin": null, "end": null, "ids": {"C": 1}}',
        '{"kind": "vocabulary", "split": "smiles", "unknown": 3, "begin": null, "end": null, "ids": {"C": 1}}',
    ],
)
def test_files_that_are_no_vocabulary_are_refused(text: str) -> None:
    with pytest.raises(BundleError, match=r"vocabulary|split into"):
        load_tokenizer("vocabulary", text)
