"""What a batch costs: a recurrent network's time is predictable, so it is measured and not configured."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bundle.ragged import RaggedBatch, offsets_of
from bundle.tokenizer import UNKNOWN_ID
from service.engine.engine import Engine, Output

REPEATS = 3


@dataclass(frozen=True, slots=True)
class CostModel:
    """Seconds of a batch of B rows padded to T steps: t(B, T) = fixed + per_step * T + per_cell * T * B."""

    fixed: float
    per_step: float
    per_cell: float

    def seconds(self, rows: int, steps: int) -> float:
        """Predicted time of a batch of `rows` rows padded to `steps` steps."""
        return self.fixed + self.per_step * steps + self.per_cell * steps * rows

    def shares(self, lengths: NDArray[np.int64], rows: int) -> NDArray[np.float64]:
        """Predicted time of sequences of `lengths`, each as its share of a batch of `rows` rows like itself."""
        return np.asarray(self.fixed / rows + (self.per_step / rows + self.per_cell) * lengths, dtype=np.float64)

    def scaled(self, factor: float) -> "CostModel":
        """The same shape, `factor` times as slow."""
        return CostModel(self.fixed * factor, self.per_step * factor, self.per_cell * factor)

    def company_is_cheap(self, steps: int) -> bool:
        """Whether a row that joins others like it costs at most a quarter of what it costs alone."""
        return self.per_cell * steps <= 0.25 * self.seconds(1, steps)

    @classmethod
    def fit(cls, measurements: Iterable[tuple[int, int, float]]) -> "CostModel":
        """Fit (rows, steps, seconds) by least squares on relative errors; no coefficient is negative."""
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
        return cls(*map(float, coefficients))


def profile(engine: Engine, output: Output, longest: int) -> CostModel:
    """Measure `engine` on a few shapes and fit their times; the fastest of three runs counts."""
    wide = engine.info.max_rows
    short, long = min(16, longest), min(64, longest)
    shapes = [(1, short), (1, long), (wide // 4, short), (wide // 4, long), (wide, short), (wide, long)]
    return CostModel.fit((rows, steps, _fastest(engine, output, rows, steps)) for rows, steps in shapes)


def _fastest(engine: Engine, output: Output, rows: int, steps: int) -> float:
    lengths = np.full(rows, steps, dtype=np.int64)
    batch = RaggedBatch(np.full(rows * steps, UNKNOWN_ID, dtype=np.int32), offsets_of(lengths))
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        engine.run(batch, output)
        times.append(time.perf_counter() - start)
    return min(times)
