import json

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, processors, trainers

from birnn_bundle.errors import BundleError, ItemErrorCode
from birnn_bundle.huggingface import HuggingFaceTokenizer
from birnn_bundle.tokenizer import load_tokenizer

VOCABULARY = {"[CLS]": 9, "[SEP]": 4, "[UNK]": 6, "a": 0, "small": 1, "molecule": 2}


def words(unknown: str | None = "[UNK]", around: bool = True) -> Backend:
    model = models.WordLevel(VOCABULARY, unk_token=unknown) if unknown else models.WordLevel(VOCABULARY)
    backend = Backend(model)
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    if around:
        backend.add_special_tokens(["[CLS]", "[SEP]"])
        backend.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 9), ("[SEP]", 4)]
        )
    return backend


def test_ids_are_those_of_the_library_special_tokens_included() -> None:
    backend = words()
    tokenizer = HuggingFaceTokenizer(backend)
    found = tokenizer.tokenize(["a small molecule", b"molecule a"], 10)
    assert found.batch.row(0).tolist() == backend.encode("a small molecule").ids == [9, 0, 1, 2, 4]
    assert found.batch.row(1).tolist() == [9, 2, 0, 4]
    assert tokenizer.vocab_size == 10


def test_what_is_too_long_fails_or_is_cut_before_the_end_token() -> None:
    tokenizer = HuggingFaceTokenizer(words())
    assert tokenizer.tokenize(["a small molecule"], 4).errors[0].code is ItemErrorCode.TOO_LONG
    found = tokenizer.tokenize(["a small molecule"], 4, truncate=True)
    assert found.batch.ids.tolist() == [9, 0, 1, 4]
    assert found.truncated.tolist() == [1]


def test_padding_and_truncation_of_the_file_are_switched_off() -> None:
    backend = words()
    backend.enable_padding(length=20)
    backend.enable_truncation(3)
    assert HuggingFaceTokenizer(backend).tokenize(["a small molecule"], 10).batch.ids.tolist() == [9, 0, 1, 2, 4]


def test_unknown_words_are_counted_under_the_file_s_own_token() -> None:
    found = HuggingFaceTokenizer(words()).tokenize(["a large molecule"], 10)
    assert found.batch.ids.tolist() == [9, 0, 6, 2, 4]
    assert found.unknown.tolist() == [1]


def test_a_word_fails_where_there_is_no_token_for_unknown_ones() -> None:
    found = HuggingFaceTokenizer(words(unknown=None, around=False)).tokenize(["a large molecule", "a"], 10)
    assert [error.code for error in found.errors] == [ItemErrorCode.UNKNOWN_CHARACTERS]
    assert found.batch.ids.tolist() == [0]


@pytest.mark.parametrize("around", [True, False])
def test_a_text_without_any_token_is_empty(around: bool) -> None:
    found = HuggingFaceTokenizer(words(around=around)).tokenize(["   "], 10)
    assert [error.code for error in found.errors] == [ItemErrorCode.EMPTY]


def test_the_file_gives_the_same_tokenizer_again() -> None:
    before = HuggingFaceTokenizer(words())
    after = load_tokenizer("huggingface", before.to_json())
    assert after.tokenize(["a small x"], 9).batch.ids.tolist() == before.tokenize(["a small x"], 9).batch.ids.tolist()


def test_a_tokenizer_that_would_drop_characters_is_refused() -> None:
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.train_from_iterator(["abc abc"], trainers.BpeTrainer(vocab_size=10, show_progress=False))
    # The library itself drops what it does not know.
    assert "x" not in "".join(backend.encode("axb").tokens)
    with pytest.raises(BundleError, match=r"drops characters .* needs an unk_token"):
        HuggingFaceTokenizer(backend)


def test_merges_that_training_left_out_at_random_are_not_left_out_here() -> None:
    backend = Backend(models.BPE(unk_token="<unk>", dropout=0.9))
    trainer = trainers.BpeTrainer(vocab_size=30, special_tokens=["<unk>"], show_progress=False)
    backend.train_from_iterator(["abcabcabc"] * 5, trainer)
    tokenizer = HuggingFaceTokenizer(backend)
    assert json.loads(tokenizer.to_json())["model"]["dropout"] is None
    rows = [tokenizer.tokenize(["abcabcabc"], 20).batch.ids.tolist() for _ in range(10)]
    assert all(row == rows[0] for row in rows)


def test_files_of_another_kind_are_refused() -> None:
    with pytest.raises(BundleError, match="is not a tokenizer of the tokenizers library"):
        load_tokenizer("huggingface", '{"model": 3}')
