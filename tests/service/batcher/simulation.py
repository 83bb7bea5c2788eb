"""A discrete-event simulation of one device that drives the real scheduler, beside policies of other servers."""

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bundle.ragged import RaggedBatch
from service.batcher.cost import CostModel
from service.batcher.lane import Lane
from service.batcher.scheduler import Scheduler
from service.engine.engine import EngineInfo, Output

# One core running a BiGRU of 256 hidden units, and a GPU on which a step costs the same for 1 row and for hundreds.
CPU_COST = CostModel(fixed=50e-6, per_step=8e-6, per_cell=12e-6)
GPU_COST = CostModel(fixed=100e-6, per_step=8e-6, per_cell=0.01e-6)


@dataclass(frozen=True)
class Request:
    """When it arrives, its lengths, and when its caller gives up."""

    arrival: float
    lengths: NDArray[np.int64]
    deadline: float | None = None


@dataclass(frozen=True)
class Batch:
    """What ran: (request, row) pairs, from when to when, padded to how many steps."""

    rows: list[tuple[int, int]]
    steps: int
    start: float
    end: float


@dataclass
class Outcome:
    """What became of a simulated load.

    `finished` is when each request was done, infinite where it was dropped (its number is then in `late`).
    """

    requests: Sequence[Request]
    finished: list[float]
    late: set[int] = field(default_factory=set)
    batches: list[Batch] = field(default_factory=list)

    @property
    def latencies(self) -> NDArray[np.float64]:
        """Seconds from arrival to done, of the requests that were done."""
        pairs = zip(self.requests, self.finished, strict=True)
        return np.array([end - request.arrival for request, end in pairs if np.isfinite(end)])

    @property
    def padding(self) -> float:
        """Share of all computed cells that were padding."""
        cells = sum(batch.steps * len(batch.rows) for batch in self.batches)
        real = sum(int(self.requests[work].lengths[row]) for batch in self.batches for work, row in batch.rows)
        return 1 - real / cells


class Policy(Protocol):
    """What decides which rows run next."""

    def add(self, work: int, request: Request, now: float) -> None:
        """A request arrives."""

    def next(self, idle: int, now: float) -> tuple[list[tuple[int, int]], list[int]]:
        """Rows for a free slot, empty where nothing waits, and the requests dropped as too late."""

    def ended(self, batch: Batch) -> None:
        """A batch is done."""


class SimulatedEngine:
    """Stands where an engine stands, for its description only: the simulation keeps the time."""

    def __init__(self, slots: int, max_rows: int, parallel_slots: bool) -> None:
        self.info = EngineInfo("simulated", "cpu", "float32", slots, max_rows, parallel_slots)

    def run(self, batch: RaggedBatch, output: Output, slots: int = 1) -> NDArray[np.float32]:
        raise AssertionError("a simulated engine never runs")


class Ours:
    """The real scheduler."""

    def __init__(self, cost: CostModel, slots: int, max_rows: int, parallel_slots: bool = True) -> None:
        engine = SimulatedEngine(slots, max_rows, parallel_slots)
        self.lane = Lane("simulated", engine, Output.POOLED, 1, cost)
        self.scheduler = Scheduler([self.lane], slots, max_backlog_seconds=float("inf"))

    def add(self, work: int, request: Request, now: float) -> None:
        self.scheduler.add(self.lane, work, request.lengths, request.deadline, now)

    def next(self, idle: int, now: float) -> tuple[list[tuple[int, int]], list[int]]:
        late: list[int] = []
        while (selection := self.scheduler.next(idle, now)) is not None:
            late += selection.late
            if len(selection.rows):
                return list(zip(selection.rows.work.tolist(), selection.rows.row.tolist(), strict=True)), late
        return [], late

    def ended(self, batch: Batch) -> None:
        self.lane.learn(len(batch.rows), batch.steps, batch.end - batch.start)


class Fifo:
    """First come, first served: up to `max_rows` rows in order of arrival, padded to the longest.

    With `max_tokens` it stops at a budget of padded tokens, as text-embeddings-inference does.
    """

    def __init__(self, max_rows: int, max_tokens: float = float("inf")) -> None:
        self.max_rows = max_rows
        self.max_tokens = max_tokens
        self.queue: list[tuple[int, int, int]] = []

    def add(self, work: int, request: Request, now: float) -> None:
        self.queue += [(work, row, int(length)) for row, length in enumerate(request.lengths)]

    def next(self, idle: int, now: float) -> tuple[list[tuple[int, int]], list[int]]:
        taken, longest = 0, 0
        for _, _, length in self.queue[: self.max_rows]:
            longest = max(longest, length)
            if taken and longest * (taken + 1) > self.max_tokens:
                break
            taken += 1
        rows = [(work, row) for work, row, _ in self.queue[:taken]]
        del self.queue[:taken]
        return rows, []

    def ended(self, batch: Batch) -> None:
        """Learn nothing."""


def simulate(policy: Policy, requests: Sequence[Request], cost: CostModel, slots: int) -> Outcome:
    """Run a load, sorted by arrival, through a policy on `slots` slots whose batches take exactly `cost`."""
    outcome = Outcome(requests, [float("inf")] * len(requests))
    missing = [len(request.lengths) for request in requests]
    tie = itertools.count()
    events: list[tuple[float, int, int | None, Batch | None]] = [
        (request.arrival, next(tie), work, None) for work, request in enumerate(requests)
    ]
    heapq.heapify(events)
    idle = slots
    while events:
        now, _, work, done = heapq.heappop(events)
        if work is not None:
            policy.add(work, requests[work], now)
        if done is not None:
            idle += 1
            policy.ended(done)
            for finished, _ in done.rows:
                missing[finished] -= 1
                if missing[finished] == 0 and finished not in outcome.late:
                    outcome.finished[finished] = now
        while idle:
            rows, late = policy.next(idle, now)
            outcome.late |= set(late)
            if not rows:
                break
            steps = max(int(requests[number].lengths[row]) for number, row in rows)
            batch = Batch(rows, steps, now, now + cost.seconds(len(rows), steps))
            outcome.batches.append(batch)
            heapq.heappush(events, (batch.end, next(tie), None, batch))
            idle -= 1
    return outcome


def poisson_load(rate: float, seconds: float, rows: int, seed: int, spread: float = 0.35) -> list[Request]:
    """Requests of `rows` rows that arrive at random, with log-normal lengths around 48 tokens as SMILES have."""
    random = np.random.default_rng(seed)
    arrivals = np.cumsum(random.exponential(1 / rate, size=int(rate * seconds)))
    return [Request(float(arrival), lengths(random, rows, spread)) for arrival in arrivals]


def lengths(random: np.random.Generator, count: int, spread: float = 0.35) -> NDArray[np.int64]:
    """Lengths of `count` sequences, 1 to 400 tokens."""
    return np.clip(random.lognormal(np.log(45), spread, count), 1, 400).astype(np.int64)


def capacity(cost: CostModel, slots: int, max_rows: int, spread: float = 0.35) -> float:
    """Sequences a second that the device could do in full batches of equal lengths: what nobody can beat."""
    sample = lengths(np.random.default_rng(0), 10_000, spread)
    return float(slots / cost.shares(sample, max_rows).mean())
