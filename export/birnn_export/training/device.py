"""Where a run computes."""

from __future__ import annotations

import torch

from birnn_export.training.errors import TrainingError
from birnn_export.training.settings import Precision


def resolve_device(name: str, precision: Precision = "fp32") -> torch.device:
    """`cpu`, `cuda` or `auto`. Raises TrainingError when CUDA is asked for and missing, and for fp16 on a CPU."""
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainingError("CUDA is asked for, but this torch finds no CUDA device; use --device cpu or auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if precision == "fp16" and name == "cpu":
        raise TrainingError("fp16 needs CUDA; on a CPU use fp32 or bf16")
    return torch.device(name)
