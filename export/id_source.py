"""Where the ids of sequences to verify with come from."""

import numpy as np
from numpy.typing import NDArray

from bundle.ragged import RaggedBatch
from bundle.tokenizer import MASK_ID


class IdSource:
    """Draws ids for a sequence of any length: a piece of real sequences where there are some, else random ids.

    Real ones are better: a recurrence that has learned to keep something for many steps keeps rounding errors too, and
    on hundreds of random ids it is driven to states that no real sequence brings it to.
    """

    def __init__(self, vocab_size: int, seed: int, sequences: RaggedBatch | None = None) -> None:
        """Draw from `sequences`, back to back, and where these are too short from `vocab_size` ids."""
        self.random = np.random.default_rng(seed)
        self._vocab_size = vocab_size
        self._pool = np.empty(0, dtype=np.int32) if sequences is None else sequences.ids

    def text(self, length: int) -> NDArray[np.int32]:
        """Ids of a sequence of `length` tokens; random ones are never padding or mask if there are others."""
        if 0 < length <= len(self._pool):
            begin = self.random.integers(len(self._pool) - length, endpoint=True)
            return self._pool[begin : begin + length]
        return self.random.integers(min(MASK_ID + 1, self._vocab_size - 1), self._vocab_size, length, dtype=np.int32)

    def junk(self, shape: tuple[int, ...]) -> NDArray[np.int32]:
        """Any ids of the vocabulary, the special ones too."""
        return self.random.integers(0, self._vocab_size, shape, dtype=np.int32)
