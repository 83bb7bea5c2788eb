"""The planner: pure logic, from the lengths that wait to the rows that run together."""

import numpy as np
from numpy.typing import NDArray

from service.batcher.cost import CostModel


def plan_batch(lengths: NDArray[np.int64], cost: CostModel, max_rows: int) -> NDArray[np.intp]:
    """Choose the rows of the next batch.

    The first row, the most urgent one, is always in, so nothing starves. From there the batch grows towards its
    neighbours in length, each time by the one that saves most, for as long as running it here is cheaper than alone.
    With t(B, T) = a + b T + c T B, B rows padded to T, a row of length t saves

        a + b t - c (T - t)      when t <= T: it pays for its own padding,
        a + b T - c B (t - T)    when t > T: everybody else's padding is on its account.

    Args:
        lengths: Tokens of the waiting sequences, the most urgent first [n], n >= 1.
        cost: Cost model of the engine.
        max_rows: Most rows in a batch.

    Returns:
        Positions in `lengths` [B], in order of length.
    """
    order = np.argsort(lengths, kind="stable")
    by_length = lengths[order].tolist()
    low = high = int(np.flatnonzero(order == 0)[0])
    steps = by_length[low]
    while high - low + 1 < max_rows:
        rows = high - low + 1
        below = above = -1.0
        if low > 0:
            below = cost.fixed + cost.per_step * by_length[low - 1] - cost.per_cell * (steps - by_length[low - 1])
        if high + 1 < len(by_length):
            above = cost.fixed + cost.per_step * steps - cost.per_cell * rows * (by_length[high + 1] - steps)
        if max(below, above) < 0:
            break
        if below > above:
            low -= 1
        else:
            high += 1
            steps = by_length[high]
    return order[low : high + 1]
