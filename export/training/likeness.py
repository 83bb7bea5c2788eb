"""Shaping distances: molecules that descriptors and fingerprints find alike get vectors that are alike."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.training.score import Score
from export.training.standardization import Standardization

MOMENTUM = 0.02
"""Of the running mean and variance of the vectors: about the last fifty batches."""

FEWEST = 4
"""Rows of a batch below which its pairs are too few to correlate."""


class Likeness(nn.Module):
    """How far the likeness of vectors is from that of the molecules: 1 minus a correlation over all pairs of a batch.

    Of vectors: the cosine once they are standardized, as heads on frozen vectors see them. Of molecules: the sum of the
    cosine of their standardized descriptors and the Tanimoto coefficient of their fingerprints, each standardized over
    the pairs. The normalized alignment of two kernels without their diagonals; compare centered kernel alignment
    (Cortes, Mohri and Rostamizadeh, JMLR 2012).
    """

    def __init__(self, dimension: int, standardization: Standardization) -> None:
        super().__init__()
        self.descriptors = standardization
        # Of the whole corpus, not of one batch: that holds sequences of about one length.
        self.vectors = nn.BatchNorm1d(dimension, affine=False, momentum=MOMENTUM)

    def forward(self, pooled: Tensor, descriptors: Tensor, fingerprints: Tensor) -> Score | None:
        """Loss of vectors [B, D]; descriptors float32 [B, F], fingerprints float32 [B, bits] of zeros and ones."""
        rows = len(pooled)
        if rows < FEWEST:
            return None
        pairs = torch.triu_indices(rows, rows, 1, device=pooled.device)
        found = _over(_cosines(self._standardized(pooled.float())), pairs)
        properties, structure = _cosines(self.descriptors(descriptors)), _tanimoto(fingerprints)
        wanted = _standard(_over(properties, pairs) + _over(structure, pairs))
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


def _tanimoto(fingerprints: Tensor) -> Tensor:
    common = fingerprints @ fingerprints.T
    counts = common.diagonal()
    return common / (counts[:, None] + counts - common).clamp(min=1)


def _over(likeness: Tensor, pairs: Tensor) -> Tensor:
    """Entries of a matrix [B, B] at `pairs` [2, P], standardized."""
    return _standard(likeness[pairs[0], pairs[1]])


def _standard(values: Tensor) -> Tensor:
    return (values - values.mean()) / values.std(correction=0).clamp(min=1e-6)
