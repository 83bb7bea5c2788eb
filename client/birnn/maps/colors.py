"""The colors of a map: a scale for numbers, a legend for categories."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MOST_CATEGORIES = 9
OTHERS = "others"


@dataclass(frozen=True)
class Scale:
    """A color scale for numbers. Numbers outside `low` and `high` (2% of the points) get the color of that end."""

    low: float
    high: float
    values: list[float | None]


@dataclass(frozen=True)
class Legend:
    """Categories, the most frequent first, and the index of the category of each point."""

    categories: list[str]
    values: list[int | None]


def colors(values: Sequence[Any]) -> Scale | Legend | None:
    """Choose the colors of the points.

    Args:
        values: The value of each point. None or "" if it has none.

    Returns:
        A scale if all values are numbers, otherwise a legend. None if there is nothing to show.
    """
    present = [value for value in values if value is not None and value != ""]
    if not present:
        return None
    numbers = [_number(value) for value in values]
    if all(_number(value) is not None for value in present):
        finite = [number for number in numbers if number is not None and math.isfinite(number)]
        if not finite:
            return None
        low, high = np.percentile(finite, [1, 99]).tolist()
        kept = [number if number is not None and math.isfinite(number) else None for number in numbers]
        return Scale(low, high if high > low else low + 1.0, kept)
    counts = Counter(map(str, present))
    common = [name for name, _ in counts.most_common(MOST_CATEGORIES)]
    categories = common if len(counts) <= MOST_CATEGORIES else [*common, OTHERS]
    place = {name: number for number, name in enumerate(common)}
    return Legend(
        categories,
        [None if value is None or value == "" else place.get(str(value), len(common)) for value in values],
    )


def _number(value: Any) -> float | None:
    if value is None or isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
