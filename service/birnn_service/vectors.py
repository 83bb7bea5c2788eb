"""Vectors as callers want them: of length 1, and as float32, float16 or int8. Pure functions on arrays.

They work on blocks of rows, so that their copies, in float64 too, take little memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Numbers of a block.
BLOCK = 1 << 18
# Integers of int8 go from minus this to this.
LARGEST_INTEGER = 127
# The largest scale times 127 is finite; that of the largest float32, rounded to nearest, would not be.
LARGEST_SCALE = np.nextafter(np.finfo(np.float32).max / np.float32(LARGEST_INTEGER), np.float32(0))


class ElementType(Enum):
    """What the numbers of a reply are; the names are those of the protocol, the values those of numpy."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"


@dataclass(frozen=True, slots=True, eq=False)
class Vectors:
    """Rows of one element type.

    Attributes:
        values: float32, float16 or int8 [n, D].
        scales: With int8 the factor of each row, float32 [n], NaN where a row has no numbers; else None.
        overflown: Positions of rows with a number beyond the range of their type, ascending [k]. What stands in these
            rows is of no use.
    """

    values: NDArray[Any]
    scales: NDArray[np.float32] | None
    overflown: NDArray[np.intp]

    def select(self, which: NDArray[np.intp] | NDArray[np.bool_]) -> "Vectors":
        """The rows at the given positions, none of which may be overflown."""
        scales = None if self.scales is None else self.scales[which]
        return Vectors(self.values[which], scales, _NONE)

    def clear(self, which: NDArray[np.intp] | NDArray[np.bool_]) -> None:
        """Make the rows at the given positions those of failed items: NaN, or zeros with a scale that is NaN."""
        if self.scales is None:
            self.values[which] = np.nan
        else:
            self.values[which] = 0
            self.scales[which] = np.nan


_NONE = np.empty(0, dtype=np.intp)


def normalized(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each row divided by its L2 norm, calculated in float64, where no square of a float32 over- or underflows.

    A row of zeros stays one. A row that holds NaN or an infinity has no direction, and becomes NaN.

    Args:
        values: float32 [n, D].

    Returns:
        float32 [n, D], each number within half a unit in the last place, and some 1e-15 of it, of the exact one.
    """
    result = np.empty(values.shape, dtype=np.float32)
    with np.errstate(invalid="ignore"):
        for block in _blocks(values):
            rows = values[block].astype(np.float64)
            norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
            norms[norms == 0] = 1.0
            norms[np.isinf(norms)] = np.nan
            np.divide(rows, norms[:, None], out=result[block], casting="same_kind")
    return result


def as_type(values: NDArray[np.float32], element_type: ElementType) -> Vectors:
    """Rows as numbers of another type.

    float16 is rounded to nearest; a row that would hold an infinity is `overflown`. int8 is explained at `_integers`.
    Rows of NaN stay what they are; see `Vectors.clear`.

    Args:
        values: float32 [n, D]; with FLOAT32 the result shares them.
        element_type: What the result is to hold.
    """
    if element_type is ElementType.FLOAT32:
        return Vectors(values, None, _NONE)
    if element_type is ElementType.INT8:
        return _integers(values)
    halves = np.empty(values.shape, dtype=np.float16)
    infinite = np.zeros(len(values), dtype=bool)
    with np.errstate(over="ignore"):
        for block in _blocks(values):
            halves[block] = values[block]
            # Exponent all ones and mantissa zero: numpy's own test for infinity takes ten times as long on float16.
            infinite[block] = ((halves[block].view(np.uint16) & 0x7FFF) == 0x7C00).any(axis=1)
    return Vectors(halves, None, np.flatnonzero(infinite))


def _integers(values: NDArray[np.float32]) -> Vectors:
    """Each row as integers q from -127 to 127 and a scale s, with |x - q s| <= s / 2, and 1e-5 s for rounding.

    s is max|x| / 127 as float32. Of subnormal numbers that may round to so little that max|x| is 127.5 s or more; then
    s is the next larger one. A row of zeros has scale 0. A row that holds NaN has zeros and a scale that is NaN, as has
    one that holds an infinity, which is `overflown`. 127 s is finite in float32.
    """
    integers = np.empty(values.shape, dtype=np.int8)
    largest = np.empty(len(values), dtype=np.float32)
    scales = np.empty(len(values), dtype=np.float32)
    with np.errstate(invalid="ignore"):
        for block in _blocks(values):
            rows = values[block]
            most = largest[block] = np.maximum(rows.max(axis=1), -rows.min(axis=1))
            scale = (most / np.float64(LARGEST_INTEGER)).astype(np.float32)
            small = (scale * np.float64(LARGEST_INTEGER + 0.5) <= most) & (most > 0)
            scale[small] = np.nextafter(scale[small], np.float32(np.inf))
            scales[block] = scale = np.where(np.isfinite(most), np.minimum(scale, LARGEST_SCALE), np.float32(np.nan))
            # Rows without a scale are divided by infinity, which makes zeros of all that is finite.
            quotients = rows / np.where(scale > 0, scale, np.float32(np.inf))[:, None]
            quotients[np.isnan(scale)] = 0.0
            integers[block] = np.rint(quotients, out=quotients)
    return Vectors(integers, scales, np.flatnonzero(np.isinf(largest)))


def _blocks(values: NDArray[Any]) -> Iterator[slice]:
    """Blocks of the rows of `values` [n, D]."""
    rows = max(1, BLOCK // max(1, values.shape[1]))
    return (slice(start, start + rows) for start in range(0, len(values), rows))
