"""The few shapes [T, B] of batches to which a GPU engine rounds."""

from collections.abc import Iterator
from dataclasses import dataclass

# Steps are rounded to multiples of 8 up to 64, from there on to four sizes an octave.
LEAST_STEPS = 8
FINE_STEPS = 64
SIZES_AN_OCTAVE = 4
# A step costs the same for one row as for a few hundred, so that few sizes will do: 1, 4, 16, 64, 128, 256, ...
COARSE_ROWS = 64


@dataclass(frozen=True, slots=True)
class Grid:
    """Shapes of at most `max_rows` rows, `max_steps` steps and `max_cells` cells.

    Padding is what the grid costs: a third of the steps at most, of which cuDNN, told the true lengths, computes none.

    Attributes:
        max_rows: Most rows of a batch.
        max_steps: Most steps of a sequence.
        max_cells: Most cells, steps times rows, but for a single row.
    """

    max_rows: int
    max_steps: int
    max_cells: int

    def steps(self, longest: int) -> int:
        """Steps to which sequences of up to `longest` tokens are padded."""
        if longest <= FINE_STEPS:
            return max(LEAST_STEPS, -(-longest // LEAST_STEPS) * LEAST_STEPS)
        unit = (1 << (longest - 1).bit_length() - 1) // SIZES_AN_OCTAVE
        return -(-longest // unit) * unit

    def rows(self, rows: int) -> int:
        """Rows to which a batch of `rows` rows is filled up."""
        exponent = (rows - 1).bit_length()
        return 1 << (exponent if rows > COARSE_ROWS else exponent + exponent % 2)

    def rows_at(self, steps: int) -> int:
        """Most rows of a batch of `steps` steps, a size of the grid."""
        fitting = max(1, min(self.max_rows, self.max_cells // steps))
        size = self.rows(fitting)
        return size if size == fitting else self._smaller(size)

    def shapes(self) -> Iterator[tuple[int, int]]:
        """All shapes (T, B): those of short sequences first, and of each length the largest first."""
        steps = 0
        while steps < self.max_steps:
            steps = self.steps(steps + 1)
            rows = self.rows_at(steps)
            while rows > 0:
                yield steps, rows
                rows = self._smaller(rows)

    @staticmethod
    def _smaller(rows: int) -> int:
        """The next smaller size of the grid; 0 below 1."""
        return rows // (2 if rows > COARSE_ROWS else 4)
