"""A strong offline heuristic: the real scheduler, which tries its choices out on what is to come before it makes them.

It is not the optimum, which cannot be computed for more than a few requests, but a schedule that exists, so that the
optimum is at most as long. At each decision it plays several first batches, and waiting, with the true arrivals of the
time to come, going on as the scheduler would, and takes the one after which requests are done soonest on average (the
rollout algorithm: Bertsekas, Tsitsiklis and Wu, "Rollout algorithms for combinatorial optimization", 1997).
"""

import copy
import heapq
import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench.simulation.device import Batch, Device, Launch, Row
from bench.simulation.load import Request
from bench.simulation.policies import Ours
from birnn_service.queueing.lane import Lane
from birnn_service.queueing.planner import cheapest
from birnn_service.queueing.queue import Queue
from birnn_service.queueing.scheduler import Scheduler
from birnn_service.queueing.turns import Window
from birnn_service.queueing.waiting import Waiting

# Shares of the overhead that divisions are tried with, and rows of packed batches.
SPENT = (0.25, 0.5, 1.0)
SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)
# Most rows, the most urgent ones, whose divisions are tried.
TRIED = 96


class Clairvoyant(Ours):
    """Plays each choice until all that arrives in the next `horizon` seconds is done.

    All requests are NORMAL ones of one caller, and none has a deadline.
    """

    def __init__(self, device: Device, requests: Sequence[Request], *, horizon: float, choices: int = 16) -> None:
        super().__init__(device)
        self.device = device
        self.requests = requests
        self.horizon = horizon
        self.choices = choices
        self.arrivals = [request.arrival for request in requests]
        self.missing = [len(request.lengths) for request in requests]
        self.running: list[tuple[float, int, Waiting]] = []
        self.seen = 0
        self._tie = itertools.count()

    def add(self, number: int, request: Request, now: float) -> bool:
        """Queue a request."""
        self.seen = number + 1
        return super().add(number, request, now)

    def fill(self, idle: int, now: float) -> tuple[list[Launch], list[int]]:
        """The batches after which everybody is done soonest, as far as was tried."""
        launches: list[Launch] = []
        lane = self.lanes[0]
        while idle and len(lane.queue):
            options = self._options(_window(lane).rows.length[:TRIED], idle)
            chosen = min(options, key=lambda option: self._play(option, idle, now))
            if chosen is None:
                break
            slots, positions = chosen
            rows = _take(lane, positions)
            self._start(self.running, rows, slots, now)
            launches.append(Launch(list(zip(rows.submission.tolist(), rows.row.tolist(), strict=True)), slots))
            idle -= slots
        return launches, []

    def ended(self, batch: Batch) -> None:
        """Count what is done."""
        gone: set[Row] = set(batch.rows)
        self.running = [
            entry for entry in self.running if (int(entry[2].submission[0]), int(entry[2].row[0])) not in gone
        ]
        for number, _ in batch.rows:
            self.missing[number] -= 1

    def _options(self, lengths: NDArray[np.int64], idle: int) -> list[tuple[int, NDArray[np.intp]] | None]:
        """First batches to try: slots and positions, and none; those that hold urgent rows first."""
        cost, max_rows = self.device.cost, self.device.max_rows
        if cost.packed:
            batches = [np.arange(min(len(lengths), size)) for size in SIZES if size < 2 * len(lengths)]
        else:
            order = np.argsort(lengths, kind="stable")
            divisions = [cheapest(lengths[order], cost, max_rows, spent) for spent in SPENT]
            if idle > 1:
                divisions.append([(0, len(order) // 2), (len(order) // 2, len(order))])
            stretches = {stretch for division in divisions for stretch in division if stretch[0] < stretch[1]}
            batches = sorted((order[low:high] for low, high in stretches), key=lambda batch: int(batch.min()))
        options: list[tuple[int, NDArray[np.intp]] | None] = [(1, batch) for batch in batches[: self.choices]]
        if self.device.wide_cost is not None and idle > 1:
            options += [(2, batch) for batch in batches[: self.choices]]
        if self.running or self.seen < len(self.requests):
            options.append(None)
        return options

    def _start(self, running: list[tuple[float, int, Waiting]], rows: Waiting, slots: int, now: float) -> None:
        # The number of slots hides in the tie: it is even for one slot and odd for two.
        end = now + self.device.seconds(rows.length, slots)
        heapq.heappush(running, (end, 2 * next(self._tie) + slots - 1, rows))

    def _play(self, option: tuple[int, NDArray[np.intp]] | None, idle: int, now: float) -> float:
        """Sum of the times at which requests are done if `option` runs now and the scheduler goes on."""
        lane: Lane = copy.copy(self.lanes[0])
        lane.queue = Queue()
        lane.queue.add(lane.queue.flow_of(""), _window(self.lanes[0]).rows)
        scheduler = Scheduler([lane], self.device.slots, float("inf"))
        running, missing = list(self.running), self.missing.copy()
        until = now + self.horizon
        coming, total = self.seen, 0.0
        if option is not None:
            self._start(running, _take(lane, option[1]), option[0], now)
            idle -= option[0]
        # Waiting is for what comes next: an arrival, or the end of a batch.
        waits = option is None
        while True:
            if idle and not waits:
                for selection in scheduler.fill(idle, now)[0]:
                    self._start(running, selection.rows, selection.slots, now)
                    idle -= selection.slots
            waits = False
            arrival = self.arrivals[coming] if coming < len(self.arrivals) else float("inf")
            if arrival <= until and (not running or arrival < running[0][0]):
                now = arrival
                scheduler.add(lane, coming, self.requests[coming].lengths, None, now, "")
                coming += 1
            elif running:
                now, tie, rows = heapq.heappop(running)
                idle += 1 + tie % 2
                for number in rows.submission.tolist():
                    missing[number] -= 1
                    total += now if missing[number] == 0 else 0.0
            else:
                return total if not len(lane.queue) else float("inf")


def _window(lane: Lane) -> Window:
    """All that waits in a lane, the most urgent first."""
    return lane.queue.turns(lane.cost, lane.engine.info.max_rows, float("inf")).window(len(lane.queue))


def _take(lane: Lane, positions: NDArray[np.intp]) -> Waiting:
    """Take rows out of a lane."""
    window = _window(lane)
    lane.queue.take(window, positions, np.zeros(len(positions)))
    return window.rows.select(positions)
