"""Beginning as a bag of tokens: an encoder that already knows which tokens are rare, and which are spelled alike.

A mean of word vectors weighted by a / (a + p), p the share of a token, is a baseline that small encoders with random
weights do not reach in many epochs (Arora et al., "A Simple but Tough-to-Beat Baseline", ICLR 2017). A GRU can compute
it: with its update gate nearly shut, h_t is tanh(W_in x_t), and the mean over h_t is that over the tokens. What the
recurrence adds is learned from there.
"""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from birnn_bundle.ragged import RaggedBatch
from birnn_bundle.tokenizer import PAD_ID, Tokenizer
from birnn_export.encoders import BiGRU, SequenceEncoder
from birnn_export.training.errors import TrainingError

RARITY = 1e-3
"""`a` in the weight a / (a + p) of a token that makes up the share p of all tokens: Arora et al., ICLR 2017."""

SHORTEST, LONGEST = 3, 5
"""Characters of the pieces of a token's spelling, its boundaries included: Bojanowski et al., TACL 2017, 3 to 6."""

EMBEDDING_NORM = 1 / 3
"""Of the vector of a rare token. AdamW's steps have one size for all weights: in small vectors they go further, and it
is the vectors that gain most from training."""

INPUT_GAIN = 18.0
"""Of W_in, whose columns are orthogonal: the states of rare tokens then lie where tanh begins to bend."""

UPDATE_BIAS = -3.0
"""Of the update gate: a state keeps a sigmoid(-3) = 5% of the one before."""

RECURRENT_SHARE = 0.1
"""Of the random recurrent weights that is left."""


def start_as_bag(encoder: SequenceEncoder, tokenizer: Tokenizer, sequences: RaggedBatch, seed: int) -> None:
    """Give `encoder` the weights of a bag of the tokens of `sequences`, weighted by rarity.

    The vector of a token is the sum of a random one and of one for its spelling, so that tokens with like spelling lie
    near each other. Raises TrainingError where the encoder is not a BiGRU (PyTorch's) on token ids, or is too narrow.
    """
    core = encoder.core
    if not isinstance(core, BiGRU) or encoder.config.inputs != "ids":
        raise TrainingError("only a bigru on token ids can start as a bag of tokens")
    if core.rnn.hidden_size < core.rnn.input_size:
        raise TrainingError(
            f"to start as a bag of tokens, the hidden size must be at least the embedding size {core.rnn.input_size}"
        )
    generator = np.random.default_rng(seed)
    size = encoder.config.embedding_size
    spelled = [tokenizer.decode([number]) for number in range(tokenizer.vocab_size)]
    vectors = _unit(generator.normal(size=(len(spelled), size))) + _spelling_vectors(spelled, size, generator)
    counts = np.bincount(sequences.ids, minlength=len(spelled))
    vectors = EMBEDDING_NORM * _unit(vectors) * (RARITY / (RARITY + counts / counts.sum()))[:, None]
    vectors[PAD_ID] = 0.0
    with torch.no_grad():
        encoder.embedding.weight.copy_(torch.from_numpy(vectors))
        for layer in range(core.rnn.num_layers):
            for direction in ("", "_reverse"):
                _open(core.rnn, f"l{layer}{direction}", INPUT_GAIN if layer == 0 else 1.0)


def _open(rnn: nn.RNNBase, suffix: str, gain: float) -> None:
    """Let the states of one direction of one layer follow its input."""
    size = rnn.hidden_size
    nn.init.orthogonal_(getattr(rnn, f"weight_ih_{suffix}")[2 * size :], gain)
    getattr(rnn, f"weight_hh_{suffix}").mul_(RECURRENT_SHARE)
    if rnn.bias:
        for kind in ("ih", "hh"):
            getattr(rnn, f"bias_{kind}_{suffix}").zero_()
        getattr(rnn, f"bias_ih_{suffix}")[size : 2 * size] = UPDATE_BIAS


def _spelling_vectors(spelled: list[str], size: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Unit vectors [V, size]: sums of random vectors of the pieces of each token, weighted by their rarity."""
    pieces = [_pieces(token) for token in spelled]
    spread = Counter(piece for own in pieces for piece in own)
    number: defaultdict[str, int] = defaultdict(lambda: len(number))
    rows = np.array([row for row, own in enumerate(pieces) for _ in own], np.intp)
    columns = np.array([number[piece] for own in pieces for piece in own], np.intp)
    weights = np.array([count * np.log(len(spelled) / spread[piece]) for own in pieces for piece, count in own.items()])
    random = generator.normal(size=(len(number), size))
    vectors = np.zeros((len(spelled), size))
    np.add.at(vectors, rows, weights[:, None] * random[columns])
    return _unit(vectors)


def _pieces(token: str) -> Counter[str]:
    """How often each run of characters occurs in a token; where a word begins and ends counts as a character."""
    marked = f"<{token.strip()}>" if token.startswith(" ") else token
    return Counter(
        marked[start : start + length]
        for length in range(SHORTEST, LONGEST + 1)
        for start in range(len(marked) - length + 1)
    )


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float64] = vectors / np.where(norms > 0, norms, 1.0)
    return unit
