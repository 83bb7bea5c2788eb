"""Policies: the real scheduler, and how other servers decide."""

from collections import deque
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from bench.simulation.device import Batch, Device, Launch, Row
from bench.simulation.load import Request
from birnn_bundle.ragged import RaggedBatch
from birnn_service.engine.engine import EngineInfo, Output
from birnn_service.errors import DeadlineError, OverloadedError
from birnn_service.queueing.lane import Lane
from birnn_service.queueing.scheduler import Scheduler


class SimulatedEngine:
    """Stands where an engine stands, for its description only: the simulation keeps the time."""

    def __init__(self, device: Device) -> None:
        self.info = EngineInfo(
            "simulated",
            "cpu",
            "float32",
            device.slots,
            device.max_rows,
            device.parallel_slots,
            packed=device.cost.packed,
            run_slots=1 if device.wide_cost is None else 2,
        )

    def close(self) -> None:
        """Nothing to free."""

    def run(self, batch: RaggedBatch, output: Output, slots: int = 1) -> NDArray[np.float32]:
        """Is never called."""
        raise AssertionError("a simulated engine never runs")


class Ours:
    """The real scheduler. Requests go to its lanes in turn. Callers without one of `weights` have 1."""

    def __init__(
        self,
        device: Device,
        *,
        lanes: int = 1,
        max_backlog_seconds: float = float("inf"),
        weights: Mapping[str, float] | None = None,
    ) -> None:
        engine = SimulatedEngine(device)
        self.lanes = [
            Lane(f"simulated-{number}", engine, Output.POOLED, 1, device.cost, device.wide_cost)
            for number in range(lanes)
        ]
        given = weights or {}
        self.scheduler = Scheduler(self.lanes, device.slots, max_backlog_seconds, lambda caller: given.get(caller, 1.0))

    def lane_of(self, number: int) -> Lane:
        """The lane that a request is for."""
        return self.lanes[number % len(self.lanes)]

    def add(self, number: int, request: Request, now: float) -> bool:
        """Queue a request, unless the scheduler refuses it."""
        try:
            self.scheduler.add(
                self.lane_of(number), number, request.lengths, request.deadline, now, request.caller, request.priority
            )
        except (DeadlineError, OverloadedError):
            return False
        return True

    def fill(self, idle: int, now: float) -> tuple[list[Launch], list[int]]:
        """What the scheduler chooses."""
        selections, late = self.scheduler.fill(idle, now)
        launches = [
            Launch(list(zip(chosen.rows.submission.tolist(), chosen.rows.row.tolist(), strict=True)), chosen.slots)
            for chosen in selections
        ]
        return launches, late

    def wake(self, now: float) -> float | None:
        """Never: it waits for nothing."""
        return None

    def ended(self, batch: Batch) -> None:
        """Let the lane learn."""
        self.lane_of(batch.rows[0][0]).learn(batch.lengths, batch.end - batch.start, batch.slots)


class Fifo:
    """First come, first served: up to `max_rows` rows in order of arrival, padded to the longest.

    With `max_tokens` it stops at a budget of padded tokens, as text-embeddings-inference does.
    """

    def __init__(self, max_rows: int, max_tokens: float = float("inf")) -> None:
        self.max_rows = max_rows
        self.max_tokens = max_tokens
        self.queue: deque[tuple[int, int, int]] = deque()

    def add(self, number: int, request: Request, now: float) -> bool:
        """Queue the rows of a request."""
        self.queue.extend((number, row, length) for row, length in enumerate(request.lengths.tolist()))
        return True

    def fill(self, idle: int, now: float) -> tuple[list[Launch], list[int]]:
        """One batch for each idle slot."""
        launches: list[Launch] = []
        while self.queue and len(launches) < idle:
            rows: list[Row] = []
            longest = 0
            while self.queue and len(rows) < self.max_rows:
                number, row, length = self.queue[0]
                longest = max(longest, length)
                if rows and longest * (len(rows) + 1) > self.max_tokens:
                    break
                rows.append((number, row))
                self.queue.popleft()
            launches.append(Launch(rows))
        return launches, []

    def wake(self, now: float) -> float | None:
        """Never."""
        return None

    def ended(self, batch: Batch) -> None:
        """Learn nothing."""


class Triton:
    """Triton's dynamic batcher, which never splits a request and pads to the longest row of a batch.

    Whole requests are batched in order of arrival, up to `max_batch` rows. A batch that holds at least `preferred` rows
    goes at once to an idle instance, a smaller one as soon as its oldest request has waited `delay` seconds.
    A request that is larger than `max_batch` is sent by its client in pieces of that size.
    """

    def __init__(self, max_batch: int, preferred: int, delay: float) -> None:
        self.max_batch = max_batch
        self.preferred = preferred
        self.delay = delay
        self.queue: deque[tuple[float, list[Row]]] = deque()

    def add(self, number: int, request: Request, now: float) -> bool:
        """Queue a request."""
        rows = [(number, row) for row in range(len(request.lengths))]
        self.queue.extend((now, rows[at : at + self.max_batch]) for at in range(0, len(rows), self.max_batch))
        return True

    def fill(self, idle: int, now: float) -> tuple[list[Launch], list[int]]:
        """One batch for each idle instance."""
        launches: list[Launch] = []
        while self.queue and len(launches) < idle:
            count, size = self._head()
            full = count < len(self.queue) or size >= self.preferred
            if not full and now < self.queue[0][0] + self.delay:
                break
            launches.append(Launch([row for _ in range(count) for row in self.queue.popleft()[1]]))
        return launches, []

    def wake(self, now: float) -> float | None:
        """When the oldest request has waited long enough."""
        return self.queue[0][0] + self.delay if self.queue else None

    def ended(self, batch: Batch) -> None:
        """Learn nothing."""

    def _head(self) -> tuple[int, int]:
        """How many requests fit into the next batch, and their rows."""
        count = size = 0
        for _, rows in self.queue:
            if size + len(rows) > self.max_batch:
                break
            count, size = count + 1, size + len(rows)
        return count, size
