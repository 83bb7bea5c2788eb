"""A lane: the sequences that wait for one output of one encoder, and so may share a batch."""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from birnn_service.engine.engine import Engine, Output
from birnn_service.queueing.cost import CostModel
from birnn_service.queueing.queue import Waiting

# Rows the planner looks at. Among so many, lengths can be matched almost perfectly (97 % full batches among 1,024).
WINDOW = 2048
# How many times longer than alone a request of several batches may take before it no longer lets smaller ones pass, and
# how many times longer the rows of one batch. In simulations of mixed sizes at 80 percent load, a stretch of 8 instead
# of 4 made the mean a third less and the 99th percentile a third more; a patience of 1 to 4 gave the lowest mean.
STRETCH = 8.0
PATIENCE = 2.0
# Weight of one batch in the running mean of how far batches drift from their profile, and the most that one may count.
SMOOTHING = 0.05
LARGEST_DRIFT = 5.0


@dataclass(slots=True, eq=False)
class Lane:
    """One output of one encoder: its engine, what its batches cost, what waits for it, and when it last worked.

    `profile` is the cost measured at load, `cost` the same corrected by what batches have taken since. Where a run can
    use several slots (`EngineInfo.run_slots`), `wide_profile` and `wide_cost` are the cost of one that does.
    """

    encoder: str
    engine: Engine
    output: Output
    width: int
    profile: CostModel
    wide_profile: CostModel | None = None
    waiting: Waiting = field(default_factory=Waiting)
    last_success: float = -math.inf
    drift: float = 1.0
    cost: CostModel = field(init=False)
    wide_cost: CostModel | None = field(init=False)

    def __post_init__(self) -> None:
        self.cost, self.wide_cost = self.profile, self.wide_profile

    def cost_on(self, slots: int) -> CostModel:
        """What a batch costs that runs on so many slots."""
        return self.cost if slots == 1 or self.wide_cost is None else self.wide_cost

    def learn(self, lengths: NDArray[np.int64], seconds: float, slots: int = 1) -> float:
        """Let the time that a batch of `lengths` took on `slots` slots correct the predictions for the next ones.

        A profile is taken on an idle machine; at work, batches share its memory and clock, and so drift from it.

        Returns:
            What was predicted for the batch, in seconds.
        """
        predicted = self.cost_on(slots).batch_seconds(lengths)
        ratio = min(max(seconds * self.drift / predicted, 1 / LARGEST_DRIFT), LARGEST_DRIFT)
        self.drift += SMOOTHING * (ratio - self.drift)
        self.cost = self.profile.scaled(self.drift)
        self.wide_cost = self.wide_profile and self.wide_profile.scaled(self.drift)
        return predicted

    def arrange(self, submission: int, lengths: NDArray[np.int64], deadline: float, now: float) -> Waiting:
        """The rows of a request, ready to be added.

        They come in blocks of a batch's worth, and those of a block share their rank: when it would be done if it took
        `PATIENCE` times as long as alone and what comes before it in its request `STRETCH` times. So small requests
        pass larger ones, and the rows between which they pass; every request is slowed down by about the same factor;
        and since time goes on for everybody, nothing starves. (Earliest deadline first on such deadlines bounds the
        largest stretch: Bender, Chakrabarti and Muthukrishnan, "Flow and stretch metrics for scheduling continuous job
        streams", SODA 1998.) A request with a deadline is not let behind so far that it would miss it.
        """
        # Besides the rest of the request there is the batch under way when its turn comes.
        max_rows = self.engine.info.max_rows
        under_way = 0.0 if deadline == math.inf else self.cost.seconds(max_rows, int(lengths.max()))
        if len(lengths) <= max_rows:
            alone = self.seconds(lengths)
            rank = max(now, min(now + PATIENCE * alone, deadline - PATIENCE * (alone + under_way)))
            ranks = np.full(len(lengths), rank)
        else:
            ranks = self._block_ranks(lengths, deadline, now, under_way)
        return Waiting(
            rank=ranks,
            deadline=np.full(len(lengths), deadline),
            submission=np.full(len(lengths), submission, dtype=np.int64),
            row=np.arange(len(lengths)),
            length=lengths,
        )

    def _block_ranks(
        self, lengths: NDArray[np.int64], deadline: float, now: float, under_way: float
    ) -> NDArray[np.float64]:
        """Ranks [n] of a request of several blocks, where the batch that runs when its turn comes takes `under_way`."""
        max_rows = self.engine.info.max_rows
        done = np.cumsum(self.cost.shares(lengths, max_rows))
        first = np.arange(len(lengths)) // max_rows * max_rows
        before = np.where(first, done[first - 1], 0.0)
        block = done[np.minimum(first + max_rows, len(lengths)) - 1] - before
        latest = deadline - PATIENCE * (done[-1] - before + under_way)
        ranks: NDArray[np.float64] = np.maximum(now, np.minimum(now + STRETCH * before + PATIENCE * block, latest))
        return ranks

    def due(self, now: float) -> int:
        """How many rows are as urgent as those of a full batch that has just come, or more so."""
        max_rows = self.engine.info.max_rows
        some = self.waiting.length[:max_rows]
        batch = self.cost.total(max_rows, math.ceil(max_rows * int(some.sum()) / len(some)), max_rows)
        return int(self.waiting.rank.searchsorted(now + PATIENCE * batch, side="right"))

    def add(self, rows: Waiting) -> None:
        """Queue rows."""
        self.waiting = self.waiting.joined(rows)

    def remove(self, submissions: NDArray[np.int64]) -> None:
        """Forget the waiting rows of some submissions."""
        self.waiting = self.waiting.select(~np.isin(self.waiting.submission, submissions))

    def take(self, batches: list[NDArray[np.intp]]) -> list[Waiting]:
        """Take the rows at the positions of each batch out of the lane."""
        if len(batches) == 1 and len(batches[0]) == len(self.waiting):
            everything, self.waiting = self.waiting, Waiting()
            return [everything]
        taken = [self.waiting.select(positions) for positions in batches]
        left = np.ones(len(self.waiting), dtype=bool)
        for positions in batches:
            left[positions] = False
        self.waiting = self.waiting.select(left)
        return taken

    def seconds(self, lengths: NDArray[np.int64]) -> float:
        """Predicted seconds of compute of sequences of `lengths`, in full batches of their like."""
        return self.cost.total(len(lengths), int(lengths.sum()), self.engine.info.max_rows)

    def seconds_ahead(self, rank: float) -> float:
        """Predicted seconds of compute that wait and are at least as urgent as `rank`."""
        if not len(self.waiting):
            return 0.0
        ahead = int(self.waiting.rank.searchsorted(rank, side="right"))
        return self.seconds(self.waiting.length[:ahead])

    @property
    def backlog(self) -> float:
        """Predicted seconds of compute that wait."""
        return self.seconds(self.waiting.length) if len(self.waiting) else 0.0
