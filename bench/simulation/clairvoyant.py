"""A strong offline heuristic: a planner that knows what is to come, and tries its choices out before it makes them.

It is not the optimum, which nobody can compute for more than a few requests, but an upper bound of it: a schedule that
exists. At each decision it plays several first batches, and waiting, to the end of a horizon with a simple policy and
the true arrivals, and takes the one after which the requests known by then are done soonest in sum (the rollout
algorithm: Bertsekas, Tsitsiklis and Wu, "Rollout algorithms for combinatorial optimization", 1997).
"""

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.simulation.device import Batch, Device, Launch
from bench.simulation.load import Request

# Rows of the batches that are tried.
GRID = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128, 256, 512])
# Rows of the batch whose costs per row the playing policy takes for what a row is worth: see `_windows`.
COMPANY = 4


@dataclass(eq=False)
class _Queue:
    """What waits, by length: parallel arrays [n]; and how many rows of each request are not done [requests]."""

    length: NDArray[np.int64]
    work: NDArray[np.int64]
    row: NDArray[np.int64]

    def joined(self, length: NDArray[np.int64], work: NDArray[np.int64], row: NDArray[np.int64]) -> "_Queue":
        places = np.searchsorted(self.length, length)
        return _Queue(
            np.insert(self.length, places, length), np.insert(self.work, places, work), np.insert(self.row, places, row)
        )

    def without(self, low: int, high: int) -> "_Queue":
        def cut(column: NDArray[np.int64]) -> NDArray[np.int64]:
            return np.concatenate([column[:low], column[high:]])

        return _Queue(cut(self.length), cut(self.work), cut(self.row))


class Clairvoyant:
    """Tries `choices` first batches at each decision and plays each until `horizon` seconds of arrivals are done."""

    def __init__(self, device: Device, requests: Sequence[Request], *, horizon: float, choices: int = 12) -> None:
        self.device = device
        self.requests = requests
        self.horizon = horizon
        self.choices = choices
        self.arrivals = np.array([request.arrival for request in requests])
        empty = np.empty(0, dtype=np.int64)
        self.queue = _Queue(empty, empty, empty)
        self.missing = np.array([len(request.lengths) for request in requests])
        self.running: list[Batch] = []
        self.seen = 0
        order = [np.argsort(request.lengths, kind="stable") for request in requests]
        self._sorted = [(request.lengths[rows], rows) for request, rows in zip(requests, order, strict=True)]

    def add(self, work: int, request: Request, now: float) -> bool:
        """Queue a request."""
        self.queue = self._join(self.queue, work)
        self.seen = work + 1
        return True

    def fill(self, idle: int, now: float) -> tuple[list[Launch], list[int]]:
        """The batches after which everybody is done soonest, as far as was tried."""
        launches: list[Launch] = []
        while len(self.queue.length) and idle > len(launches):
            chosen = self._choose(idle - len(launches), now)
            if chosen is None:
                break
            low, high = chosen
            rows = list(zip(self.queue.work[low:high].tolist(), self.queue.row[low:high].tolist(), strict=True))
            lengths = self.queue.length[low:high]
            self.running.append(Batch(rows, lengths, now, now + self.device.seconds(lengths, 1)))
            self.queue = self.queue.without(low, high)
            launches.append(Launch(rows))
        return launches, []

    def wake(self, now: float) -> float | None:
        """Never: arrivals and ends are when anything changes."""
        return None

    def ended(self, batch: Batch) -> None:
        """Count what is done."""
        self.running = [other for other in self.running if other.rows != batch.rows]
        for work, _ in batch.rows:
            self.missing[work] -= 1

    def _join(self, queue: _Queue, work: int) -> _Queue:
        lengths, rows = self._sorted[work]
        return queue.joined(lengths, np.full(len(rows), work), rows)

    def _choose(self, idle: int, now: float) -> tuple[int, int] | None:
        low, high, score = self._windows(self.queue, self.missing, idle)
        best = np.argsort(-score, kind="stable")[: self.choices]
        options: list[tuple[int, int] | None] = [(int(low[at]), int(high[at])) for at in best]
        if self.running or self.seen < len(self.requests):
            options.append(None)
        if len(options) == 1:
            return options[0]
        return min(options, key=lambda option: self._play(option, idle, now))

    def _windows(
        self, queue: _Queue, missing: NDArray[np.int64], idle: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Batches of neighbors in length [k]: from where to where they reach, and how good they look.

        The work they save a second: what their rows would cost in batches of a few like themselves, by their own time.
        A request's last rows count for more: they end it.
        """
        count, cost = len(queue.length), self.device.cost
        sizes = GRID[: int(np.searchsorted(GRID, min(count, self.device.max_rows), side="right"))]
        sizes = np.append(sizes, min(self.device.max_rows, -(-count // idle)))
        low = np.repeat(np.arange(count), len(sizes))
        high = low + np.tile(sizes, count)
        inside = high <= count
        low, high = low[inside], high[inside]
        longest = queue.length[high - 1]
        if cost.packed:
            sums = np.concatenate([[0], np.cumsum(queue.length)])
            cells = sums[high] - sums[low]
        else:
            cells = longest * (high - low)
        seconds = cost.fixed + cost.per_step * longest + cost.per_cell * cells
        worth = cost.shares(queue.length, COMPANY) * self._urgency(queue, missing)
        total = np.concatenate([[0.0], np.cumsum(worth)])
        return low, high, (total[high] - total[low]) / seconds

    def _urgency(self, queue: _Queue, missing: NDArray[np.int64]) -> NDArray[np.float64]:
        return 1 / np.maximum(missing[queue.work], 1)

    def _play(self, first: tuple[int, int] | None, idle: int, now: float) -> float:
        """Sum of the times at which requests are done, if `first` runs now and the playing policy goes on."""
        queue, missing = self.queue, self.missing.copy()
        until = int(np.searchsorted(self.arrivals, now + self.horizon, side="right"))
        tie = itertools.count()
        ends: list[tuple[float, int, NDArray[np.int64]]] = [
            (batch.end, next(tie), np.array([work for work, _ in batch.rows])) for batch in self.running
        ]
        heapq.heapify(ends)
        total, coming, waits = 0.0, self.seen, first is None
        while True:
            while idle and len(queue.length) and not waits:
                if first is not None:
                    low, high = first
                    first = None
                else:
                    lows, highs, score = self._windows(queue, missing, idle)
                    at = int(score.argmax())
                    low, high = int(lows[at]), int(highs[at])
                end = now + self.device.seconds(queue.length[low:high], 1)
                heapq.heappush(ends, (end, next(tie), queue.work[low:high]))
                queue = queue.without(low, high)
                idle -= 1
            waits = False
            arrival = self.arrivals[coming] if coming < until else np.inf
            if ends and ends[0][0] <= arrival:
                now, _, done = heapq.heappop(ends)
                idle += 1
                np.subtract.at(missing, done, 1)
                total += now * np.count_nonzero(missing[np.unique(done)] == 0)
            elif coming < until:
                now = float(arrival)
                queue = self._join(queue, coming)
                coming += 1
            else:
                return total if not len(queue.length) else float("inf")
