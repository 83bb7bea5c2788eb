"""The calls of a test: when each is due, and what it carries. The seed decides both, before the first call is sent.

Every generator process makes the whole schedule and sends its own share of it, so the calls are the same however many
processes send them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from birnn_loadtest.arrivals import BLOCK, Process, Trace

# Sequences drawn at a time.
_DRAWN = 1 << 16


@dataclass(frozen=True, slots=True)
class Part:
    """An encoder that takes part in a test.

    Attributes:
        encoder: Its name.
        version: Its version, or an alias; None for the one that the server chooses.
        weight: Its share of the calls, relative to the others'.
        sequences: What is drawn from, with replacement.
    """

    encoder: str
    version: str | None
    weight: float
    sequences: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Mix:
    """What calls carry: an encoder and a number of sequences, drawn by weight and independently of each other.

    Attributes:
        parts: The encoders.
        batches: Numbers of sequences, each with its weight.
    """

    parts: Sequence[Part]
    batches: Sequence[tuple[int, float]]


class Call(NamedTuple):
    """One call.

    Attributes:
        number: From 0, over all processes.
        due: When it is to be sent, in seconds from the start of the test.
        part: Position of its encoder in the mix.
        sequences: What it carries.
    """

    number: int
    due: float
    part: int
    sequences: list[bytes]


@dataclass(frozen=True, slots=True)
class Schedule:
    """All calls of a test.

    Attributes:
        arrivals: When calls are due; None in a closed loop, where each is due when its caller is free.
        mix: What they carry.
        warmup: Seconds at the beginning that are not measured.
        seconds: Seconds measured.
        seed: Decides the rest.
    """

    arrivals: Process | Trace | None
    mix: Mix
    warmup: float
    seconds: float
    seed: int

    def calls(self, share: int = 0, shares: int = 1) -> Iterator[Call]:
        """Every `shares`-th call, from number `share` on; without end in a closed loop."""
        number = 0
        for times, parts, sizes in self._blocks():
            # Above the generator's own stream of numbers, so that arrivals do not depend on what calls carry.
            random = np.random.default_rng([self.seed, 2, number // BLOCK])
            for first in range(0, len(times), step := max(1, _DRAWN // int(sizes.max()))):
                chunk = slice(first, first + step)
                ends = np.cumsum(sizes[chunk])
                drawn = random.random(int(ends[-1]))
                starts = ends - sizes[chunk]
                mine = range((share - number - first) % shares, len(ends), shares)
                for at in mine:
                    part = int(parts[first + at])
                    sequences = self.mix.parts[part].sequences
                    rows = (drawn[starts[at] : ends[at]] * len(sequences)).astype(np.int64).tolist()
                    yield Call(number + first + at, float(times[first + at]), part, [sequences[row] for row in rows])
            number += len(times)

    def _blocks(self) -> Iterator[tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]]:
        """Times, encoders and sizes of calls, float64 and int64 [n], block by block."""
        random = np.random.default_rng([self.seed, 1])
        for number, times in enumerate(self._times()):
            parts = _chosen(random, [part.weight for part in self.mix.parts])
            sizes = np.array([size for size, _ in self.mix.batches])[
                _chosen(random, [weight for _, weight in self.mix.batches])
            ]
            parts, sizes = parts[: len(times)], sizes[: len(times)]
            if isinstance(self.arrivals, Trace):
                here = slice(number * BLOCK, number * BLOCK + len(times))
                if self.arrivals.encoders is not None:
                    places = {part.encoder: place for place, part in enumerate(self.mix.parts)}
                    parts = np.array([places[name] for name in self.arrivals.encoders[here]])
                if self.arrivals.batches is not None:
                    sizes = self.arrivals.batches[here]
            yield times, parts, sizes

    def _times(self) -> Iterator[NDArray[np.float64]]:
        match self.arrivals:
            case Process():
                yield from self.arrivals.blocks(self.warmup, self.seconds, self.seed)
            case Trace():
                inside = self.arrivals.times[self.arrivals.times < self.warmup + self.seconds]
                yield from (inside[first : first + BLOCK] for first in range(0, len(inside), BLOCK))
            case None:
                yield from repeat(np.zeros(BLOCK))


def _chosen(random: np.random.Generator, weights: Sequence[float]) -> NDArray[np.int64]:
    """Positions drawn by weight: int64 [BLOCK]."""
    ends = np.cumsum(weights) / np.sum(weights)
    return np.minimum(np.searchsorted(ends, random.random(BLOCK), side="right"), len(weights) - 1)
