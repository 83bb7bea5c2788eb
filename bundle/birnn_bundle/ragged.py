"""The ragged batch: sequences of different lengths, of token ids or of float features, back to back in one array."""

from collections.abc import Iterable, Sequence
from dataclasses import field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from birnn_bundle.record import record


@record
class RaggedBatch:
    """`n` sequences of token ids, or of F float features a step, stored flat. A step of features is a token too.

    Attributes:
        values: All tokens, one sequence after another: ids int32 [tokens], or features float32 [tokens, F].
        offsets: Where each sequence begins in `values`, and at last where the final one ends, int64 [n + 1].
        lengths: Number of tokens of each sequence, int64 [n]; follows from the offsets.

    Raises:
        ValueError: The offsets do not start at 0, fall, or do not end at the number of tokens.
    """

    values: NDArray[np.int32] | NDArray[np.float32]
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        flat = self.values.ndim == (2 if self.values.dtype == np.float32 else 1)
        if not flat or self.offsets.ndim != 1 or len(self.offsets) == 0:
            raise ValueError(
                f"ids and offsets are flat arrays and features a matrix, got shapes {self.values.shape} and "
                f"{self.offsets.shape}"
            )
        lengths = self.offsets[1:] - self.offsets[:-1]
        # A single length is what the ends say. Most batches of calls are of one, so a look at all costs too much there.
        falls = len(lengths) > 1 and lengths.min() < 0
        if self.offsets.item(0) or self.offsets.item(-1) != len(self.values) or falls:
            raise ValueError(f"offsets must rise from 0 to the number of tokens, {len(self.values)}")
        object.__setattr__(self, "lengths", lengths)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def ids(self) -> NDArray[np.int32]:
        """All token ids, int32 [tokens].

        Raises:
            TypeError: The batch holds features.
        """
        if self.features:
            raise TypeError("a batch of features has no token ids")
        return self.values  # type: ignore[return-value]

    @property
    def features(self) -> int:
        """Number of float features a token, 0 for token ids."""
        return self.values.shape[1] if self.values.ndim == 2 else 0

    @property
    def holds_ids(self) -> bool:
        """Whether its tokens are ids, not features."""
        return self.values.ndim == 1

    @property
    def tokens(self) -> int:
        """Number of tokens of all sequences together."""
        return len(self.values)

    @classmethod
    def from_lists(cls, rows: Iterable[Sequence[int] | NDArray[np.int32]]) -> "RaggedBatch":
        """Build a batch of token ids from one sequence of them per row."""
        arrays = [np.asarray(row, dtype=np.int32) for row in rows]
        ids = np.concatenate(arrays) if arrays else np.empty(0, dtype=np.int32)
        return cls(ids, offsets_of(np.fromiter(map(len, arrays), dtype=np.int64, count=len(arrays))))

    @classmethod
    def from_features(cls, rows: Sequence[NDArray[np.float32]]) -> "RaggedBatch":
        """Build a batch from at least one sequence of features, each float32 [length, F]."""
        return cls(np.concatenate(rows), offsets_of(np.array([len(row) for row in rows], dtype=np.int64)))

    @classmethod
    def concatenate(cls, batches: Sequence["RaggedBatch"]) -> "RaggedBatch":
        """Put batches one after another."""
        if len(batches) == 1:
            return batches[0]
        if not batches:
            return cls.from_lists([])
        return cls(
            np.concatenate([batch.values for batch in batches]),
            offsets_of(np.concatenate([batch.lengths for batch in batches])),
        )

    def row(self, index: int) -> NDArray[Any]:
        """Tokens of one sequence, a view: ids [length], or features [length, F]."""
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def between(self, start: int, end: int) -> "RaggedBatch":
        """The sequences from position `start` up to `end`; their tokens are not copied."""
        first, last = self.offsets[start], self.offsets[end]
        return RaggedBatch(self.values[first:last], self.offsets[start : end + 1] - first)

    def keys(self) -> list[bytes]:
        """One hashable value a sequence [n], equal exactly where the tokens are."""
        raw = self.values.tobytes()
        ends = (self.offsets * (len(raw) // max(self.tokens, 1))).tolist()
        return [raw[start:end] for start, end in pairwise(ends)]

    def take(self, rows: NDArray[np.intp]) -> "RaggedBatch":
        """The sequences at `rows`, in that order; a row may be taken more than once."""
        lengths = self.lengths[rows]
        offsets = offsets_of(lengths)
        # Position of every wanted token: its place in the result, moved by how far its sequence moved.
        moved = np.repeat(self.offsets[:-1][rows] - offsets[:-1], lengths)
        return RaggedBatch(self.values[np.arange(offsets[-1]) + moved], offsets)

    def cut(self, longest: int) -> "RaggedBatch":
        """Each sequence without what it holds beyond `longest` tokens."""
        lengths = np.minimum(self.lengths, longest)
        if (lengths == self.lengths).all():
            return self
        steps = np.arange(self.tokens) - np.repeat(self.offsets[:-1], self.lengths)
        return RaggedBatch(self.values[steps < longest], offsets_of(lengths))

    def count(self, flags: NDArray[np.bool_]) -> NDArray[np.int64]:
        """How many tokens of each sequence are flagged [n], by one flag for each token."""
        before = offsets_of(flags)[self.offsets]
        return before[1:] - before[:-1]

    def padded(self, pad_id: int = 0, steps: int | None = None) -> NDArray[Any]:
        """Pad to a dense, time-major array, where T is `steps` or the longest length.

        Args:
            pad_id: What ids are padded with; features are padded with zeros.
            steps: T.

        Returns:
            int32 [T, B] of ids, or float32 [T, B, F] of features.

        Raises:
            ValueError: A sequence is longer than `steps`.
        """
        lengths = self.lengths
        longest = int(lengths.max(initial=0))
        if steps is None:
            steps = longest
        elif longest > steps:
            raise ValueError(f"a sequence of {longest} tokens does not fit in {steps} steps")
        shape = (len(self), steps, *self.values.shape[1:])
        dense = np.full(shape, 0 if self.features else pad_id, dtype=self.values.dtype)
        dense[np.arange(steps) < lengths[:, None]] = self.values
        return np.ascontiguousarray(dense.swapaxes(0, 1))


def offsets_of(lengths: NDArray[np.int64] | NDArray[np.bool_]) -> NDArray[np.int64]:
    """Offsets [n + 1] of sequences of the given lengths [n] laid back to back."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets
