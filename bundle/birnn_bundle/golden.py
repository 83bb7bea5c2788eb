"""Golden vectors: inputs, and the encodings that every engine must reproduce before it may serve."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from birnn_bundle.errors import BundleError
from birnn_bundle.ragged import RaggedBatch

Vectors = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Golden:
    """Inputs and PyTorch's float64 outputs.

    Attributes:
        batch: Sequences of mixed lengths, a single token among them, `n` in all.
        pooled: Pooled encodings, float64 [n, D].
        tokens: Per-token encodings of all sequences back to back, float64 [tokens, 2H]; stored as float32.
    """

    batch: RaggedBatch
    pooled: Vectors
    tokens: Vectors

    def __post_init__(self) -> None:
        if len(self.batch) == 0 or (self.batch.lengths == 0).any():
            raise BundleError("golden vectors need at least one sequence, and none may be empty")
        if self.pooled.ndim != 2 or self.tokens.ndim != 2 or len(self.pooled) != len(self.batch):
            raise BundleError(f"golden pooled vectors have shape {self.pooled.shape} for {len(self.batch)} sequences")
        if len(self.tokens) != self.batch.tokens:
            raise BundleError(f"golden token vectors have shape {self.tokens.shape} for {self.batch.tokens} tokens")

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        content = save(
            {
                ("features" if self.batch.features else "ids"): self.batch.values,
                "offsets": self.batch.offsets,
                "pooled": np.ascontiguousarray(self.pooled),
                "tokens": self.tokens.astype(np.float32),
            }
        )
        # The library's own `save_file` makes files that only their owner can read, such as not the user of a container.
        path.write_bytes(content)

    @classmethod
    def from_bytes(cls, content: bytes) -> "Golden":
        """Read what `save` wrote.

        Raises:
            BundleError: The content is damaged, or its arrays are of other types or do not belong together.
        """
        try:
            arrays = load(content)
            values = _array(arrays, "features", np.float32) if "features" in arrays else _array(arrays, "ids", np.int32)
            golden = cls(
                RaggedBatch(values, _array(arrays, "offsets", np.int64)),
                _array(arrays, "pooled", np.float64),
                _array(arrays, "tokens", np.float32).astype(np.float64),
            )
        except (SafetensorError, KeyError, ValueError) as error:
            raise BundleError(f"there are no golden vectors in their file: {error}") from error
        # Here and not above: what is measured in half precision may be infinite, but is never stored.
        if not all(np.isfinite(values).all() for values in (golden.batch.values, golden.pooled, golden.tokens)):
            raise BundleError("golden inputs and vectors must be finite numbers")
        return golden


def _array(arrays: Mapping[str, NDArray[Any]], name: str, dtype: type[np.generic]) -> NDArray[Any]:
    """Raises ValueError where it is of another type: a conversion could wrap around."""
    array = arrays[name]
    if array.dtype != dtype:
        raise ValueError(f"{name!r} is {array.dtype}, {np.dtype(dtype)} expected")
    return array
