"""The ragged batch: sequences of token ids of different lengths, back to back in one array."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class RaggedBatch:
    """`n` sequences of token ids, stored flat.

    Attributes:
        ids: All token ids, one sequence after another, int32 [tokens].
        offsets: Where each sequence begins in `ids`, and at last where the final one ends, int64 [n + 1].
        lengths: Number of tokens of each sequence, int64 [n]; follows from the offsets.

    Raises:
        ValueError: The offsets do not start at 0, fall, or do not end at the number of ids.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.ids.ndim != 1 or self.offsets.ndim != 1 or len(self.offsets) == 0:
            raise ValueError(f"ids and offsets are flat arrays, got shapes {self.ids.shape} and {self.offsets.shape}")
        lengths = self.offsets[1:] - self.offsets[:-1]
        if self.offsets.item(0) or self.offsets.item(-1) != len(self.ids) or (len(lengths) and lengths.min() < 0):
            raise ValueError(f"offsets must rise from 0 to the number of ids, {len(self.ids)}")
        object.__setattr__(self, "lengths", lengths)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def tokens(self) -> int:
        """Number of tokens of all sequences together."""
        return len(self.ids)

    @classmethod
    def from_lists(cls, rows: Iterable[Sequence[int] | NDArray[np.int32]]) -> "RaggedBatch":
        """Build a batch from one sequence of ids per row."""
        arrays = [np.asarray(row, dtype=np.int32) for row in rows]
        ids = np.concatenate(arrays) if arrays else np.empty(0, dtype=np.int32)
        return cls(ids, offsets_of(np.fromiter(map(len, arrays), dtype=np.int64, count=len(arrays))))

    @classmethod
    def concatenate(cls, batches: Sequence["RaggedBatch"]) -> "RaggedBatch":
        """Put batches one after another."""
        if len(batches) == 1:
            return batches[0]
        if not batches:
            return cls.from_lists([])
        return cls(
            np.concatenate([batch.ids for batch in batches]),
            offsets_of(np.concatenate([batch.lengths for batch in batches])),
        )

    def row(self, index: int) -> NDArray[np.int32]:
        """Token ids of one sequence, a view [length]."""
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    def keys(self) -> list[bytes]:
        """One hashable value a sequence [n], equal exactly where the ids are."""
        raw = self.ids.tobytes()
        ends = (self.offsets * self.ids.itemsize).tolist()
        return [raw[start:end] for start, end in pairwise(ends)]

    def take(self, rows: NDArray[np.intp]) -> "RaggedBatch":
        """The sequences at `rows`, in that order; a row may be taken more than once."""
        lengths = self.lengths[rows]
        offsets = offsets_of(lengths)
        # Position of every wanted token: its place in the result, moved by how far its sequence moved.
        moved = np.repeat(self.offsets[:-1][rows] - offsets[:-1], lengths)
        return RaggedBatch(self.ids[np.arange(offsets[-1]) + moved], offsets)

    def padded(self, pad_id: int = 0, steps: int | None = None) -> NDArray[np.int32]:
        """Pad to a dense, time-major array, int32 [T, B], where T is `steps` or the longest length.

        Raises:
            ValueError: A sequence is longer than `steps`.
        """
        lengths = self.lengths
        longest = int(lengths.max(initial=0))
        if steps is None:
            steps = longest
        elif longest > steps:
            raise ValueError(f"a sequence of {longest} tokens does not fit in {steps} steps")
        dense = np.full((len(self), steps), pad_id, dtype=np.int32)
        dense[np.arange(steps) < lengths[:, None]] = self.ids
        return np.ascontiguousarray(dense.T)


def offsets_of(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Offsets [n + 1] of sequences of the given lengths [n] laid back to back."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets
