"""The scheduler: which waiting rows run next. Pure logic on a clock it is told, with no threads, futures or I/O."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.batcher.lane import WINDOW, Lane, Waiting
from service.batcher.plan import plan_batch
from service.errors import DeadlineError, OverloadedError


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """What a free slot takes.

    Attributes:
        lane: Whose rows they are.
        rows: The rows of the next batch; none where all that were chosen turned out to be too late.
        late: Numbers of the works whose deadline cannot be met any more; their rows have left the queue.
    """

    lane: Lane
    rows: Waiting
    late: list[int]


class Scheduler:
    """The queue of one device: lanes of waiting rows, and the slots that work them off."""

    def __init__(self, lanes: Sequence[Lane], slots: int, max_backlog_seconds: float) -> None:
        self.lanes = lanes
        self.slots = slots
        self._max_backlog_seconds = max_backlog_seconds

    @property
    def backlog_seconds(self) -> float:
        """Predicted seconds until everything that waits now has been computed."""
        return sum(lane.backlog for lane in self.lanes) / self.slots

    def add(self, lane: Lane, work: int, lengths: NDArray[np.int64], deadline: float | None, now: float) -> None:
        """Queue the rows of a request.

        Args:
            lane: Which output of which encoder.
            work: Number of the request.
            lengths: Tokens of its sequences [n], each at least 1.
            deadline: When its caller gives up, None for never.
            now: The time.

        Raises:
            OverloadedError: More work waits than the bound allows. An empty queue takes a request of any size.
            DeadlineError: The deadline cannot be met even if nothing else waited.
        """
        backlog = self.backlog_seconds
        if backlog > self._max_backlog_seconds:
            raise OverloadedError(
                f"about {backlog:.1f} s of work wait already, the limit is {self._max_backlog_seconds:g} s; "
                "retry later, or add a replica",
                retry_after=max(0.1, backlog - self._max_backlog_seconds / 2),
            )
        alone = lane.seconds(lengths) / self.slots
        if deadline is not None and now + alone > deadline:
            raise DeadlineError(
                f"{len(lengths)} sequences take about {alone:.3g} s and {max(0.0, deadline - now):.3g} s are left; "
                "send fewer in a call, or allow more time"
            )
        lane.add(work, lengths, math.inf if deadline is None else deadline, now)

    def remove(self, lane: Lane, works: list[int]) -> None:
        """Forget the waiting rows of some requests."""
        lane.remove(np.array(works, dtype=np.int64))

    def next(self, idle: int, now: float) -> Selection | None:
        """Take the rows that run next out of the queue; None where nothing waits.

        Args:
            idle: Slots that are free, at least 1.
            now: The time.
        """
        waiting = [lane for lane in self.lanes if len(lane.waiting)]
        if not waiting:
            return None
        lane = min(waiting, key=lambda lane: float(lane.waiting.rank[0]))
        candidates = lane.waiting.length[: self._candidates(lane, now)]
        max_rows = lane.engine.info.max_rows
        if lane.engine.info.parallel_slots:
            # Cores that idle together share what waits: two batches of 8 side by side end before one of 16.
            max_rows = min(max_rows, -(-len(candidates) // idle))
        rows = lane.take(plan_batch(candidates, lane.cost, max_rows))
        end = now + lane.cost.seconds(len(rows), int(rows.length.max()))
        late = np.unique(rows.work[rows.deadline < end])
        if len(late):
            lane.remove(late)
            rows = rows.select(~np.isin(rows.work, late))
        return Selection(lane, rows, late.tolist())

    def _candidates(self, lane: Lane, now: float) -> int:
        """How many of a lane's rows, the most urgent ones, the next batch may be made of.

        While rows are due, others would only make them wait longer: they come along where that is cheap, as on a GPU.
        Where nothing is due, all may, and the more there are, the better their lengths match.
        """
        due = int(np.searchsorted(lane.waiting.rank, now, side="right"))
        if due == 0:
            return WINDOW
        if lane.cost.company_is_cheap(int(lane.waiting.length[0])):
            due = max(due, lane.engine.info.max_rows)
        return min(due, WINDOW)
