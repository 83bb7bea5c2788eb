"""What an objective finds in one batch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Score:
    """Mean loss over `count` items, and the share of them that were predicted right where that is defined."""

    loss: Tensor
    count: int
    accuracy: Tensor | None = None
