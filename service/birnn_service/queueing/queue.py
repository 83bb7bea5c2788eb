"""The queue of one lane: waiting rows by caller, and the order in which callers and rows are served."""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from birnn_service.queueing.cost import CostModel, tokens_of
from birnn_service.queueing.fairness import Flow, VirtualTime
from birnn_service.queueing.waiting import Waiting

# The caller that health probes are, and the weight of its share beside other callers' 1.
HEALTH = "health"
HEALTH_WEIGHT = 0.1
# The weight of a caller's large requests beside 1 of its small ones: small requests pass large ones, whichever caller
# sent either. In simulations of mixed sizes of 4 and 64 callers at 80 percent load, the mean was 1 to 8 percent lower
# than that of a single caller, and up to 23 percent higher where large and small ones shared a flow.
LARGE_WEIGHT = 1 / 8
# The weight of a caller's LOW requests of any size: they are to large ones what large ones are to small ones. So what a
# caller gains by sending some as LOW is at most 1/64 of a share.
LOW_WEIGHT = 1 / 64
# Seconds of virtual time by which LOW requests begin to wait behind others: each other flow that goes on waiting is
# served for so long first. Without it, one LOW call would wait for a burst only, less than its caller's NORMAL ones.
LOW_LEAD = 1.0
SMALL_WEIGHT = 1.0
WEIGHTS = (SMALL_WEIGHT, LARGE_WEIGHT, LOW_WEIGHT)
# Flows that are told apart while they wait, and half as many of unknown callers. What others send waits as one more
# flow, so that memory and the time of a decision are bounded, whoever calls.
MAX_FLOWS = 1024
OTHERS = "others"


NOTHING = Waiting()

# A caller, and the weight of its requests of one kind: of at most one batch, larger ones, or LOW ones of any size.
Key = tuple[str, float]


@dataclass(slots=True, eq=False)
class CallerFlow(Flow):
    """What waits of one caller in one lane, in order: its requests of at most one batch, its larger ones, or LOW ones.

    These are three flows, so that a caller's small requests pass its large ones: one address may have many users.

    Attributes:
        key: Whose rows they are, and of which requests.
        known: Whether the caller is known (see `KnownCallers`).
        rows: The rows.
        tokens: Their tokens in all.
    """

    key: Key = (OTHERS, SMALL_WEIGHT)
    known: bool = False
    rows: Waiting = NOTHING
    tokens: int = 0

    @property
    def rank(self) -> float:
        """The least rank of its rows."""
        return float(self.rows.rank[0])

    def due(self, latest: float) -> int:
        """How many rows have a rank of at most `latest`."""
        return len(self.rows) if latest == math.inf else int(self.rows.rank.searchsorted(latest, side="right"))

    def ahead_of(self, rows: Waiting) -> int:
        """How many of its rows come before the last of new `rows`."""
        return int(self.rows.keys.searchsorted(rows.keys[-1], side="right"))

    def next_rows(self, count: int) -> Waiting:
        """The `count` most urgent rows."""
        return self.rows if count == len(self.rows) else self.rows.select(slice(count))

    def seconds(self, cost: CostModel, max_rows: int) -> float:
        """Predicted seconds of compute that wait."""
        return cost.total(len(self.rows), self.tokens, max_rows)


@dataclass(frozen=True, slots=True, eq=False)
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
            self.add(self.flow_of(flow.key[0], LARGE_WEIGHT, known=flow.known), aged)

    def remove(self, caller: str, submissions: NDArray[np.int64]) -> None:
        """Forget the waiting rows of some of a caller's submissions."""
        for key in itertools.product((caller, OTHERS), WEIGHTS):
            flow = self._waiting.get(key)
            if flow is not None:
                self._keep(flow, flow.rows.select(~np.isin(flow.rows.submission, submissions)))

    def lead(self, burst: float) -> tuple[float, bool, float]:
        """Sorts lanes by turn: the first flow's lead beyond a burst, whether its caller is new, and its rank."""
        until = self.time.now + burst
        flow = min(self._waiting.values(), key=lambda flow: _order(flow, until))
        return max(0.0, flow.start - until), not flow.known, flow.rank

    def turns(self, cost: CostModel, max_rows: int, burst: float) -> Turns:
        """The order of service now, where leads of up to `burst` seconds do not count. Something must wait."""
        until = self.time.now + burst
        flows = list(self._waiting.values())
        if len(flows) > 1:
            flows.sort(key=lambda flow: _order(flow, until))
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

    def flow_of(self, caller: str, weight: float = SMALL_WEIGHT, *, known: bool = False) -> CallerFlow:
        """The flow that a request waits in, of a kind that has one of `WEIGHTS`, of a known caller or not."""
        key = (caller, weight)
        if key not in self._waiting and len(self._waiting) >= (MAX_FLOWS if known else MAX_FLOWS // 2):
            key, known = (OTHERS, weight), False
        flow = self._waiting.get(key)
        if flow is None:
            share = weight * HEALTH_WEIGHT if key[0] == HEALTH else weight
            flow = self._ahead.get(key) or CallerFlow(share, key=key)
            if weight == LOW_WEIGHT:
                flow.start = max(flow.start, self.time.now + LOW_LEAD)
        flow.known = known
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


def _order(flow: CallerFlow, until: float) -> tuple[float, bool, float]:
    """Sorts flows by turn; those that start before `until` are equal in that."""
    return max(until, flow.start), not flow.known, flow.rank
