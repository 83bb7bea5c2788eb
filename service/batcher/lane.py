"""A lane: the sequences that wait for one output of one encoder, and so may share a batch."""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from service.batcher.cost import CostModel
from service.engine.engine import Engine, Output

# Rows the planner looks at. Among so many, lengths can be matched almost perfectly (97 % full batches among 1,024).
WINDOW = 2048


@dataclass(slots=True, eq=False)
class Waiting:
    """Waiting rows as parallel arrays [n], the most urgent first.

    `rank` orders rows, `work` and `row` say which row of which request each is, `length` is in tokens.
    """

    rank: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    work: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    row: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    length: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def select(self, which: NDArray[np.intp] | NDArray[np.bool_] | slice) -> "Waiting":
        """The rows at the given positions."""
        return Waiting(self.rank[which], self.work[which], self.row[which], self.length[which])

    def joined(self, other: "Waiting") -> "Waiting":
        """Both, in order of rank; among equals those of `self` first."""
        rank = np.concatenate([self.rank, other.rank])
        merged = Waiting(
            rank,
            np.concatenate([self.work, other.work]),
            np.concatenate([self.row, other.row]),
            np.concatenate([self.length, other.length]),
        )
        return merged.select(np.argsort(rank, kind="stable"))

    def __len__(self) -> int:
        return len(self.rank)


@dataclass(slots=True, eq=False)
class Lane:
    """One output of one encoder: its engine, what its batches cost, what waits for it, and when it last worked."""

    encoder: str
    engine: Engine
    output: Output
    width: int
    cost: CostModel
    waiting: Waiting = field(default_factory=Waiting)
    last_success: float = -math.inf

    def add(self, work: int, lengths: NDArray[np.int64], now: float) -> float:
        """Queue all rows of a request.

        A row's rank is when it would be done if its request had the machine to itself from now on. So small requests
        pass between the rows of a large one, and since time goes on for everybody, nothing starves.

        Returns:
            Predicted seconds of compute.
        """
        shares = self.cost.shares(lengths, self.engine.info.max_rows)
        ends = np.cumsum(shares)
        rows = np.arange(len(lengths))
        added = Waiting(now + ends - shares, np.full(len(lengths), work, dtype=np.int64), rows, lengths)
        self.waiting = self.waiting.joined(added)
        return float(ends[-1])

    def remove(self, works: NDArray[np.int64]) -> None:
        """Forget the waiting rows of some requests."""
        self.waiting = self.waiting.select(~np.isin(self.waiting.work, works))

    def take(self, positions: NDArray[np.intp]) -> Waiting:
        """Take the rows at `positions` out of the lane."""
        taken = self.waiting.select(positions)
        left = np.ones(len(self.waiting), dtype=bool)
        left[positions] = False
        self.waiting = self.waiting.select(left)
        return taken

    @property
    def backlog(self) -> float:
        """Predicted seconds of compute that wait."""
        return float(self.cost.shares(self.waiting.length, self.engine.info.max_rows).sum())
