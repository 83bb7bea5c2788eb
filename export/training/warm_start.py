"""Beginning with the weights of an earlier run instead of random ones."""

from __future__ import annotations

from dataclasses import replace

import torch

from bundle.tokenizer import Tokenizer
from export.encoders import EncoderConfig, SequenceEncoder
from export.training.checkpoint import LoadedCheckpoint
from export.training.errors import TrainingError


def start_from(encoder: SequenceEncoder, tokenizer: Tokenizer, earlier: LoadedCheckpoint) -> int:
    """Give `encoder` the weights of an `earlier` one and say how many of its tokens that one knew.

    Pooling and dropout may differ, they have no weights. Embeddings go by token, not by id; tokens that are new keep
    their random ones. Raises TrainingError where architecture, sizes or kinds of tokenizers differ.
    """
    ours, theirs = _compared(encoder.config), _compared(earlier.config)
    if ours != theirs:
        raise TrainingError(f"an encoder of {ours} cannot start from one of {theirs}")
    if tokenizer.kind != earlier.tokenizer.kind:
        raise TrainingError(f"a {tokenizer.kind} tokenizer cannot take embeddings from a {earlier.tokenizer.kind} one")
    known = {earlier.tokenizer.decode([number]): number for number in range(earlier.tokenizer.vocab_size)}
    pairs = [
        (number, known[token])
        for number in range(tokenizer.vocab_size)
        if (token := tokenizer.decode([number])) in known
    ]
    weights = earlier.encoder.state_dict()
    embedding = encoder.embedding.weight.detach().clone()
    own, other = (torch.tensor(side) for side in zip(*pairs, strict=True))
    embedding[own] = weights["embedding.weight"][other]
    encoder.load_state_dict(weights | {"embedding.weight": embedding})
    return len(pairs)


def _compared(config: EncoderConfig) -> EncoderConfig:
    return replace(config, vocab_size=1, pooling="final", dropout=0.0)
