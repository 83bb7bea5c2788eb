"""A proven lower bound of the mean latency, which no scheduling policy can beat, even one that knows the future."""

import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench.simulation.device import Device
from bench.simulation.load import Request
from birnn_service.queueing.cost import CostModel


def least_mean_latency(requests: Sequence[Request], device: Device) -> float:
    """The bound in seconds for `requests`, which are sorted by arrival.

    A row of length l in a batch of B rows takes at least w(l) = (a + b l) / R + c l of a slot's time, with R the most
    rows of a batch: its batch takes at least as long as a batch of rows of length l, and B is at most R. So every
    schedule of batches is also a schedule of one processor, as fast as all slots together, that does w(l) of work for
    each row and may interrupt it at any time. On that processor, doing the shortest remaining work first has the least
    mean latency (Schrage, 1968).

    A real request of one row also waits for the rest of its batch. On that processor its share is done sooner, by the
    overhead that belongs to no row, (a + b l) (1 - B / R), and on average by half of the other rows' work. The least of
    that over B is added. The result is the larger of this bound and the mean time of requests that each have the
    device to themselves. The bound is loose for small batches, because it charges rows as if every batch were full.
    """
    work = [float(_least_shares(request.lengths, device).sum()) / device.slots for request in requests]
    lone = np.array([int(request.lengths[0]) for request in requests if len(request.lengths) == 1], dtype=np.int64)
    waiting = _shortest_remaining_work_first([request.arrival for request in requests], work)
    within = float(_least_time_beyond_share(lone, device).sum()) if len(lone) else 0.0
    alone = [_alone(request.lengths, device) for request in requests]
    return max(waiting + within / len(requests), float(np.mean(alone)))


def _costs(device: Device) -> list[tuple[int, CostModel]]:
    """What a batch costs on one slot, and on two where it can use them."""
    return [(1, device.cost), *([(2, device.wide_cost)] if device.wide_cost is not None else [])]


def _least_shares(lengths: NDArray[np.int64], device: Device) -> NDArray[np.float64]:
    shares = [slots * cost.shares(lengths, device.max_rows) for slots, cost in _costs(device)]
    least: NDArray[np.float64] = np.min(shares, axis=0)
    return least


def _least_time_beyond_share(lengths: NDArray[np.int64], device: Device) -> NDArray[np.float64]:
    """The least extra time of each row beyond its share of the work. It is linear in B, so an end has the least."""
    shares = _least_shares(lengths, device)
    times = []
    for slots, cost in _costs(device):
        overhead = cost.fixed + cost.per_step * lengths
        times.append(overhead * (1 - 1 / device.max_rows))
        times.append(shares / slots * (device.max_rows - 1) / 2)
    least: NDArray[np.float64] = np.min(times, axis=0)
    return least


def _alone(lengths: NDArray[np.int64], device: Device) -> float:
    """Least time of a request that has the device to itself: its longest row's, or all its work on all slots."""
    longest = min(cost.seconds(1, int(lengths.max())) for _, cost in _costs(device))
    return max(longest, float(_least_shares(lengths, device).sum()) / device.slots)


def _shortest_remaining_work_first(arrivals: Sequence[float], work: Sequence[float]) -> float:
    """Mean time from arrival to completion on one processor that always does the request with the least work left."""
    left: list[tuple[float, float]] = []
    now = total = 0.0
    for place, arrival in enumerate(arrivals):
        now = max(now, arrival)
        heapq.heappush(left, (work[place], arrival))
        until = arrivals[place + 1] if place + 1 < len(arrivals) else float("inf")
        while left and now < until:
            remaining, since = heapq.heappop(left)
            if now + remaining <= until:
                now += remaining
                total += now - since
            else:
                heapq.heappush(left, (remaining - (until - now), since))
                now = until
    return total / len(arrivals)
