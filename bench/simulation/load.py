"""Loads: when requests arrive and how long their sequences are."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from birnn_service.queueing.priority import Priority

Random = np.random.Generator


@dataclass(frozen=True, eq=False)
class Request:
    """When it arrives, its lengths, when its caller gives up, who that is, and how urgent it is."""

    arrival: float
    lengths: NDArray[np.int64]
    deadline: float | None = None
    caller: str = ""
    priority: Priority = Priority.NORMAL


class Lengths(Protocol):
    """Where lengths come from."""

    def __call__(self, random: Random, count: int) -> NDArray[np.int64]:
        """Lengths of `count` sequences."""


@dataclass(frozen=True)
class LogNormal:
    """Log-normal lengths of 1 to 400 tokens, around 48 as SMILES have."""

    spread: float = 0.35
    median: float = 45.0

    def __call__(self, random: Random, count: int) -> NDArray[np.int64]:
        """Lengths of `count` sequences."""
        drawn = random.lognormal(math.log(self.median), self.spread, count)
        return np.clip(drawn, 1, 400).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Recorded:
    """Lengths drawn from recorded ones."""

    recorded: NDArray[np.int64]

    def __call__(self, random: Random, count: int) -> NDArray[np.int64]:
        """Lengths of `count` sequences."""
        drawn: NDArray[np.int64] = random.choice(self.recorded, count)
        return drawn


class Sizes(Protocol):
    """How many sequences a request has."""

    @property
    def mean(self) -> float:
        """Mean size."""

    def __call__(self, random: Random) -> int:
        """The size of one request."""


@dataclass(frozen=True)
class Fixed:
    """Always as many."""

    size: int

    @property
    def mean(self) -> float:
        """Mean size."""
        return float(self.size)

    def __call__(self, random: Random) -> int:
        """The size of one request."""
        return self.size


@dataclass(frozen=True)
class Mixed:
    """Some sizes, each with its share of the requests."""

    sizes: tuple[int, ...]
    shares: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean size."""
        return float(np.dot(self.sizes, self.shares))

    def __call__(self, random: Random) -> int:
        """The size of one request."""
        return int(random.choice(self.sizes, p=self.shares))


@dataclass(frozen=True)
class HeavyTailed:
    """Pareto sizes of 1 to `largest`: P(size > x) is about x ** -shape. Most are small; most work is in large ones."""

    shape: float = 1.2
    largest: int = 512

    @property
    def mean(self) -> float:
        """Mean size."""
        # The sum of P(size > x) over x = 0, 1, ..., largest - 1, of which the first is 1.
        return 1.0 + float((np.arange(1.0, self.largest) ** -self.shape).sum())

    def __call__(self, random: Random) -> int:
        """The size of one request."""
        uniform = 1 - random.random()
        return min(self.largest, math.ceil(math.exp(-math.log(uniform) / self.shape)))


def poisson(rate: float, count: int, random: Random) -> NDArray[np.float64]:
    """Times of `count` arrivals of callers who know nothing of each other, `rate` a second."""
    return np.cumsum(random.exponential(1 / rate, count))


def bursts(rate: float, count: int, random: Random, share: float = 0.25, cycle: float = 0.5) -> NDArray[np.float64]:
    """Times of `count` arrivals, `rate` a second, all of them in the first `share` of every `cycle` seconds."""
    busy = poisson(rate / share, count, random)
    return busy + np.floor(busy / (cycle * share)) * cycle * (1 - share)


Arrivals = Callable[[float, int, Random], NDArray[np.float64]]


def make_load(
    rate: float, count: int, sizes: Sizes, lengths: Lengths, seed: int, arrivals: Arrivals = poisson
) -> list[Request]:
    """`count` requests of one caller, `rate` a second, in order of arrival."""
    random = np.random.default_rng(seed)
    times = arrivals(rate, count, random).tolist()
    return [Request(time, lengths(random, sizes(random))) for time in times]


def with_patience(requests: Sequence[Request], patience: float) -> list[Request]:
    """The same requests, of callers who give up after `patience` seconds."""
    return [replace(request, deadline=request.arrival + patience) for request in requests]
