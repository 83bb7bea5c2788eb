"""Scored pairs of sequences as targets: the partner of a row, and how similar the two are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from birnn_bundle.corpus import ScoredPair
from birnn_bundle.ragged import RaggedBatch
from birnn_bundle.tokenizer import Tokenizer
from birnn_export.training.batches import Rows, to_tensor


@dataclass(frozen=True)
class PairBatch:
    """The partners of some rows of a batch.

    rows: int64 [P], rows of the batch that have one. ids int64 [P, S], lengths int64 [P] (on the CPU): the partners.
    scores: float32 [P].
    """

    rows: Tensor
    ids: Tensor
    lengths: Tensor
    scores: Tensor


@dataclass(frozen=True)
class Partners:
    """For each row of a dataset the sequence it is compared with, without a token where there is none."""

    sequences: RaggedBatch
    scores: NDArray[np.float32]
    """Of each row; 0 where there is no partner."""

    def of(self, rows: Rows, device: torch.device) -> PairBatch | None:
        """The partners of `rows`, numbered as in that selection; nothing where none has one."""
        paired = np.flatnonzero(self.sequences.lengths[rows])
        if not len(paired):
            return None
        chosen = self.sequences.take(rows[paired])
        return PairBatch(
            torch.from_numpy(paired).to(device),
            to_tensor(chosen).to(device),
            torch.from_numpy(chosen.lengths),
            torch.from_numpy(self.scores[rows[paired]]).to(device),
        )


def tokenize_pairs(
    pairs: Sequence[ScoredPair], tokenizer: Tokenizer, max_length: int
) -> tuple[RaggedBatch, Partners, Rows]:
    """First sequences, their partners, and the rows of `pairs` that these are: those with both sides short enough."""
    first, second = (
        tokenizer.tokenize([side.encode() for side in sides], max_length)
        for sides in ([pair.first for pair in pairs], [pair.second for pair in pairs])
    )
    kept, of_first, of_second = np.intersect1d(first.rows, second.rows, assume_unique=True, return_indices=True)
    scores = np.array([pairs[row].score for row in kept], np.float32)
    return first.batch.take(of_first), Partners(second.batch.take(of_second), scores), kept
