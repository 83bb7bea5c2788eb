"""The scheduler: which waiting rows run next. Pure logic on a clock it is told, with no threads, futures or I/O."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from birnn_service.errors import DeadlineError, OverloadedError
from birnn_service.queueing.lane import WINDOW, Lane
from birnn_service.queueing.planner import plan_batch, plan_side_by_side
from birnn_service.queueing.queue import Waiting

# A request is taken on if it would be done in time even if everything took so many times longer than predicted.
CAUTION = 1.3
# Due rows among which lengths are matched, in batches of an efficient size. The more, the less padding; but the further
# the order in which rows are done strays from that in which they came, and a request is done only with its last row.
DUE_BATCHES = 8
# Seconds after which a refused caller may come back at the earliest.
LEAST_RETRY = 0.1

_FIRST = np.zeros(1, dtype=np.intp)


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """What a free slot takes.

    Attributes:
        lane: Whose rows they are.
        rows: The rows of the next batch; none where all that were chosen turned out to be too late.
        late: Numbers of the submissions whose deadline cannot be met any more; their rows have left the queue.
        slots: How many slots the batch runs on.
    """

    lane: Lane
    rows: Waiting
    late: list[int]
    slots: int


class Scheduler:
    """The queue of one device: lanes of waiting rows, and the slots that work them off.

    Attributes:
        lanes: What waits.
        slots: How many batches run at the same time at present; predictions of when something is done rest on it.
    """

    def __init__(self, lanes: Sequence[Lane], slots: int, max_backlog_seconds: float) -> None:
        self.lanes = lanes
        self.slots = slots
        self._max_backlog_seconds = max_backlog_seconds

    @property
    def backlog_seconds(self) -> float:
        """Predicted seconds until everything that waits now has been computed."""
        return sum(lane.backlog for lane in self.lanes) / self.slots

    def add(self, lane: Lane, submission: int, lengths: NDArray[np.int64], deadline: float | None, now: float) -> None:
        """Queue the rows of a request.

        Args:
            lane: Which output of which encoder.
            submission: Number of its rows; no other in the queue has it.
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
        rows = lane.arrange(submission, lengths, math.inf if deadline is None else deadline, now)
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

    def remove(self, lane: Lane, submissions: list[int]) -> None:
        """Forget the waiting rows of some submissions."""
        lane.remove(np.array(submissions, dtype=np.int64))

    def fill(self, idle: int, now: float) -> list[Selection]:
        """Take the rows that run next out of the queue, for as long as slots are idle and something waits.

        Args:
            idle: Slots that are free.
            now: The time.
        """
        selections: list[Selection] = []
        while idle > 0 and (lane := self._most_urgent()) is not None:
            batches, slots = self._plan(lane, idle, now)
            for rows in lane.take(batches):
                selection = _without_late(lane, rows, slots, now)
                selections.append(selection)
                if len(selection.rows):
                    idle -= slots
        return selections

    def _most_urgent(self) -> Lane | None:
        waiting = [lane for lane in self.lanes if len(lane.waiting)]
        return min(waiting, key=lambda lane: float(lane.waiting.rank[0])) if waiting else None

    def _plan(self, lane: Lane, idle: int, now: float) -> tuple[list[NDArray[np.intp]], int]:
        """Positions of the next batches of a lane, and the slots that each of them runs on.

        Where slots are cores, those that idle together share what waits: two batches of 8 side by side end before one
        of 16. Where a run can use several cores, one batch of 16 on two of them may end sooner still.
        """
        info = lane.engine.info
        if len(lane.waiting) == 1:
            return [_FIRST], self._slots_alone(lane, idle)
        candidates = self._candidates(lane, now)
        lengths, submissions = lane.waiting.length[:candidates], lane.waiting.submission[:candidates]
        if idle == 1 or not info.parallel_slots:
            return [plan_batch(lengths, submissions, lane.cost, info.max_rows)], 1
        plan, slots = plan_side_by_side(lengths, lane.cost, info.max_rows, idle), 1
        if lane.wide_cost is not None and info.run_slots <= idle:
            wide = plan_side_by_side(lengths, lane.wide_cost, info.max_rows, idle // info.run_slots)
            if wide.seconds < plan.seconds:
                plan, slots = wide, info.run_slots
        return plan.batches, slots

    def _slots_alone(self, lane: Lane, idle: int) -> int:
        """Slots on which the only row that waits is done soonest."""
        run_slots = lane.engine.info.run_slots
        if lane.wide_cost is None or run_slots > idle:
            return 1
        length = int(lane.waiting.length[0])
        return run_slots if lane.wide_cost.seconds(1, length) < lane.cost.seconds(1, length) else 1

    def _candidates(self, lane: Lane, now: float) -> int:
        """How many of a lane's rows, the most urgent ones, the next batch may be made of.

        While rows are due, others would only make them wait longer: they come along where that is cheap, as on a GPU.
        Where nothing is due, all may, and the more there are, the better their lengths match.
        """
        due = lane.due(now)
        if due == 0:
            return WINDOW
        if lane.cost.packed:
            return min(due, WINDOW)
        max_rows, length = lane.engine.info.max_rows, int(lane.waiting.length[0])
        if lane.cost.company_is_cheap(length):
            due = max(due, max_rows)
        return min(due, max(max_rows, DUE_BATCHES * lane.cost.efficient_rows(length, max_rows)))


def _without_late(lane: Lane, rows: Waiting, slots: int, now: float) -> Selection:
    """A batch without the submissions whose deadline it would miss."""
    first = rows.deadline.min()
    if first == math.inf:
        return Selection(lane, rows, [], slots)
    end = now + lane.cost_on(slots).batch_seconds(rows.length)
    if first >= end:
        return Selection(lane, rows, [], slots)
    late = np.unique(rows.submission[rows.deadline < end])
    lane.remove(late)
    return Selection(lane, rows.select(~np.isin(rows.submission, late)), late.tolist(), slots)
