"""An encoder that starts as a bag of tokens weighs them by rarity, and puts alike spelled ones near each other."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from birnn_bundle.ragged import RaggedBatch
from birnn_bundle.smiles import SmilesTokenizer
from birnn_bundle.text import TextTokenizer
from birnn_export.encoders import BiGRU, EncoderConfig, SequenceEncoder
from birnn_export.training.bag_start import EMBEDDING_NORM, start_as_bag
from birnn_export.training.errors import TrainingError

WORDS = ["guitar", "guitars", "playing", "zebra", "the"]
CORPUS = ["the playing", "the guitars", "the guitar", "the zebra", *["the"] * 400]


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    # Every word becomes one token.
    return TextTokenizer.train([" ".join(CORPUS)] * 5, 400, lowercase=True)


def read(tokenizer: TextTokenizer, *texts: str) -> RaggedBatch:
    return tokenizer.tokenize(list(texts), 500).batch


def started(tokenizer: TextTokenizer, layers: int = 1, bias: bool = True, size: int = 48) -> SequenceEncoder:
    torch.manual_seed(1)
    config = EncoderConfig("bigru", tokenizer.vocab_size, size, size, layers, bias, pooling="mean")
    encoder = SequenceEncoder(config)
    start_as_bag(encoder, tokenizer, read(tokenizer, *CORPUS), seed=0)
    return encoder.eval()


def vectors(encoder: SequenceEncoder, batch: RaggedBatch) -> torch.Tensor:
    ids = torch.from_numpy(np.ascontiguousarray(batch.padded().T)).long()
    with torch.no_grad():
        encoded: torch.Tensor = encoder(ids, torch.from_numpy(batch.lengths))
    return encoded


def test_frequent_tokens_weigh_little_and_like_spelling_lies_near(tokenizer: TextTokenizer) -> None:
    encoder = started(tokenizer, size=512)
    batch = read(tokenizer, *WORDS)
    assert batch.lengths.tolist() == [1] * len(WORDS)
    guitar, guitars, playing, _, the = encoder.embedding.weight.detach()[batch.ids]
    assert the.norm() < 0.01 * guitar.norm() < 0.01 * EMBEDDING_NORM
    assert F.cosine_similarity(guitar, guitars, dim=0) > F.cosine_similarity(guitar, playing, dim=0) + 0.2
    assert not encoder.embedding.weight[0].any()


@pytest.mark.parametrize("layers", [1, 2])
def test_before_any_training_shared_rare_words_make_sentences_alike(tokenizer: TextTokenizer, layers: int) -> None:
    encoder = started(tokenizer, layers)
    texts = ("the guitar the zebra", "the zebra the guitar", "the the the zebra guitar", "the the the playing the")
    first, turned, longer, other = vectors(encoder, read(tokenizer, *texts))
    for same in (turned, longer):
        assert F.cosine_similarity(first, same, dim=0) > 0.9
    assert F.cosine_similarity(first, other, dim=0) < 0.5


def test_the_seed_alone_decides(tokenizer: TextTokenizer) -> None:
    one, other = started(tokenizer), started(tokenizer)
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name]), name


def test_an_encoder_without_biases_starts_as_a_bag_too(tokenizer: TextTokenizer) -> None:
    encoder = started(tokenizer, bias=False)
    assert isinstance(encoder.core, BiGRU)
    assert torch.isfinite(vectors(encoder, read(tokenizer, "the guitar"))).all()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (EncoderConfig("bilstm", 20, 4, 8), "only a bigru"),
        (EncoderConfig("bigru", 20, 4, 8, linear_before_reset=False), "only a bigru"),
        (EncoderConfig("bigru", 0, 4, 8), "only a bigru"),
        (EncoderConfig("bigru", 20, 8, 4), "at least the embedding size 8"),
    ],
)
def test_what_cannot_be_a_bag_is_refused(config: EncoderConfig, message: str) -> None:
    tokenizer = SmilesTokenizer.train(["CCO"], 1)
    with pytest.raises(TrainingError, match=message):
        start_as_bag(SequenceEncoder(config), tokenizer, tokenizer.tokenize([b"CCO"], 9).batch, seed=0)
