"""Descriptors on one scale: what objectives that read them compare with."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

_LARGEST_DEVIATION = 5.0


class Standardization(nn.Module):
    """Standardizes descriptors by their mean and deviation in the training molecules.

    Standardized values are cut at five deviations; undefined ones count as the mean.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, values: NDArray[np.float32]) -> None:
        """Measure descriptors [n, F]; undefined ones are left out."""
        super().__init__()
        finite = np.where(np.isfinite(values), values, np.nan).astype(np.float64)
        mean, deviation = np.nanmean(finite, axis=0), np.nanstd(finite, axis=0)
        self.register_buffer("mean", torch.from_numpy(mean).float())
        # A descriptor that never varies says nothing and must not divide by zero.
        self.register_buffer("deviation", torch.from_numpy(np.where(deviation > 0, deviation, 1.0)).float())

    def forward(self, values: Tensor) -> Tensor:
        """Standardized descriptors float32 [B, F]."""
        standardized = ((values - self.mean) / self.deviation).nan_to_num(0.0, 0.0, 0.0)
        return standardized.clamp(-_LARGEST_DEVIATION, _LARGEST_DEVIATION)
