"""A lane: one output of one encoder. Sequences that wait in the same lane may share a batch."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from birnn_service.engine.engine import Engine, Output
from birnn_service.queueing.cost import CostModel, tokens_of
from birnn_service.queueing.priority import Priority
from birnn_service.queueing.queue import Queue
from birnn_service.queueing.waiting import Waiting

# Most rows that the planner looks at. Among that many, lengths can be matched almost perfectly: 97 % full batches among
# 1,024.
WINDOW = 2048
# How many times longer than alone a request of several batches may take before it no longer lets smaller ones pass, and
# how many times longer the rows of one batch. In simulations of mixed sizes at 80 percent load, a stretch of 8 instead
# of 4 made the mean a third less and the 99th percentile a third more; a patience of 1 to 4 gave the lowest mean.
STRETCH = 8.0
PATIENCE = 2.0
# Seconds of waiting that a step of priority is worth, so what waits becomes more urgent: a row is passed by the HIGH
# ones that its caller sends in the minute after it, and a LOW row of a minute ago is as urgent as a NORMAL one of now
# (see `Queue.age`). It is twice the default bound of the backlog, so that a HIGH row passes all that waits by then.
AGEING = 60.0
# Weight of one batch in the running mean of how far batches drift from their profile, and the most that one may count.
SMOOTHING = 0.05
LARGEST_DRIFT = 5.0


@dataclass(slots=True, eq=False)
class Lane:
    """One output of one encoder.

    Attributes:
        encoder: Name of the encoder.
        version: Version of the encoder.
        address: Both.
        engine: What runs it.
        output: One vector for each sequence or for each token.
        width: Floats in a vector.
        profile: The cost of batches as measured at load.
        wide_profile: The same of runs on several slots, where the engine can do that (`EngineInfo.run_slots`).
        queue: What waits.
        last_success: When one of its batches last succeeded, on the dispatcher's clock.
        drift: How many times longer than by its profile a batch takes at present.
        cost: The profile, corrected by the drift.
        wide_cost: The wide profile, corrected by the drift.
        instance: Which load of the encoder it is of.
    """

    encoder: str
    engine: Engine
    output: Output
    width: int
    profile: CostModel
    wide_profile: CostModel | None = None
    queue: Queue = field(default_factory=Queue)
    last_success: float = -math.inf
    drift: float = 1.0
    cost: CostModel = field(init=False)
    wide_cost: CostModel | None = field(init=False)
    instance: int = 0
    version: str = ""
    address: tuple[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.cost, self.wide_cost = self.profile, self.wide_profile
        self.address = self.encoder, self.version

    def cost_on(self, slots: int) -> CostModel:
        """The cost model of a batch that runs on `slots` slots."""
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

    def arrange(
        self,
        submission: int,
        lengths: NDArray[np.int64],
        deadline: float,
        now: float,
        priority: Priority = Priority.NORMAL,
    ) -> Waiting:
        """The rows of a request, ready to be added.

        They come in blocks of a batch's worth. All rows of a block have the same rank: the time at which the block
        would be done if it took `PATIENCE` times as long as alone, and what comes before it in its request `STRETCH`
        times. So small requests pass between the blocks of larger ones of the same caller, and all its requests are
        slowed down by about the same factor. Ranks are points in time, so no request starves. (Earliest deadline first
        on such deadlines bounds the largest stretch: Bender, Chakrabarti and Muthukrishnan, "Flow and stretch metrics
        for scheduling continuous job streams", SODA 1998.) A deadline moves a request forward in time to be met.

        A LOW request has ranks that are `AGEING` later, where its deadline allows that. A HIGH one comes as much
        earlier among its caller's rows; to other callers it has the ranks of a NORMAL one.
        """
        # Besides the rest of the request there is the batch under way when its turn comes.
        max_rows = self.engine.info.max_rows
        under_way = 0.0 if deadline == math.inf else self.cost.seconds(max_rows, int(lengths.max()))
        start = now + AGEING if priority is Priority.LOW else now
        if len(lengths) <= max_rows:
            alone = self.seconds(lengths)
            rank = max(now, min(start + PATIENCE * alone, deadline - PATIENCE * (alone + under_way)))
            ranks = _same(len(lengths), rank)
        else:
            ranks = np.maximum(now, self._block_ranks(lengths, deadline, start, under_way))
        return Waiting(
            rank=ranks,
            deadline=_same(len(lengths), deadline),
            submission=_same(len(lengths), submission, np.int64),
            row=np.arange(len(lengths)),
            length=lengths,
            order=ranks - AGEING if priority is Priority.HIGH else None,
        )

    def _block_ranks(
        self, lengths: NDArray[np.int64], deadline: float, start: float, under_way: float
    ) -> NDArray[np.float64]:
        """Ranks [n] of several blocks from `start` on, where the batch under way at their turn takes `under_way`."""
        max_rows = self.engine.info.max_rows
        done = np.cumsum(self.cost.shares(lengths, max_rows))
        first = np.arange(len(lengths)) // max_rows * max_rows
        before = np.where(first, done[first - 1], 0.0)
        block = done[np.minimum(first + max_rows, len(lengths)) - 1] - before
        latest = deadline - PATIENCE * (done[-1] - before + under_way)
        ranks: NDArray[np.float64] = np.minimum(start + STRETCH * before + PATIENCE * block, latest)
        return ranks

    def due_rank(self, rows: Waiting, now: float) -> float:
        """The rank up to which rows are due: that of a full batch of rows like the first of `rows` that arrives now."""
        max_rows = self.engine.info.max_rows
        lengths = rows.length[:max_rows]
        tokens = math.ceil(max_rows * int(lengths.sum()) / len(lengths))
        return now + PATIENCE * self.cost.total(max_rows, tokens, max_rows)

    def seconds(self, lengths: NDArray[np.int64]) -> float:
        """Predicted seconds of compute of sequences of `lengths`, in full batches of their like."""
        return self.cost.total(len(lengths), tokens_of(lengths), self.engine.info.max_rows)

    @property
    def backlog(self) -> float:
        """Predicted seconds of compute that wait."""
        return self.cost.total(self.queue.sequences, self.queue.tokens, self.engine.info.max_rows)


def _same(count: int, value: float, kind: type[np.generic] = np.float64) -> NDArray[Any]:
    """An array of equal numbers; `np.full` takes three times as long for a few."""
    array: NDArray[Any] = np.empty(count, dtype=kind)
    array.fill(value)
    return array
