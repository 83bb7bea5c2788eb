"""The golden sequences of a bundle: a few of very different lengths, real ones where there are some."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bundle.ragged import RaggedBatch
from bundle.tokenizer import MASK_ID, Tokenizer

COUNT = 12
# golden.safetensors holds a float32 per-token vector for each token; a bundle should stay small enough for git.
TOKEN_BYTES = 1_800_000


def golden_ids(
    tokenizer: Tokenizer, max_length: int, token_dimension: int, sequences: Sequence[str] = (), seed: int = 0
) -> RaggedBatch:
    """Sequences whose lengths grow evenly by factor from a single token to a long one.

    Args:
        tokenizer: The encoder's.
        max_length: The longest sequence the encoder accepts, in tokens. The long one has this length, unless per-token
            vectors of `token_dimension` floats would then take more than `TOKEN_BYTES`.
        token_dimension: Floats a token.
        sequences: Real sequences to choose from. Those that cannot be tokenized are passed over; where no length is
            near the one wanted, and without any, ids are drawn from the vocabulary.
        seed: Of the drawn ids.
    """
    lengths = golden_lengths(max_length, token_dimension)
    random = np.random.default_rng(seed)
    rows: list[NDArray[np.int32]] = [random_ids(random, tokenizer.vocab_size, length) for length in lengths]
    if sequences:
        batch = tokenizer.tokenize(sequences, max_length).batch
        free = np.ones(len(batch), dtype=np.bool_)
        for position, length in enumerate(lengths):
            distance = np.where(free, np.abs(batch.lengths - length), max_length)
            nearest = int(distance.argmin()) if len(batch) else 0
            if len(batch) and distance[nearest] <= length // 4:
                free[nearest] = False
                rows[position] = batch.row(nearest)
    return RaggedBatch.from_lists(rows)


def golden_lengths(max_length: int, token_dimension: int) -> list[int]:
    """`COUNT` lengths or fewer, ascending from 1 by about the same factor."""
    budget = TOKEN_BYTES // (4 * token_dimension)
    longest = max(1, min(max_length, budget // 3))
    return sorted({round(length) for length in np.geomspace(1, longest, COUNT)})


def random_ids(random: np.random.Generator, vocab_size: int, count: int) -> NDArray[np.int32]:
    """Ids that a text can have: padding and mask left out, unless the vocabulary has nothing else."""
    return random.integers(min(MASK_ID + 1, vocab_size - 1), vocab_size, count, dtype=np.int32)
