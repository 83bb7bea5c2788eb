"""A simulated device: slots whose batches take exactly what a cost model says."""

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bench.simulation.load import Lengths, Request
from birnn_service.queueing.cost import CostModel

# (request, row)
Row = tuple[int, int]


@dataclass(frozen=True)
class Device:
    """What batches cost, and how many run side by side.

    Attributes:
        cost: Of a batch on one slot.
        slots: Batches that run at the same time.
        max_rows: Most rows in a batch.
        parallel_slots: Whether slots are separate processors; else they only hide each other's gaps.
        wide_cost: Of a batch that runs on two slots, where a run can.
    """

    cost: CostModel
    slots: int
    max_rows: int
    parallel_slots: bool = True
    wide_cost: CostModel | None = None

    def seconds(self, lengths: NDArray[np.int64], slots: int) -> float:
        """How long a batch takes."""
        cost = self.cost if slots == 1 or self.wide_cost is None else self.wide_cost
        return cost.batch_seconds(lengths)

    def capacity(self, lengths: Lengths) -> float:
        """Sequences a second in full batches of equal lengths: more than anybody can do."""
        sample = lengths(np.random.default_rng(0), 10_000)
        return float(self.slots / self.cost.shares(sample, self.max_rows).mean())


# One core running a BiGRU of 256 hidden units in onnxruntime, where padding is paid in full; the same without padding,
# on an engine that packs its rows and can walk both directions of one batch on two cores; and a GPU on which a step
# costs the same for one row and for hundreds.
CPU = Device(CostModel(50e-6, 8e-6, 12e-6), slots=2, max_rows=32)
PACKED = Device(
    CostModel(50e-6, 8e-6, 8e-6, packed=True),
    slots=2,
    max_rows=64,
    wide_cost=CostModel(60e-6, 4.4e-6, 4.4e-6, packed=True),
)
GPU = Device(CostModel(100e-6, 8e-6, 0.01e-6), slots=1, max_rows=512, parallel_slots=False)


@dataclass(frozen=True)
class Batch:
    """What ran: its rows and their lengths, from when to when, on how many slots."""

    rows: list[Row]
    lengths: NDArray[np.int64]
    start: float
    end: float
    slots: int = 1


@dataclass
class Outcome:
    """The outcome of a simulated load.

    `finished` is when each request was done, infinite where it was dropped (its number is then in `late`).
    """

    device: Device
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
        cells = sum(self.device.cost.cells(batch.lengths) for batch in self.batches)
        return 1 - sum(int(batch.lengths.sum()) for batch in self.batches) / cells

    @property
    def utilization(self) -> float:
        """Share of the slots' time, from the first arrival to the last end, in which they ran something."""
        busy = sum((batch.end - batch.start) * batch.slots for batch in self.batches)
        return busy / (self.device.slots * (max(self.finished) - self.requests[0].arrival))


@dataclass(frozen=True)
class Launch:
    """Rows to run now, and the number of slots for them."""

    rows: list[Row]
    slots: int = 1


class Policy(Protocol):
    """What decides which rows run next."""

    def add(self, number: int, request: Request, now: float) -> bool:
        """A request arrives; false where it is refused."""

    def fill(self, idle: int, now: float) -> tuple[list[Launch], list[int]]:
        """Batches for idle slots, as many as fit, and the requests dropped as too late."""

    def wake(self, now: float) -> float | None:
        """When to be asked again though nothing arrives or ends before; None for never."""

    def ended(self, batch: Batch) -> None:
        """A batch is done."""


def simulate(policy: Policy, requests: Sequence[Request], device: Device) -> Outcome:
    """Run a load, sorted by arrival, through a policy."""
    outcome = Outcome(device, requests, [float("inf")] * len(requests))
    missing = [len(request.lengths) for request in requests]
    tie = itertools.count()
    # What happens: a request arrives (its number), a batch ends, or a policy wants to be asked (neither).
    events: list[tuple[float, int, int | Batch | None]] = [
        (request.arrival, next(tie), number) for number, request in enumerate(requests)
    ]
    heapq.heapify(events)
    idle = device.slots
    while events:
        now, _, event = heapq.heappop(events)
        if isinstance(event, Batch):
            idle += event.slots
            policy.ended(event)
            _finish(outcome, missing, event)
        elif event is not None and not policy.add(event, requests[event], now):
            outcome.late.add(event)
        launches, late = policy.fill(idle, now)
        outcome.late |= set(late)
        for launch in launches:
            lengths = np.array([requests[number].lengths[row] for number, row in launch.rows])
            end = now + device.seconds(lengths, launch.slots)
            batch = Batch(launch.rows, lengths, now, end, launch.slots)
            outcome.batches.append(batch)
            heapq.heappush(events, (end, next(tie), batch))
            idle -= launch.slots
        wake = policy.wake(now) if idle else None
        if wake is not None:
            heapq.heappush(events, (max(wake, now), next(tie), None))
    return outcome


def _finish(outcome: Outcome, missing: list[int], batch: Batch) -> None:
    for number, _ in batch.rows:
        missing[number] -= 1
        if missing[number] == 0 and number not in outcome.late:
            outcome.finished[number] = batch.end
