"""What a training run is told: sizes come from `EncoderConfig`, everything else from here."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self, get_args

from birnn_export.training.errors import TrainingError

Precision = Literal["fp32", "bf16", "fp16"]
Schedule = Literal["cosine", "stable"]

OBJECTIVE_NAMES = (
    *("masked", "contrast", "descriptors", "surfaces", "groups", "fingerprint", "atoms", "environments", "likeness"),
    *("tokens", "next-tokens", "similarity"),
)
MOLECULE_OBJECTIVES = frozenset(
    {"descriptors", "surfaces", "groups", "fingerprint", "atoms", "environments", "likeness"}
)


def parse_objectives(text: str) -> dict[str, float]:
    """Objectives and their weights from `name[:weight],...`, for example `masked,descriptors:2`.

    Raises TrainingError for an unknown or repeated name and a weight that is not positive.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, weight = part.strip().partition(":")
        if name not in OBJECTIVE_NAMES:
            raise TrainingError(f"unknown objective {name!r}; choose from {', '.join(OBJECTIVE_NAMES)}")
        if name in weights:
            raise TrainingError(f"objective {name!r} is given twice")
        try:
            weights[name] = float(weight) if weight else 1.0
        except ValueError:
            raise TrainingError(f"the weight of objective {name!r} must be a number, not {weight!r}") from None
        if not (math.isfinite(weights[name]) and weights[name] > 0):
            raise TrainingError(f"the weight of objective {name!r} must be positive, not {weight}")
    return weights


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of one run; those of the schedule and the data may not change when it is resumed."""

    objectives: dict[str, float]
    """Objective -> weight in the loss."""
    epochs: int = 10
    batch_tokens: int = 6144
    """Cells [B * T] of a batch of one process; rows of long sequences are fewer."""
    learning_rate: float = 2e-3
    """Peak of the schedule, reached by a linear warm-up."""
    schedule: Schedule = "cosine"
    """What follows the warm-up: a cosine down to a twentieth, or the peak itself for the first four fifths and then a
    straight line down. A stable run can be given more time later without having spent itself."""
    warmup_steps: int = 200
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    mask_share: float = 0.2
    """Share of tokens that the masked objective and the contrast hide."""
    evaluate_every: int = 500
    """Steps between evaluations, each of which writes a checkpoint."""
    patience: int = 10
    """Evaluations without a better validation loss after which training stops."""
    max_steps: int | None = None
    """Steps within which the schedule is completed, if `epochs` do not end before; over all resumed parts together."""
    max_minutes: float | None = None
    """Training time, evaluations included, within which the schedule is completed; over all resumed parts together."""
    seed: int = 0
    device: str = "cpu"
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_tokens", "evaluate_every", "patience"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name.replace('_', ' ')} must be at least 1, not {getattr(self, name)}")
        for name in ("learning_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                raise TrainingError(f"{name.replace('_', ' ')} must be positive, not {getattr(self, name)}")
        if self.max_steps is not None and self.max_steps < 1:
            raise TrainingError(f"max steps must be at least 1, not {self.max_steps}")
        if self.max_minutes is not None and not self.max_minutes > 0:
            raise TrainingError(f"max minutes must be positive, not {self.max_minutes}")
        if self.warmup_steps < 0 or self.weight_decay < 0:
            raise TrainingError("warm-up steps and weight decay must not be negative")
        if not 0 < self.mask_share < 1:
            raise TrainingError(f"mask share must lie between 0 and 1, not {self.mask_share}")
        if self.schedule not in get_args(Schedule):
            raise TrainingError(f"schedule must be one of {', '.join(get_args(Schedule))}, not {self.schedule!r}")
        if self.precision not in get_args(Precision):
            raise TrainingError(f"precision must be one of {', '.join(get_args(Precision))}, not {self.precision!r}")

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_json`. Raises TrainingError for keys that do not exist."""
        if unknown := values.keys() - {field.name for field in fields(cls)}:
            raise TrainingError(f"unknown training settings: {', '.join(sorted(unknown))}")
        return cls(**values)
