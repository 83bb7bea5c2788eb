"""Where the sequences to verify with come from: ids, or float features."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from birnn_bundle.ragged import RaggedBatch
from birnn_bundle.tokenizer import MASK_ID


class Source(Protocol):
    """Makes tokens to verify with."""

    random: np.random.Generator

    def batch(self, lengths: Sequence[int]) -> RaggedBatch:
        """Sequences of the given lengths."""

    def junk(self, shape: tuple[int, ...]) -> NDArray[Any]:
        """Whatever may stand where no sequence is."""


class IdSource:
    """Draws ids for a sequence of any length: a piece of real sequences where there are some, else random ids.

    Real ones are better: a recurrence that has learned to keep something for many steps keeps rounding errors too, and
    on hundreds of random ids, or of many molecules in a row, it is driven to states that no real sequence brings it to.
    (PyTorch's own float32 is off by up to 3e-5 on 1,024 tokens of many molecules in a row, by less than 4e-6 on one of
    1,103.) So a piece is of a single sequence where one is long enough.
    """

    def __init__(self, vocab_size: int, seed: int, sequences: RaggedBatch | None = None) -> None:
        """Draw from `sequences`, one or several back to back, and where all are too short from `vocab_size` ids."""
        self.random = np.random.default_rng(seed)
        self._vocab_size = vocab_size
        self._real = RaggedBatch.from_lists([]) if sequences is None else sequences

    def text(self, length: int) -> NDArray[np.int32]:
        """Ids of a sequence of `length` tokens; random ones are never padding or mask if there are others."""
        long_enough = np.flatnonzero(self._real.lengths >= length)
        pool = self._real.row(int(self.random.choice(long_enough))) if len(long_enough) else self._real.ids
        if 0 < length <= len(pool):
            begin = self.random.integers(len(pool) - length, endpoint=True)
            return pool[begin : begin + length]
        return self.random.integers(min(MASK_ID + 1, self._vocab_size - 1), self._vocab_size, length, dtype=np.int32)

    def batch(self, lengths: Sequence[int]) -> RaggedBatch:
        """A text of each of the given lengths."""
        return RaggedBatch.from_lists([self.text(length) for length in lengths])

    def junk(self, shape: tuple[int, ...]) -> NDArray[np.int32]:
        """Any ids of the vocabulary, the special ones too."""
        return self.random.integers(0, self._vocab_size, shape, dtype=np.int32)


class FeatureSource:
    """Draws features from a normal distribution."""

    def __init__(self, features: int, seed: int) -> None:
        """Draw `features` numbers a token."""
        self.random = np.random.default_rng(seed)
        self._features = features

    def batch(self, lengths: Sequence[int]) -> RaggedBatch:
        """Random sequences of the given lengths."""
        return RaggedBatch.from_features([self.junk((length, self._features)) for length in lengths])

    def junk(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Random numbers."""
        return self.random.standard_normal(shape, dtype=np.float32)
