"""Shaping distances: molecules whose descriptors are alike get vectors that are alike."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from birnn_export.training.score import Score
from birnn_export.training.standardization import Standardization

MOMENTUM = 0.02
"""Of the running mean and variance of the vectors: about the last fifty batches."""

FEWEST = 4
"""Rows of a batch below which its pairs are too few to correlate."""


class Likeness(nn.Module):
    """How far the likeness of vectors is from that of the molecules: 1 minus a correlation over all pairs of a batch.

    Of vectors: the cosine once they are standardized, as heads on frozen vectors see them. Of molecules: the cosine of
    their standardized descriptors. The normalized alignment of two kernels without their diagonals; compare centered
    kernel alignment (Cortes, Mohri and Rostamizadeh, JMLR 2012).
    """

    def __init__(self, dimension: int, standardization: Standardization) -> None:
        super().__init__()
        self.descriptors = standardization
        # Of the whole corpus, not of one batch: that holds sequences of about one length.
        self.vectors = nn.BatchNorm1d(dimension, affine=False, momentum=MOMENTUM)

    def forward(self, pooled: Tensor, descriptors: Tensor) -> Score | None:
        """Loss of vectors [B, D] against descriptors float32 [B, F] of all groups."""
        rows = len(pooled)
        if rows < FEWEST:
            return None
        pairs = torch.triu_indices(rows, rows, 1, device=pooled.device)
        found = _over(_cosines(self._standardized(pooled.float())), pairs)
        wanted = _over(_cosines(self.descriptors(descriptors)), pairs)
        return Score(1 - (found * wanted).mean(), rows)

    def _standardized(self, pooled: Tensor) -> Tensor:
        if self.training:
            self.vectors(pooled.detach())
        mean, variance = self.vectors.running_mean, self.vectors.running_var
        assert mean is not None
        assert variance is not None
        return (pooled - mean) * (variance + self.vectors.eps).rsqrt()


def _cosines(vectors: Tensor) -> Tensor:
    unit = F.normalize(vectors, dim=1)
    return unit @ unit.T


def _over(likeness: Tensor, pairs: Tensor) -> Tensor:
    """Entries of a matrix [B, B] at `pairs` [2, P], standardized."""
    values = likeness[pairs[0], pairs[1]]
    return (values - values.mean()) / values.std(correction=0).clamp(min=1e-6)
