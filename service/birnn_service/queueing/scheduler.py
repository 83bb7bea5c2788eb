"""The scheduler: which waiting rows run next. Pure logic on a clock it is told, with no threads, futures or I/O."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from birnn_bundle.record import record
from birnn_service.queueing.admission import check_backlog, check_deadline
from birnn_service.queueing.caller_flow import LARGE_WEIGHT, LOW_WEIGHT, OTHERS, SMALL_WEIGHT, CallerFlow
from birnn_service.queueing.fairness import VirtualTime
from birnn_service.queueing.known_callers import KnownCallers
from birnn_service.queueing.lane import WINDOW, Lane
from birnn_service.queueing.planner import plan_batch, plan_side_by_side
from birnn_service.queueing.priority import Priority
from birnn_service.queueing.turns import Turns, Window
from birnn_service.queueing.waiting import Waiting

# Due rows among which lengths are matched, in batches of an efficient size. The more, the less padding; but the further
# the order in which rows are done strays from that in which they came, and a request is done only with its last row.
DUE_BATCHES = 8

# A batch of a window: positions of its rows [B].
Positions = NDArray[np.intp]

_FIRST = np.zeros(1, dtype=np.intp)


@record
class Selection:
    """The next batch of some idle slots.

    Attributes:
        lane: Whose rows they are.
        rows: Its rows, at least one.
        slots: How many slots it runs on.
    """

    lane: Lane
    rows: Waiting
    slots: int


class Scheduler:
    """The queue of one device: lanes of waiting rows, and the slots that run them.

    Callers share the device fairly, by their weights (see `fairness`). Whose turn it is decides which row runs next,
    and so of which lane. Which other rows share its batch is the planner's choice, and they are charged to their own
    callers.

    Attributes:
        lanes: What waits.
        slots: How many batches run at the same time.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        slots: int,
        max_backlog_seconds: float,
        weight_of: Callable[[str], float] = lambda caller: 1.0,
    ) -> None:
        self.lanes: list[Lane] = []
        self.slots = slots
        self._max_backlog_seconds = max_backlog_seconds
        self._weight_of = weight_of
        self._time = VirtualTime()
        for lane in lanes:
            self.open(lane)
        self._known = KnownCallers()

    def open(self, lane: Lane) -> None:
        """Let requests wait in a lane."""
        lane.queue.time = self._time
        self.lanes.append(lane)

    def close(self, lane: Lane) -> None:
        """Forget a lane, in which nothing waits."""
        self.lanes.remove(lane)

    @property
    def backlog_seconds(self) -> float:
        """Predicted seconds until everything that waits now has been computed."""
        return sum(self.backlog_of(lane) for lane in self.lanes if lane.queue.sequences)

    def backlog_of(self, lane: Lane) -> float:
        """The part of it that waits in a lane."""
        return lane.backlog / self.slots

    def add(
        self,
        lane: Lane,
        submission: int,
        lengths: NDArray[np.int64],
        deadline: float | None,
        now: float,
        caller: str,
        priority: Priority = Priority.NORMAL,
    ) -> None:
        """Queue the rows of a request.

        Args:
            lane: Which output of which encoder.
            submission: Number of its rows; no other in the queue has it.
            lengths: Tokens of its sequences [n], each at least 1.
            deadline: When its caller gives up, None for never.
            now: The time.
            caller: Whose request it is.
            priority: How urgent it is among its caller's requests, and whether it yields to other callers.

        Raises:
            OverloadedError: More work waits than the bound allows and the caller's share of it is full, or more than
                can be done before the deadline. An empty queue takes a request of any size.
            DeadlineError: The deadline cannot be met even if nothing else waited.
        """
        if priority is Priority.LOW:
            weight = LOW_WEIGHT
        else:
            weight = LARGE_WEIGHT if len(lengths) > lane.engine.info.max_rows else SMALL_WEIGHT
        known = self._known.called(caller, now)
        flow = lane.queue.flow_of(caller, weight, known=known, tenant_weight=self._weight_of(caller))
        if priority is Priority.HIGH and flow.key[0] == OTHERS:
            # What waits there is of several callers, and none may pass another's by saying that it is urgent.
            priority = Priority.NORMAL
        rows = lane.arrange(submission, lengths, math.inf if deadline is None else deadline, now, priority)
        self._check_backlog(lane, flow, rows)
        if deadline is not None:
            self._check_deadline(lane, flow, rows, deadline - now)
        lane.queue.add(flow, rows)

    def _check_backlog(self, lane: Lane, flow: CallerFlow, rows: Waiting) -> None:
        total = self.backlog_seconds
        if total <= self._max_backlog_seconds:
            return
        # A HIGH request is not refused for what it passes: NORMAL ones that fill its caller's share.
        before = len(flow.rows) if rows.order is None else flow.ahead_of(rows)
        own = lane.seconds(rows.length) + lane.seconds(flow.rows.length[:before])
        lanes = sum(1 for each in self.lanes if each is lane or len(each.queue))
        check_backlog(total, own / self.slots, lane.queue.share_of(flow) / lanes, self._max_backlog_seconds)

    def _check_deadline(self, lane: Lane, flow: CallerFlow, rows: Waiting, left: float) -> None:
        max_rows, alone = lane.engine.info.max_rows, lane.seconds(rows.length)
        before = flow.ahead_of(rows) if len(flow.rows) else 0
        own = lane.seconds(flow.rows.length[:before]) if before else 0.0
        end = max(self._time.now, flow.start) + (own + alone) / flow.weight
        others = sum(
            other.served_before(end, other.seconds(each.cost, each.engine.info.max_rows))
            for each in self.lanes
            for other in each.queue.flows
            if other.start < end and other is not flow
        )
        # Besides what waits, there are the batches under way, and the one that the last row will be in.
        batches = 2 * lane.cost.seconds(max_rows, int(rows.length.max()))
        check_deadline(len(rows), alone / self.slots, (own + others) / self.slots, batches, left)

    def remove(self, lane: Lane, submissions: list[int], caller: str) -> None:
        """Forget the waiting rows of some of a caller's submissions."""
        lane.queue.remove(caller, np.array(submissions, dtype=np.int64))

    def fill(self, idle: int, now: float) -> tuple[list[Selection], list[int]]:
        """Take the rows that run next out of the queue, for as long as slots are idle and something waits.

        Args:
            idle: Slots that are idle.
            now: The time.

        Returns:
            The next batches, and the numbers of the submissions whose deadline cannot be met any more; these have left
            the queue.
        """
        selections: list[Selection] = []
        late: list[int] = []
        while idle > 0 and (turn := self.next_turn(now)) is not None:
            lane, turns = turn
            window, batches, slots = self._plan(lane, turns, idle, now)
            dropped = _late(lane, window.rows, batches, slots, now)
            if dropped:
                gone = np.isin(window.rows.submission, dropped)
                batches = [kept for positions in batches if len(kept := positions[~gone[positions]])]
            taken = [Selection(lane, _chosen(window.rows, positions), slots) for positions in batches]
            if taken:
                self._take(lane, window, batches, taken)
            if dropped:
                lane.queue.drop(window, dropped)
            selections += taken
            late += dropped
            idle -= slots * len(taken)
        return selections, late

    def _take(self, lane: Lane, window: Window, batches: Sequence[Positions], taken: Sequence[Selection]) -> None:
        """Take the rows of batches out of the queue, and charge their callers for them."""
        costs = [_row_costs(selection) for selection in taken]
        if len(batches) == 1:
            lane.queue.take(window, batches[0], costs[0])
        else:
            lane.queue.take(window, np.concatenate(batches), np.concatenate(costs))

    def next_turn(self, now: float) -> tuple[Lane, Turns] | None:
        """The lane whose turn it is, and the order of service in it; None where nothing waits."""
        waiting = [lane for lane in self.lanes if lane.queue.sequences]
        if not waiting:
            return None
        for lane in waiting:
            lane.queue.age(now)
        self._time.follow(flow for lane in waiting for flow in lane.queue.flows)
        lane = waiting[0] if len(waiting) == 1 else min(waiting, key=lambda lane: lane.queue.lead(self._burst(lane)))
        return lane, lane.queue.turns(lane.cost, lane.engine.info.max_rows, self._burst(lane))

    def _burst(self, lane: Lane) -> float:
        """Virtual seconds that flows may be ahead of others.

        The caller with the largest weight may be ahead by a full batch, as rows are now, on every slot. So no caller
        waits longer for the lead of another, whatever its weight.
        """
        max_rows = lane.engine.info.max_rows
        batches = self.slots * lane.cost.total(max_rows, max_rows * lane.queue.tokens // len(lane.queue), max_rows)
        return batches / lane.queue.largest_tenant_weight

    def _plan(self, lane: Lane, turns: Turns, idle: int, now: float) -> tuple[Window, list[Positions], int]:
        """What the next batches of a lane are made of, their positions in that, and the slots each of them runs on.

        Where slots are cores, those that idle together share what waits: two batches of 8 side by side end before one
        of 16. Where a run can use several cores, one batch of 16 on two of them may end sooner still.
        """
        info = lane.engine.info
        if lane.queue.sequences == 1:
            window = turns.window(1)
            return window, [_FIRST], self._slots_alone(lane, int(window.rows.length[0]), idle)
        window = self._candidates(lane, turns, now)
        lengths, submissions = window.rows.length, window.rows.submission
        if idle == 1 or not info.parallel_slots:
            return window, [plan_batch(lengths, submissions, lane.cost, info.max_rows)], 1
        plan, slots = plan_side_by_side(lengths, lane.cost, info.max_rows, idle), 1
        if lane.wide_cost is not None and info.run_slots <= idle:
            wide = plan_side_by_side(lengths, lane.wide_cost, info.max_rows, idle // info.run_slots)
            if wide.seconds < plan.seconds:
                plan, slots = wide, info.run_slots
        return window, plan.batches, slots

    def _slots_alone(self, lane: Lane, length: int, idle: int) -> int:
        """Slots on which the only row that waits is done soonest."""
        run_slots = lane.engine.info.run_slots
        if lane.wide_cost is None or run_slots > idle:
            return 1
        return run_slots if lane.wide_cost.seconds(1, length) < lane.cost.seconds(1, length) else 1

    def _candidates(self, lane: Lane, turns: Turns, now: float) -> Window:
        """The rows of a lane that the next batch may be made of, in the order of service.

        While the rows of the caller whose turn it is are due, rows that are not would only make them wait longer: they
        come along where that is cheap, as on a GPU. Where its rows are not due, all may, and the more there are, the
        better their lengths match.
        """
        cost, max_rows = lane.cost, lane.engine.info.max_rows
        first = turns.flows[0].rows
        latest = lane.due_rank(first, now)
        if float(first.rank[0]) > latest:
            return turns.window(WINDOW)
        if cost.packed:
            return turns.window(WINDOW, latest)
        length = int(first.length[0])
        most = max(max_rows, DUE_BATCHES * cost.efficient_rows(length, max_rows))
        if cost.company_is_cheap(length):
            return turns.window(min(most, max(max_rows, turns.due(latest))))
        return turns.window(most, latest)


def _chosen(rows: Waiting, positions: Positions) -> Waiting:
    """The rows at positions of a window."""
    return rows if len(rows) == 1 else rows.select(positions)


def _late(lane: Lane, rows: Waiting, batches: Sequence[Positions], slots: int, now: float) -> list[int]:
    """The submissions in batches of `rows` whose deadline would pass before their batch ends."""
    late: set[int] = set()
    for positions in batches:
        deadlines = rows.deadline[positions]
        if deadlines.min() == math.inf:
            continue
        end = now + lane.cost_on(slots).batch_seconds(rows.length[positions])
        late.update(rows.submission[positions][deadlines < end].tolist())
    return sorted(late)


def _row_costs(selection: Selection) -> NDArray[np.float64]:
    """Predicted seconds of slots that each row of a batch costs [B]: by length, the batch's as a whole."""
    lengths = selection.rows.length
    batch = selection.lane.cost_on(selection.slots).batch_seconds(lengths) * selection.slots
    return np.asarray(lengths * (batch / int(lengths.sum())), dtype=np.float64)
