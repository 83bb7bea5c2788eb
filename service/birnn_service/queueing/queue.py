"""The queue of one lane: waiting rows by caller."""

import itertools
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from birnn_service.queueing.caller_flow import (
    HEALTH,
    HEALTH_WEIGHT,
    LARGE_WEIGHT,
    LOW_WEIGHT,
    NOTHING,
    OTHERS,
    SMALL_WEIGHT,
    WEIGHTS,
    CallerFlow,
    Key,
)
from birnn_service.queueing.cost import CostModel, tokens_of
from birnn_service.queueing.fairness import VirtualTime
from birnn_service.queueing.turns import Turns, Window
from birnn_service.queueing.waiting import Waiting

# Seconds of virtual time by which LOW requests begin to wait behind others: each other flow that goes on waiting is
# served for so long first. Without it, one LOW call would wait for a burst only, less than its caller's NORMAL ones.
LOW_LEAD = 1.0
# Flows that are told apart while they wait, and half as many of unknown callers. What others send waits as one more
# flow, so that memory and the time of a decision are bounded, however many call.
MAX_FLOWS = 1024


class Queue:
    """The waiting rows of one lane.

    Callers share the device fairly (see `fairness`), on predicted seconds. Within a caller, rows are served by rank,
    HIGH ones first. A deadline is part of a row's rank, so it moves a row forward among its caller's rows only.

    Attributes:
        time: Virtual time; all lanes of a device have the same.
        sequences: How many rows wait.
        tokens: Their tokens in all.
    """

    def __init__(self) -> None:
        self.sequences = self.tokens = 0
        self.time = VirtualTime()
        self._waiting: dict[Key, CallerFlow] = {}
        # Those of them whose requests are LOW.
        self._low: dict[Key, CallerFlow] = {}
        # Flows without waiting rows that are ahead of virtual time. They are forgotten once it has caught up with them,
        # or when there are too many.
        self._ahead: dict[Key, CallerFlow] = {}

    def __len__(self) -> int:
        return self.sequences

    def add(self, flow: CallerFlow, rows: Waiting) -> None:
        """Queue rows in the flow that `flow_of` gave for them."""
        if not len(flow.rows):
            self._ahead.pop(flow.key, None)
            self.time.begin(flow)
            self._waiting[flow.key] = flow
            if flow.key[1] == LOW_WEIGHT:
                self._low[flow.key] = flow
        tokens = tokens_of(rows.length)
        flow.rows = flow.rows.joined(rows)
        flow.tokens += tokens
        self.tokens += tokens
        self.sequences += len(rows)

    def age(self, now: float) -> None:
        """Let LOW rows whose rank has come wait on among their callers' large requests, and yield no more."""
        for flow in [flow for flow in self._low.values() if flow.rank <= now]:
            count = flow.due(now)
            aged = flow.next_rows(count)
            self._keep(flow, flow.rows.select(slice(count, None)))
            large = self.flow_of(flow.key[0], LARGE_WEIGHT, known=flow.known, tenant_weight=flow.tenant_weight)
            self.add(large, aged)

    def remove(self, caller: str, submissions: NDArray[np.int64]) -> None:
        """Forget the waiting rows of some of a caller's submissions."""
        for key in itertools.product((caller, OTHERS), WEIGHTS):
            flow = self._waiting.get(key)
            if flow is not None:
                self._keep(flow, flow.rows.select(~np.isin(flow.rows.submission, submissions)))

    @property
    def largest_tenant_weight(self) -> float:
        """The largest weight of a caller of which something waits."""
        return max(flow.tenant_weight for flow in self._waiting.values())

    def lead(self, burst: float) -> tuple[float, bool, float]:
        """Sorts lanes by turn: the first flow's lead beyond a burst, whether its caller is new, and its rank."""
        until = self.time.now + burst
        flow = min(self._waiting.values(), key=lambda flow: flow.turn(until))
        return max(0.0, flow.start - until), not flow.known, flow.rank

    def turns(self, cost: CostModel, max_rows: int, burst: float) -> Turns:
        """The order of service now, where leads of up to `burst` seconds do not count. Something must wait."""
        until = self.time.now + burst
        flows = list(self._waiting.values())
        if len(flows) > 1:
            flows.sort(key=lambda flow: flow.turn(until))
        return Turns(flows, until, cost, max_rows)

    def take(self, window: Window, positions: NDArray[np.intp], seconds: NDArray[np.float64]) -> None:
        """Take rows of a window out of the queue, and charge their flows.

        Args:
            window: What they are chosen from, with nothing added or removed since.
            positions: Which of its rows [k].
            seconds: What each of them costs, in seconds of a slot [k].
        """
        if len(window.flows) == 1:
            self._serve(window.flows[0], window.place[positions], float(seconds.sum()))
            return
        order = np.argsort(window.owner[positions], kind="stable")
        positions = positions[order]
        owners, firsts = np.unique(window.owner[positions], return_index=True)
        charges = np.add.reduceat(seconds[order], firsts).tolist()
        places = np.split(window.place[positions], firsts[1:])
        for owner, charge, taken in zip(owners.tolist(), charges, places, strict=True):
            self._serve(window.flows[owner], taken, charge)

    def drop(self, window: Window, submissions: list[int]) -> None:
        """Forget all waiting rows of some submissions, of which rows were in a window."""
        for owner in np.unique(window.owner[np.isin(window.rows.submission, submissions)]).tolist():
            flow = window.flows[owner]
            if len(flow.rows):
                self._keep(flow, flow.rows.select(~np.isin(flow.rows.submission, submissions)))

    def flow_of(
        self, caller: str, weight: float = SMALL_WEIGHT, *, known: bool = False, tenant_weight: float = 1.0
    ) -> CallerFlow:
        """The flow that a request waits in, of a kind that has one of `WEIGHTS`, of a known caller or not.

        A change of the caller's own weight counts for what waits already, too.
        """
        key = (caller, weight)
        if key not in self._waiting and len(self._waiting) >= (MAX_FLOWS if known else MAX_FLOWS // 2):
            key, known, tenant_weight = (OTHERS, weight), False, 1.0
        flow = self._waiting.get(key)
        if flow is None:
            flow = self._ahead.get(key) or CallerFlow(key=key)
            if weight == LOW_WEIGHT:
                flow.start = max(flow.start, self.time.now + LOW_LEAD)
        flow.known, flow.tenant_weight = known, tenant_weight
        flow.weight = weight * HEALTH_WEIGHT if key[0] == HEALTH else weight * tenant_weight
        return flow

    @property
    def flows(self) -> Iterable[CallerFlow]:
        """The flows in which something waits."""
        return self._waiting.values()

    def share_of(self, flow: CallerFlow) -> float:
        """The part of the lane that is a flow's, if it waits: by weight among those that do.

        All unknown callers together count as one, so that no flood of new addresses takes the shares of known ones.
        """
        others = [other for other in self._waiting.values() if other is not flow]
        known = sum(other.weight for other in others if other.known)
        unknown = sum(other.weight for other in others if not other.known)
        if flow.known:
            return flow.weight / (flow.weight + known + min(1.0, unknown))
        together = min(1.0, flow.weight + unknown)
        return together / (together + known) * flow.weight / (flow.weight + unknown)

    def _serve(self, flow: CallerFlow, places: NDArray[np.intp], seconds: float) -> None:
        """Take the rows at `places` out of a flow, and charge it."""
        flow.charge(seconds)
        if len(places) == len(flow.rows):
            self._keep(flow, NOTHING)
        else:
            left = np.ones(len(flow.rows), dtype=bool)
            left[places] = False
            self._keep(flow, flow.rows.select(left))

    def _keep(self, flow: CallerFlow, rows: Waiting) -> None:
        """Let only these of a flow's rows wait on."""
        sequences, tokens = len(flow.rows), flow.tokens
        flow.rows, flow.tokens = rows, tokens_of(rows.length)
        self.sequences += len(flow.rows) - sequences
        self.tokens += flow.tokens - tokens
        if not len(flow.rows):
            del self._waiting[flow.key]
            self._low.pop(flow.key, None)
            self._ahead[flow.key] = flow
            self._forget()

    def _forget(self) -> None:
        """Forget flows without waiting rows, the first to have none first."""
        while self._ahead:
            key = next(iter(self._ahead))
            if self._ahead[key].start > self.time.now and len(self._ahead) <= MAX_FLOWS:
                break
            del self._ahead[key]
