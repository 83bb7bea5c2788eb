"""Waiting rows, in order."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(slots=True, eq=False)
class Waiting:
    """Waiting rows as parallel arrays [n], the most urgent first.

    `rank` orders rows, `deadline` is infinite for none, `submission` and `row` say which row of which submission each
    is, and `length` is in tokens.

    Where HIGH rows are among them, `order` is what the rows are in order of, and ranks belong to places, not to rows:
    the first row has the least of them. So other callers see the same ranks with priorities as without.
    """

    rank: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    deadline: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    submission: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    row: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    length: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    order: NDArray[np.float64] | None = None

    def select(self, which: NDArray[np.intp] | NDArray[np.bool_] | slice) -> "Waiting":
        """The rows at the given positions."""
        selected = Waiting(*(column[which] for column in self._columns()))
        if self.order is not None:
            selected.order = self.order[which]
        return selected

    def joined(self, other: "Waiting") -> "Waiting":
        """Both, in order; among equals those of `self` first."""
        if len(self) == 0:
            return other
        merged = Waiting.concatenate([self, other])
        if self.order is not None or other.order is not None:
            merged.order = np.concatenate([self.keys, other.keys])
            ranks = np.sort(merged.rank)
            merged = merged.select(np.argsort(merged.order, kind="stable"))
            merged.rank = ranks
            return merged
        if self.rank[-1] <= other.rank[0]:
            return merged
        return merged.select(np.argsort(merged.rank, kind="stable"))

    @staticmethod
    def concatenate(pieces: Iterable["Waiting"]) -> "Waiting":
        """All of them, one after another, without their `order`."""
        return Waiting(*map(np.concatenate, zip(*(piece._columns() for piece in pieces), strict=True)))

    @property
    def keys(self) -> NDArray[np.float64]:
        """What the rows are in order of [n]."""
        return self.rank if self.order is None else self.order

    def __len__(self) -> int:
        return len(self.rank)

    def _columns(self) -> tuple[NDArray[Any], ...]:
        return (self.rank, self.deadline, self.submission, self.row, self.length)
