"""What a batch costs: a recurrent network's time is predictable, so it is measured and not configured."""

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from birnn_bundle.ragged import RaggedBatch, offsets_of
from birnn_bundle.tokenizer import UNKNOWN_ID
from birnn_service.engine.engine import Engine, Output

# Where the clock ticks more slowly than a run takes.
SHORTEST_RUN = 1e-7
REPEATS = 3


def tokens_of(lengths: NDArray[np.int64]) -> int:
    """Tokens of sequences of `lengths` [n]; for none and for one without the cost of a sum in numpy."""
    if len(lengths) > 1:
        return int(lengths.sum())
    return int(lengths[0]) if len(lengths) else 0


@dataclass(frozen=True, slots=True)
class CostModel:
    """Seconds of a batch of B rows of at most T tokens: fixed + per_step * T + per_cell * cells.

    A cell is one step of one row. An engine that pads computes T * B of them, one that packs its rows (`packed`) only
    as many as there are tokens.
    """

    fixed: float
    per_step: float
    per_cell: float
    packed: bool = False

    def seconds(self, rows: int, steps: int) -> float:
        """Predicted time of a batch of `rows` rows of `steps` tokens each."""
        return self.fixed + self.per_step * steps + self.per_cell * steps * rows

    def batch_seconds(self, lengths: NDArray[np.int64]) -> float:
        """Predicted time of a batch of rows of `lengths` [B], B >= 1."""
        # On the path of every small call, where numpy costs more than the sum.
        if len(lengths) == 1:
            return self.seconds(1, int(lengths[0]))
        return self.fixed + self.per_step * int(lengths.max()) + self.per_cell * self.cells(lengths)

    def cells(self, lengths: NDArray[np.int64]) -> int:
        """Steps of rows that a batch of `lengths` [B] computes, padding included."""
        return tokens_of(lengths) if self.packed else len(lengths) * int(lengths.max())

    def shares(self, lengths: NDArray[np.int64], rows: int) -> NDArray[np.float64]:
        """Predicted time of sequences of `lengths`, each as its share of a batch of `rows` rows like itself."""
        return np.asarray(self.fixed / rows + (self.per_step / rows + self.per_cell) * lengths, dtype=np.float64)

    def total(self, sequences: int, tokens: int, rows: int) -> float:
        """Predicted time of `sequences` sequences with `tokens` tokens in all: the sum of their `shares`."""
        return self.fixed / rows * sequences + (self.per_step / rows + self.per_cell) * tokens

    def scaled(self, factor: float) -> "CostModel":
        """The same shape, `factor` times as slow."""
        return CostModel(self.fixed * factor, self.per_step * factor, self.per_cell * factor, self.packed)

    def efficient_rows(self, steps: int, max_rows: int) -> int:
        """Rows of `steps` tokens from which on a batch's overhead is at most a tenth of the time of its cells."""
        enough = 10 * (self.fixed + self.per_step * steps)
        cells = self.per_cell * steps
        return max_rows if enough >= max_rows * cells else max(1, math.ceil(enough / cells))

    def company_is_cheap(self, steps: int) -> bool:
        """Whether a row that joins others like it costs at most a quarter of what it costs alone."""
        return self.per_cell * steps <= 0.25 * self.seconds(1, steps)

    @classmethod
    def fit(cls, measurements: Iterable[tuple[int, int, float]], packed: bool = False) -> "CostModel":
        """Fit (rows, steps, seconds) of rows of equal length by least squares on relative errors.

        No coefficient is negative. With rows of equal length a padded and a packed batch have the same cells.
        """
        table = np.array(list(measurements), dtype=np.float64)
        rows, steps, seconds = table.T
        terms = np.stack([np.ones_like(steps), steps, steps * rows], axis=1) / seconds[:, None]
        coefficients = np.zeros(3)
        kept = [0, 1, 2]
        while kept:
            solution = np.linalg.lstsq(terms[:, kept], np.ones(len(table)), rcond=None)[0]
            if (solution >= 0).all():
                coefficients[kept] = solution
                break
            del kept[int(solution.argmin())]
        fixed, per_step, per_cell = map(float, coefficients)
        return cls(fixed, per_step, per_cell, packed)


def profile(engine: Engine, output: Output, longest: int, slots: int = 1) -> CostModel:
    """Measure `engine` on a few shapes, each run on `slots` slots, and fit their times; the fastest of three counts."""
    times = (
        (rows, steps, measure(engine, output, rows, steps, slots)) for rows, steps in profile_shapes(engine, longest)
    )
    return CostModel.fit(times, engine.info.packed)


def profile_shapes(engine: Engine, longest: int) -> list[tuple[int, int]]:
    """Shapes (rows, steps) that tell an engine's cost, from the smallest to the largest."""
    wide = engine.info.max_rows
    short, long = min(16, longest), min(64, longest)
    return [(rows, steps) for rows in (1, max(1, wide // 4), wide) for steps in (short, long)]


def measure(engine: Engine, output: Output, rows: int, steps: int, slots: int = 1) -> float:
    """Seconds of a run of `rows` rows of `steps` tokens each: the fastest of three.

    On a CPU it is the time of this thread on its core: a version that is loaded while others take calls waits for one.
    """
    clock = time.thread_time if engine.info.device == "cpu" else time.perf_counter
    lengths = np.full(rows, steps, dtype=np.int64)
    ids = np.full(rows * steps, UNKNOWN_ID, dtype=np.int32)
    features = np.ones((rows * steps, engine.info.features), dtype=np.float32)
    batch = RaggedBatch(features if engine.info.features else ids, offsets_of(lengths))
    times = []
    for _ in range(REPEATS):
        start = clock()
        engine.run(batch, output, slots)
        times.append(clock() - start)
    return max(min(times), SHORTEST_RUN)
