"""Beginning with the weights of an earlier run instead of random ones.

Heads go along: beside a random head a trained encoder would at first be pulled anywhere, and lose what it knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from birnn_bundle.tokenizer import Tokenizer
from birnn_export.encoders import EncoderConfig, SequenceEncoder
from birnn_export.training.checkpoint import LoadedCheckpoint
from birnn_export.training.errors import TrainingError


def start_from(encoder: SequenceEncoder, tokenizer: Tokenizer, earlier: LoadedCheckpoint) -> int:
    """Give `encoder` the weights of an `earlier` one and say how many of its tokens that one knew.

    Pooling and dropout may differ, they have no weights. Embeddings go by token, not by id; tokens that are new keep
    their random ones, and so do layers above those of the earlier one. Raises TrainingError where architecture, sizes
    or kinds of tokenizers differ, and where the earlier one has more layers.
    """
    ours, theirs = _compared(encoder.config), _compared(earlier.config)
    if ours != replace(theirs, layers=max(ours.layers, theirs.layers)):
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
    encoder.load_state_dict(encoder.state_dict() | weights | {"embedding.weight": embedding})
    return len(pairs)


def take_heads(heads: nn.ModuleDict, earlier: Mapping[str, Tensor]) -> list[str]:
    """Give the objectives' `heads` what those of an `earlier` run hold, see `checkpoint.read_heads`; say which got it.

    A head that the earlier run lacks, or had in other sizes, stays as it is.
    """
    taken = []
    for name, head in heads.items():
        own = head.state_dict()
        given = {key: earlier[f"{name}.{key}"] for key in own if f"{name}.{key}" in earlier}
        if own and {key: value.shape for key, value in own.items()} == {k: v.shape for k, v in given.items()}:
            head.load_state_dict(given)
            taken.append(name)
    return taken


def _compared(config: EncoderConfig) -> EncoderConfig:
    return replace(config, vocab_size=1, pooling="final", dropout=0.0)
