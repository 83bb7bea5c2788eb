"""The order in which the callers of one lane, and their rows, are served."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from birnn_bundle.record import record
from birnn_service.queueing.caller_flow import CallerFlow
from birnn_service.queueing.cost import CostModel
from birnn_service.queueing.waiting import Waiting


@record
class Window:
    """The next rows of several flows, in the order in which they are to be served.

    Attributes:
        rows: The rows [w].
        flows: The flows they are of; the flow whose turn it is comes first.
        owner: Position in `flows` of each row's flow [w].
        place: Position of each row among its flow's rows [w].
    """

    rows: Waiting
    flows: list[CallerFlow]
    owner: NDArray[np.intp]
    place: NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Turns:
    """The order in which what waits now is to be served.

    Flows come in order of their lead over virtual time beyond a burst. Among equals those of known callers come first,
    and then the most urgent row decides.

    Attributes:
        flows: The flows that wait, the one whose turn it is first.
        until: The virtual time up to which flows are equal.
        cost: Cost model of the engine.
        max_rows: Most rows in a batch.
    """

    flows: list[CallerFlow]
    until: float
    cost: CostModel
    max_rows: int

    def due(self, latest: float) -> int:
        """How many rows have a rank of at most `latest`."""
        return sum(flow.due(latest) for flow in self.flows)

    def window(self, count: int, latest: float = math.inf) -> Window:
        """The first `count` rows in the order of service, of those with a rank of at most `latest`.

        A batch's worth of one submission stays together, since a part of a request is of no use to its caller. The rank
        of the first row of all must be at most `latest`.
        """
        first = self.flows[0]
        if len(self.flows) == 1:
            size = min(first.due(latest), count)
            places = np.arange(size, dtype=np.intp)
            return Window(first.next_rows(size), self.flows, np.zeros(size, dtype=np.intp), places)
        quota = max(self.max_rows, count // len(self.flows))
        flows: list[CallerFlow] = []
        sizes: list[int] = []
        total = 0
        for flow in self.flows:
            size = min(flow.due(latest), quota)
            if size:
                flows.append(flow)
                sizes.append(size)
                total += size
            if total >= 2 * count:
                break
        rows = Waiting.concatenate([flow.next_rows(size) for flow, size in zip(flows, sizes, strict=True)])
        counts = np.array(sizes, dtype=np.intp)
        owner = np.repeat(np.arange(len(flows)), counts)
        place = np.arange(len(rows)) - (np.cumsum(counts) - counts)[owner]
        if len(flows) == 1:
            return Window(rows, flows, owner, place)
        unknown = np.array([not flow.known for flow in flows])[owner]
        order = np.lexsort((rows.rank, unknown, np.maximum(self.until, self._tags(rows, flows, owner, place))))[:count]
        return Window(rows.select(order), flows, owner[order], place[order])

    def _tags(
        self, rows: Waiting, flows: list[CallerFlow], owner: NDArray[np.intp], place: NDArray[np.intp]
    ) -> NDArray[np.float64]:
        """Start tags of rows that come flow by flow [w]: those of their blocks, a batch's worth of one submission."""
        costs = self.cost.shares(rows.length, self.max_rows) / np.array([flow.weight for flow in flows])[owner]
        before = np.cumsum(costs) - costs
        firsts = np.flatnonzero(place == 0)
        starts = np.array([flow.start for flow in flows]) - before[firsts]
        begins = place == 0
        begins[1:] |= (np.diff(rows.submission) != 0) | (np.diff(rows.row // self.max_rows) != 0)
        block = np.maximum.accumulate(np.where(begins, np.arange(len(rows)), 0))
        return np.asarray(before[block] + starts[owner], dtype=np.float64)
