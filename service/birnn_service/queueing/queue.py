"""The queue of one lane: its waiting rows, the most urgent first."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(slots=True, eq=False)
class Waiting:
    """Waiting rows as parallel arrays [n], the most urgent first.

    `rank` orders rows, `deadline` is infinite for none, `submission` and `row` say which row of which submission each
    is, and `length` is in tokens.
    """

    rank: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    deadline: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    submission: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    row: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    length: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def select(self, which: NDArray[np.intp] | NDArray[np.bool_] | slice) -> "Waiting":
        """The rows at the given positions."""
        return Waiting(*(column[which] for column in self._columns()))

    def joined(self, other: "Waiting") -> "Waiting":
        """Both, in order of rank; among equals those of `self` first."""
        if len(self) == 0:
            return other
        merged = Waiting(*map(np.concatenate, zip(self._columns(), other._columns(), strict=True)))
        if self.rank[-1] <= other.rank[0]:
            return merged
        return merged.select(np.argsort(merged.rank, kind="stable"))

    def __len__(self) -> int:
        return len(self.rank)

    def _columns(self) -> tuple[NDArray[Any], ...]:
        return (self.rank, self.deadline, self.submission, self.row, self.length)
