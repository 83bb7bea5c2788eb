"""How fast to learn, and when: a linear warm-up, then a cosine, or a peak that is held and falls at the end."""

from __future__ import annotations

import math

from birnn_export.training.settings import TrainingSettings

FINAL_RATE = 0.05
"""Share of the peak learning rate at which the schedule ends."""

DECAY = 0.2
"""Share of a stable schedule in which the learning rate falls (Hu et al., MiniCPM, 2024, section 4: 10 to 20%)."""


def learning_rate(settings: TrainingSettings, step: int, progress: float) -> float:
    """The rate of a step; `progress` is the share of the schedule that is done, 0 to 1."""
    warm = min(1.0, (step + 1) / (settings.warmup_steps + 1))
    if settings.schedule == "cosine":
        height = (1 + math.cos(math.pi * progress)) / 2
    else:
        height = min(1.0, (1 - progress) / DECAY)
    return settings.learning_rate * warm * (FINAL_RATE + (1 - FINAL_RATE) * height)
