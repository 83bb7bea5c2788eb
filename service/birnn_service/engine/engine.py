"""What every engine does: run a ragged batch, and describe itself."""

import enum
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from birnn_bundle.ragged import RaggedBatch

# What can be asked for; `auto` leaves it to the server.
Device = Literal["auto", "cpu", "cuda"]
EngineName = Literal["auto", "onnxruntime", "native"]
Precision = Literal["auto", "fp32", "bf16", "fp16", "int8"]
NativePrecision = Literal["fp32", "bf16", "int8"]
CudaPrecision = Literal["fp32", "fp16"]
PRECISION_NAMES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "int8": "int8"}
"""What a precision that is asked for is called in replies, metrics and logs."""


class Output(enum.Enum):
    """Which encoding is wanted: one vector a sequence, or one a token."""

    POOLED = "pooled"
    TOKENS = "tokens"


@dataclass(frozen=True)
class EngineInfo:
    """What runs an encoder.

    Attributes:
        engine: Name and version, `onnxruntime 1.32.0`.
        device: `cpu` or `cuda:0`.
        precision: Of the arithmetic: one of the values of `PRECISION_NAMES`.
        slots: Batches that this engine runs best at the same time.
        max_rows: Rows beyond which a larger batch is no faster per row.
        parallel_slots: Whether slots are separate processors (cores), so that work spread over idle ones ends sooner.
        packed: Whether a row costs its own tokens only. If not, batches are padded, and it costs the longest row's.
        run_slots: Slots that one run can make use of: 2 where it can walk both directions at the same time.
        features: Number of float features a token that it reads; 0 where it reads ids.
    """

    engine: str
    device: str
    precision: str
    slots: int
    max_rows: int
    parallel_slots: bool
    packed: bool = False
    run_slots: int = 1
    features: int = 0

    @cached_property
    def label(self) -> str:
        """What computes, in one line, as replies name it; put together once."""
        return f"{self.engine}, {self.device}, {self.precision}"


class Engine(Protocol):
    """Runs one version of one encoder on one device; safe to call from several threads."""

    @property
    def info(self) -> EngineInfo:
        """What this engine is."""

    def run(self, batch: RaggedBatch, output: Output, slots: int = 1) -> NDArray[np.float32]:
        """Encode a batch without empty sequences.

        Args:
            batch: The sequences.
            output: One vector a sequence or one a token.
            slots: How many slots this run may occupy, at most `info.run_slots`; the result is the same to the bit.

        Returns:
            Pooled: float32 [n, D], a row a sequence. Tokens: float32 [tokens, 2H], sequences back to back.

        Raises:
            EngineError: The run failed.
        """

    def close(self) -> None:
        """Free its memory. Nothing runs on it any more, and nothing will."""
