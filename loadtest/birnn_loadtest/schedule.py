"""When calls are to be sent, and which sequences they carry: both decided by the seed alone, before the first call."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_BLOCK = 4096


def poisson_arrivals(rate: float, seconds: float, seed: int) -> NDArray[np.float64]:
    """Arrival times of a Poisson process: independent callers who do not wait for each other.

    The gaps are exponential with mean 1 / rate. A longer test with the same seed begins with the same arrivals.

    Args:
        rate: Calls per second, above 0.
        seconds: Length of the test.
        seed: Anything from 0.

    Returns:
        float64 [calls], ascending, in seconds from the start, all below `seconds`.
    """
    random = np.random.default_rng([seed, 0])
    blocks: list[NDArray[np.float64]] = []
    end = 0.0
    while end < seconds:
        blocks.append(end + np.cumsum(random.exponential(1 / rate, _BLOCK)))
        end = float(blocks[-1][-1])
    times = np.concatenate(blocks) if blocks else np.empty(0)
    return times[times < seconds]


def choices(population: int, batch: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Which sequences each call carries, without end: int64 [batch], uniform with replacement from 0..population-1."""
    random = np.random.default_rng([seed, 1])
    while True:
        yield from random.integers(population, size=(_BLOCK // batch + 1, batch))
