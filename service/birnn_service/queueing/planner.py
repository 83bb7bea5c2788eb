"""The planner: decides which waiting rows run together, from their lengths. Pure logic."""

import heapq
import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from birnn_service.queueing.cost import CostModel

# Share of a batch's overhead that may be spent on padding: more rows will arrive, so a row that is left waiting will
# seldom run alone. In simulations of calls of 1, 8 and 32 sequences on two cores, 0.4 to 0.6 gave the lowest mean
# and 99th percentile.
SPENT = 0.5
# Factor by which packed batches exceed the best size for the case that no more rows arrive. In simulations of the same
# calls, 2 to 4 were best at 50 to 90 percent load.
EXTERNALITY = 3.0
# Weight of the overhead of one more batch where a batch is divided between requests. In simulations of mixed and
# heavy-tailed sizes 3 to 8 gave means 9 to 14 percent lower than without; below 5, calls of one sequence were answered
# later.
PARTING = 5.0

# A batch as a stretch of the rows in order of length: from where to where.
Stretch = tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Batches that run side by side now.

    Attributes:
        batches: For each its positions in the lengths that were planned [B]; one a slot at most.
        seconds: Predicted time until everything that was planned is done, with the batches that follow.
    """

    batches: list[NDArray[np.intp]]
    seconds: float


def plan_batch(
    lengths: NDArray[np.int64], submissions: NDArray[np.int64], cost: CostModel, max_rows: int
) -> NDArray[np.intp]:
    """Choose the rows that run next on a slot that became idle while others work.

    All rows are divided into batches at the least cost (see `cheapest`). The batch with the first, most urgent row is
    chosen, and the next shorter rows are added as long as they cost less in it than in a full batch of rows like them.
    Packed rows need no padding, so the most urgent ones run together (see `prompt_rows`).

    Args:
        lengths: Tokens of the waiting sequences, the most urgent first [n], n >= 1.
        submissions: Numbers of their submissions [n].
        cost: Cost model of the engine.
        max_rows: Most rows in a batch.

    Returns:
        Positions in `lengths` [B].
    """
    if len(lengths) == 1:
        return np.zeros(1, dtype=np.intp)
    if cost.packed:
        rows = min(len(lengths), max_rows, prompt_rows(lengths, cost))
        rows = _to_the_end_of_a_request(submissions, rows, max_rows)
        return np.arange(_before_what_delays(lengths, submissions, rows, cost))
    order = np.argsort(lengths, kind="stable")
    place = int(order.argmin())
    ordered = lengths[order]
    stretches = cheapest(ordered, cost, max_rows, SPENT)
    low, high = next(stretch for stretch in stretches if place < stretch[1])
    return order[_topped_up(ordered, low, high, cost, max_rows) : high]


def prompt_rows(lengths: NDArray[np.int64], cost: CostModel) -> int:
    """Number of rows in a packed batch that minimizes the mean time until waiting rows are done.

    Larger batches waste less time on overhead o; smaller ones answer their first rows sooner. For n waiting rows that
    cost c each, in consecutive batches of B rows, the mean time is about n (o / B + c) / 2 + B c / 2, which is least at
    B = sqrt(n o / c). Overhead also delays rows that arrive later, so the result is `EXTERNALITY` times as large.

    Args:
        lengths: Tokens of the waiting sequences [n].
        cost: Cost model of the engine.
    """
    steps = float(lengths.mean())
    overhead, row = cost.fixed + cost.per_step * steps, cost.per_cell * steps
    # At least one: on a busy machine the fit may find no overhead at all.
    return max(1, math.ceil(EXTERNALITY * math.sqrt(len(lengths) * overhead / row))) if row else len(lengths)


def _to_the_end_of_a_request(submissions: NDArray[np.int64], rows: int, max_rows: int) -> int:
    """About `rows` rows, ending where a request ends if possible: a caller cannot use a part of its request."""
    near = submissions[: min(max_rows, rows + rows // 2) + 1]
    ends = np.flatnonzero(np.diff(near, append=near[-1] + (len(near) == len(submissions)))) + 1
    ends = ends[(2 * ends >= rows) & (ends <= max_rows)]
    return int(ends[np.abs(ends - rows).argmin()]) if len(ends) else rows


def _before_what_delays(lengths: NDArray[np.int64], submissions: NDArray[np.int64], rows: int, cost: CostModel) -> int:
    """How many of the first `rows` rows to run, so that later rows do not delay earlier requests too much.

    All requests of a batch are answered when it ends. Ending it after the first few saves each of these the time of the
    remaining rows, and costs all other waiting requests the overhead of one more batch.
    """
    all_ends = np.flatnonzero(np.diff(submissions)) + 1
    ends = all_ends[all_ends < rows]
    if not len(ends):
        return rows
    done = np.arange(1, len(ends) + 1)
    steps = float(lengths.mean())
    overhead, row = cost.fixed + cost.per_step * steps, cost.per_cell * steps
    gains = row * (rows - ends) * done - PARTING * overhead * (len(all_ends) + 1 - done)
    best = int(gains.argmax())
    return int(ends[best]) if gains[best] > 0 else rows


def plan_side_by_side(lengths: NDArray[np.int64], cost: CostModel, max_rows: int, slots: int) -> Plan:
    """Divide all waiting rows among idle slots, so that the last of them is done soonest.

    Three divisions are tried: the cheapest, and the most even ones into one and into two batches a slot. The longest
    batches run first, and the first, most urgent row is in one of the batches that run now.

    Args:
        lengths: Tokens of the waiting sequences, the most urgent first [n], n >= 1.
        cost: Cost model of the engine.
        max_rows: Most rows in a batch.
        slots: Number of idle slots.
    """
    order = np.argsort(lengths, kind="stable")
    if cost.packed:
        return _deal(lengths, order, cost, max_rows, slots)
    ordered = lengths[order]
    divisions = [cheapest(ordered, cost, max_rows, 1.0)]
    if slots > 1:
        divisions += [most_even(ordered, cost, max_rows, batches) for batches in (slots, 2 * slots)]
    timed = [
        sorted(((cost.seconds(high - low, int(ordered[high - 1])), low, high) for low, high in division), reverse=True)
        for division in divisions
    ]
    spans = [_span([seconds for seconds, _, _ in division], slots) for division in timed]
    best = timed[int(np.argmin(spans))]
    place = int(order.argmin())
    best.sort(key=lambda batch: not batch[1] <= place < batch[2])
    return Plan([order[low:high] for _, low, high in best[:slots]], min(spans))


def cheapest(ordered: NDArray[np.int64], cost: CostModel, max_rows: int, spent: float) -> list[Stretch]:
    """Divide rows into batches of least total time.

    Dynamic programming over the ends of stretches of `ordered`: a batch of B rows up to length T costs
    s (a + b T) + c T B, where s is `spent`; rows of one length are not parted. The best start of the last batch never
    moves back as its end moves on (these costs are concave in the sense of Monge), so that hardly more than each end is
    looked at. (Fang, Yu, Zhao and Zhou, "TurboTransformers", PPoPP 2021, batch by such a program, over measured times.)

    Args:
        ordered: Lengths, ascending [n].
        cost: Cost model of the engine.
        max_rows: Most rows in a batch; where more have one length, they are cut evenly.
        spent: Share of the overhead a + b T that counts.
    """
    ends = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    lengths = ordered[ends].tolist()
    overheads = (spent * (cost.fixed + cost.per_step * ordered[ends])).tolist()
    reached = [0, *(ends + 1).tolist()]
    total, start = [0.0], [0]
    for end, (length, overhead) in enumerate(zip(lengths, overheads, strict=True), start=1):
        cells = cost.per_cell * length
        least, best = float("inf"), 0
        for first in range(start[-1], end):
            rows = reached[end] - reached[first]
            if rows > max_rows and first < end - 1:
                continue
            seconds = total[first] + overhead + cells * rows
            if seconds < least:
                least, best = seconds, first
        total.append(least)
        start.append(best)
    stretches: list[Stretch] = []
    end = len(lengths)
    while end:
        stretches += reversed(_cut(reached[start[end]], reached[end], max_rows))
        end = start[end]
    return stretches[::-1]


def most_even(ordered: NDArray[np.int64], cost: CostModel, max_rows: int, batches: int) -> list[Stretch]:
    """Divide rows into batches so that the longest batch is as short as possible, by bisection.

    Args:
        ordered: Lengths, ascending [n].
        cost: Cost model of the engine.
        max_rows: Most rows in a batch.
        batches: Number of batches wanted. There are more if the rows do not fit.
    """
    lengths = ordered.tolist()
    batches = max(batches, -(-len(lengths) // max_rows))
    low, high = cost.seconds(1, lengths[-1]), cost.seconds(min(max_rows, len(lengths)), lengths[-1])
    for _ in range(10):
        middle = (low + high) / 2
        if len(_within(lengths, cost, max_rows, middle)) <= batches:
            high = middle
        else:
            low = middle
    return _within(lengths, cost, max_rows, high)


def _within(lengths: list[int], cost: CostModel, max_rows: int, seconds: float) -> list[Stretch]:
    """As few batches as possible of at most `seconds` each, filled from the longest row down."""
    stretches = []
    end = len(lengths)
    while end:
        length = lengths[end - 1]
        left = seconds - cost.fixed - cost.per_step * length
        fitting = int(left / (cost.per_cell * length) * (1 + 1e-9)) if cost.per_cell else max_rows
        rows = min(max(1, fitting), max_rows, end)
        stretches.append((end - rows, end))
        end -= rows
    return stretches


def _topped_up(ordered: NDArray[np.int64], low: int, high: int, cost: CostModel, max_rows: int) -> int:
    """Where a batch may start instead of at `low`: where rows are cheap, it is filled up."""
    least = max(0, high - max_rows)
    below = ordered[least:low]
    here = cost.per_cell * int(ordered[high - 1])
    return low - int(np.count_nonzero(here < cost.shares(below, max_rows)))


def _cut(low: int, high: int, max_rows: int) -> list[Stretch]:
    pieces = -(-(high - low) // max_rows)
    bounds = [low + (high - low) * piece // pieces for piece in range(pieces + 1)]
    return list(itertools.pairwise(bounds))


def _span(seconds: list[float], slots: int) -> float:
    """Seconds until all batches are done, the longest first, each on the slot that becomes free first."""
    ends = [0.0] * slots
    for each in seconds:
        heapq.heappushpop(ends, ends[0] + each)
    return max(ends)


def _deal(lengths: NDArray[np.int64], order: NDArray[np.intp], cost: CostModel, max_rows: int, slots: int) -> Plan:
    """Packed rows: deal them out by length, so that every slot gets about as many tokens."""
    now = order if len(order) <= slots * max_rows else order[order < slots * max_rows]
    batches = [now[slot::slots] for slot in range(min(slots, len(now)))]
    rounds = len(lengths) / len(now)
    return Plan(batches, rounds * max(cost.batch_seconds(lengths[batch]) for batch in batches))
