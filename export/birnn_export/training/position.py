"""Where a training stands."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass
class Position:
    """Step, time and losses so far. All of it is saved, so that a resumed run goes on as if it had never stopped."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best_loss: float = math.inf
    best_step: int = 0
    without_gain: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    """Training losses since the last evaluation, summed, ..."""
    counts: dict[str, int] = field(default_factory=dict)
    """... and how many batches gave one."""
