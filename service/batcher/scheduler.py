"""The scheduler: which waiting rows run next. Pure logic on a clock it is told, with no threads, futures or I/O."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.batcher.lane import WINDOW, Lane, Waiting
from service.batcher.plan import plan_batch
from service.errors import DeadlineError, OverloadedError

# A request is taken on if it would be done in time even if everything took so many times longer than predicted.
CAUTION = 1.3
# Due rows among which lengths are matched, in full batches: the more, the less padding, but the further the order in
# which rows are done strays from the order in which they came, and a request is done only with its last row.
DUE_BATCHES = 8
# Seconds after which a refused caller may come back at the earliest.
LEAST_RETRY = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """What a free slot takes.

    Attributes:
        lane: Whose rows they are.
        rows: The rows of the next batch; none where all that were chosen turned out to be too late.
        late: Numbers of the works whose deadline cannot be met any more; their rows have left the queue.
        slots: How many slots the batch runs on.
    """

    lane: Lane
    rows: Waiting
    late: list[int]
    slots: int


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
            OverloadedError: More work waits than the bound allows, or than can be done before the deadline. An empty
                queue takes a request of any size.
            DeadlineError: The deadline cannot be met even if nothing else waited.
        """
        backlog = self.backlog_seconds
        if backlog > self._max_backlog_seconds:
            raise OverloadedError(
                f"about {backlog:.1f} s of work wait already, the limit is {self._max_backlog_seconds:g} s; "
                "retry later, or add a replica",
                retry_after=max(LEAST_RETRY, backlog - self._max_backlog_seconds / 2),
            )
        rows = lane.arrange(work, lengths, math.inf if deadline is None else deadline, now)
        if deadline is not None:
            self._check_deadline(lane, rows, deadline - now)
        lane.add(rows)

    def _check_deadline(self, lane: Lane, rows: Waiting, left: float) -> None:
        """Refuse what will not be done in the `left` seconds: half-computed requests are computed in vain."""
        alone = lane.seconds(rows.length) / self.slots
        if alone > left:
            raise DeadlineError(
                f"{len(rows)} sequences take about {alone:.3g} s and {max(0.0, left):.3g} s are left; "
                "send fewer in a call, or allow more time"
            )
        ahead = sum(each.seconds_ahead(float(rows.rank[-1])) for each in self.lanes) / self.slots
        # Besides what waits, there are the batches under way, and the one that the last row will be in.
        batches = 2 * lane.cost.seconds(lane.engine.info.max_rows, int(rows.length.max()))
        needed = CAUTION * (ahead + alone) + batches
        if ahead > 0 and needed > left:
            raise OverloadedError(
                f"about {ahead:.3g} s of work are ahead of this request and {left:.3g} s are left until its deadline; "
                "retry later, allow more time, or add a replica",
                retry_after=max(LEAST_RETRY, needed - left),
            )

    def remove(self, lane: Lane, works: list[int]) -> None:
        """Forget the waiting rows of some requests."""
        lane.remove(np.array(works, dtype=np.int64))

    def fill(self, idle: int, now: float) -> list[Selection]:
        """Take the rows that run next out of the queue, for as long as slots are idle and something waits.

        Args:
            idle: Slots that are free.
            now: The time.
        """
        selections = []
        while idle > 0 and (selection := self._next(idle, now)) is not None:
            selections.append(selection)
            if len(selection.rows):
                idle -= selection.slots
        return selections

    def _next(self, idle: int, now: float) -> Selection | None:
        waiting = [lane for lane in self.lanes if len(lane.waiting)]
        if not waiting:
            return None
        lane = min(waiting, key=lambda lane: float(lane.waiting.rank[0]))
        candidates = lane.waiting.length[: self._candidates(lane, now)]
        slots, max_rows = _split(lane, candidates, idle)
        rows = lane.take(plan_batch(candidates, lane.cost, max_rows))
        end = now + lane.cost_on(slots).batch_seconds(rows.length)
        late = np.unique(rows.work[rows.deadline < end])
        if len(late):
            lane.remove(late)
            rows = rows.select(~np.isin(rows.work, late))
        return Selection(lane, rows, late.tolist(), slots)

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
        return min(due, DUE_BATCHES * lane.engine.info.max_rows)


def _split(lane: Lane, lengths: NDArray[np.int64], idle: int) -> tuple[int, int]:
    """How idle slots share rows of `lengths`: the slots that each batch runs on, and the most rows in one.

    Where slots are cores, those that idle together share what waits: two batches of 8 side by side end before one of
    16. Where a run can use several, one batch of 16 on two of them may end sooner still.
    """
    info = lane.engine.info
    if not info.parallel_slots:
        return 1, info.max_rows
    split = _share(lane, lengths, 1, idle)
    if lane.wide_cost is None or idle < info.run_slots:
        return split[1:]
    return min(split, _share(lane, lengths, info.run_slots, idle))[1:]


def _share(lane: Lane, lengths: NDArray[np.int64], slots: int, idle: int) -> tuple[float, int, int]:
    """When rows of `lengths` are done in batches on `slots` slots each; those slots, and the rows of a batch."""
    batches = idle // slots
    rows = min(lane.engine.info.max_rows, -(-len(lengths) // batches))
    rounds = max(1.0, len(lengths) / (rows * batches))
    return rounds * lane.cost_on(slots).seconds(rows, int(lengths.max())), slots, rows
