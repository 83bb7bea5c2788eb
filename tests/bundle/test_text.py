import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birnn_bundle.errors import BundleError
from birnn_bundle.text import TextTokenizer
from birnn_bundle.tokenizer import MASK_ID, PAD_ID, SPECIAL_TOKENS, load_tokenizer

CORPUS = ["A plane is taking off.", "A man is playing a large flute.", "A man is spreading cheese on a pizza."] * 10
TOKENIZER = TextTokenizer.train(CORPUS, vocab_size=320)


@given(st.text(min_size=1, max_size=60))
def test_any_text_survives_the_round_trip(text: str) -> None:
    raw = text.encode("utf-8", "surrogatepass")
    tokenized = TOKENIZER.tokenize([raw], max_length=1000)
    if tokenized.errors:
        assert tokenized.errors[0].code.name == "NOT_UTF8"
    else:
        assert TOKENIZER.decode(tokenized.batch.row(0).tolist()) == text
        assert tokenized.unknown.tolist() == [0]


@pytest.mark.parametrize("special", SPECIAL_TOKENS)
def test_spelling_out_a_special_token_is_only_text(special: str) -> None:
    ids = TOKENIZER.tokenize([special.encode()], max_length=100).batch.ids
    assert len(ids) > 1
    assert not {PAD_ID, MASK_ID} & set(ids.tolist())


def test_what_was_saved_tokenizes_the_same() -> None:
    again = load_tokenizer("text", TOKENIZER.to_json())
    assert again.vocab_size == TOKENIZER.vocab_size <= 320
    sentences = [sentence.encode() for sentence in CORPUS]
    assert again.tokenize(sentences, 100).batch.ids.tolist() == TOKENIZER.tokenize(sentences, 100).batch.ids.tolist()


@pytest.mark.parametrize("text", ["", "{}", '{"kind": "smiles"}'])
def test_anything_but_a_text_tokenizer_is_refused(text: str) -> None:
    with pytest.raises(BundleError, match="not a text tokenizer"):
        load_tokenizer("text", text)


def test_lower_case_makes_a_word_the_same_tokens_wherever_it_stands() -> None:
    tokenizer = load_tokenizer("text", TextTokenizer.train(CORPUS, vocab_size=320, lowercase=True).to_json())
    start, within, shouted = (
        tokenizer.tokenize([b"A plane", b"large A plane", b"A PLANE"], max_length=100).batch.take(np.arange(3)).keys()
    )
    assert start == shouted
    assert within.endswith(start)
    assert tokenizer.decode(tokenizer.tokenize(["Über ALLES!"], 100).batch.ids.tolist()) == " über alles!"
    assert not tokenizer.tokenize(["Über ALLES!"], 100).unknown.any()


def test_other_threads_run_while_a_text_is_tokenized() -> None:
    running, told, heard = threading.Event(), threading.Event(), threading.Event()

    def listen() -> None:
        running.set()
        told.wait()
        heard.set()

    listener = threading.Thread(target=listen)
    listener.start()
    running.wait()
    interval = sys.getswitchinterval()
    # From here on another thread runs only where this one lets it.
    sys.setswitchinterval(1000)
    try:
        told.set()
        TOKENIZER.tokenize([b"A plane is taking off. " * 40_000], 10)
        was_heard = heard.is_set()
    finally:
        sys.setswitchinterval(interval)
    listener.join()
    assert was_heard
