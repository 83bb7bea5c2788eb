"""Neighbors: callers that send as much as they like, beside one that makes a single call now and then."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from bench.simulation.device import Device, Policy, simulate
from bench.simulation.load import Lengths, Random, Request, with_patience
from bench.simulation.policies import Ours
from birnn_service.queueing.priority import Priority

SINGLE = "single"
# Seconds between single calls on average, for how long they come alone, and for how long beside the neighbor.
PAUSE = 0.02
BEFORE = 1.2
SECONDS = 0.4
# Bound of the backlog, which every neighbor fills, in seconds.
BACKLOG = 0.3
# How many times what the device can do neighbors send.
FLOOD = 3.0

Neighbor = Callable[[Device, Lengths, Random], list[Request]]


def tight_deadline(device: Device, lengths: Lengths, random: Random) -> list[Request]:
    """Two calls of 8,192 sequences whose deadlines leave just time for one."""
    calls = []
    for arrival in (0.1, 0.2):
        rows = lengths(random, 8192)
        seconds = float(device.cost.shares(rows, device.max_rows).sum()) / device.slots
        calls.append(Request(arrival, rows, arrival + 2.0 * seconds, "neighbor"))
    return calls


def large_calls(device: Device, lengths: Lengths, random: Random) -> list[Request]:
    """32 calls of 512 sequences at once, and one more each time that one could be done."""
    return [Request(0.1, lengths(random, 512), None, "neighbor") for _ in range(32)] + flood(512)(
        device, lengths, random
    )


def flood(size: int, callers: int = 1, deadline: float | None = None) -> Neighbor:
    """Calls of `size` sequences each, at `FLOOD` times what the device can do, from one caller or several in turn."""

    def neighbor(device: Device, lengths: Lengths, random: Random) -> list[Request]:
        rate = FLOOD * device.capacity(lengths) / size
        times = np.arange(0.1, SECONDS, 1 / rate).tolist()
        calls = [
            Request(time, lengths(random, size), None, "neighbor" if callers == 1 else f"neighbor-{number % callers}")
            for number, time in enumerate(times)
        ]
        return calls if deadline is None else with_patience(calls, deadline)

    return neighbor


# By name. Some have many addresses, each of which calls once.
NEIGHBORS: dict[str, Neighbor] = {
    "8,192 with a tight deadline": tight_deadline,
    "32 x 512 in flight": large_calls,
    "a flood of single calls": flood(1),
    "a flood of calls of 8": flood(8),
    "a flood of calls of a batch": flood(64),
    "a flood of calls with deadlines": flood(32, deadline=0.2),
    "single calls from ever new addresses": flood(1, callers=10**9),
    "calls of a batch from ever new addresses": flood(64, callers=10**9),
}


@dataclass(frozen=True)
class Beside:
    """How single calls fared beside a neighbor.

    Attributes:
        worst: Longest time from arrival to done of a single call, in seconds.
        alone: The same without a neighbor.
        batch: Seconds of the longest batch that ran.
        lost: Single calls that were refused or dropped.
    """

    worst: float
    alone: float
    batch: float
    lost: int


def beside(
    device: Device,
    neighbor: Neighbor,
    lengths: Lengths,
    *,
    lanes: int = 1,
    caller: str = SINGLE,
    priority: Priority = Priority.NORMAL,
    weight: float = 1.0,
    policy: Callable[[], Policy] | None = None,
    seed: int = 0,
) -> Beside:
    """Simulate single calls beside a neighbor; the calls of both go to all lanes.

    Single calls come from `caller`, which has called for a while when the neighbor begins, and are NORMAL. Those of the
    neighbor have a `priority`, and it has `weight` beside the 1 of others.
    What decides is the real scheduler, or another policy.
    """
    random = np.random.default_rng(seed)
    times = np.cumsum(random.exponential(PAUSE, round((BEFORE + SECONDS) / PAUSE))).tolist()
    singles = [Request(time, lengths(random, 1), None, caller) for time in times]
    others = [replace(_later(call, BEFORE), priority=priority) for call in neighbor(device, lengths, random)]
    requests = sorted([*singles, *others], key=lambda call: call.arrival)
    ours = {id(call) for call in singles}

    def decide() -> Policy:
        ours = Ours(device, lanes=lanes, max_backlog_seconds=BACKLOG, weights={"neighbor": weight})
        return ours if policy is None else policy()

    outcome = simulate(decide(), requests, device)
    waits = [
        end - call.arrival
        for call, end in zip(requests, outcome.finished, strict=True)
        if id(call) in ours and np.isfinite(end)
    ]
    alone = simulate(decide(), singles, device).latencies
    batch = max(batch.end - batch.start for batch in outcome.batches)
    return Beside(max(waits), float(alone.max()), batch, len(singles) - len(waits))


def _later(call: Request, seconds: float) -> Request:
    deadline = None if call.deadline is None else call.deadline + seconds
    return replace(call, arrival=call.arrival + seconds, deadline=deadline)
