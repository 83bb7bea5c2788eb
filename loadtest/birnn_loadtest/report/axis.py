"""Axes of charts: where values stand, and the round numbers that are written beside them."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

ROUND = (1.0, 2.0, 5.0, 10.0)
# Beyond this ratio of the largest value to the smallest, small ones could not be told apart on a linear axis.
WIDE = 20.0


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis of a chart.

    Attributes:
        ticks: Values with what is written beside them, in rising order.
        low: Value at its start.
        high: Value at its end.
        start: Where it starts, in the chart's units.
        end: Where it ends.
        transform: What is linear in the place: the value, or its logarithm.
    """

    ticks: tuple[tuple[float, str], ...]
    low: float
    high: float
    start: float
    end: float
    transform: Callable[[float], float]

    def place(self, value: float) -> float:
        """Where a value stands; at an end if it lies beyond."""
        low, high = self.transform(self.low), self.transform(self.high)
        share = (self.transform(min(max(value, self.low), self.high)) - low) / (high - low)
        return self.start + share * (self.end - self.start)


def fitting(values: Iterable[float], start: float, end: float) -> Axis:
    """A logarithmic axis if the values differ widely and are above 0, else a linear one from 0."""
    found = [value for value in values if math.isfinite(value)]
    if found and min(found) > 0 and max(found) / min(found) > WIDE:
        return logarithmic(min(found), max(found), start, end)
    return linear(max(found, default=1.0), start, end)


def linear(most: float, start: float, end: float, least: float = 0.0) -> Axis:
    """From 0, or from a `least` below it, to the next round number at or above `most`, with 3 to 7 ticks."""
    span = (most - least) or 1.0
    unit = 10 ** math.floor(math.log10(span / 5))
    step = next((factor * unit for factor in ROUND if span / (factor * unit) <= 5.001), 10 * unit)
    first, last = math.floor(least / step + 1e-9), math.ceil(most / step - 1e-9)
    last = max(last, first + 1)
    ticks = tuple((number * step, number_text(number * step)) for number in range(first, last + 1))
    return Axis(ticks, first * step, last * step, start, end, float)


def logarithmic(least: float, most: float, start: float, end: float) -> Axis:
    """From the round number at or below `least` to the one at or above `most`, both above 0."""
    low, high = math.floor(math.log10(least) + 1e-9), math.ceil(math.log10(most) - 1e-9)
    # Two and five as well where there is room for them.
    factors = (1.0, 2.0, 5.0) if math.log10(most / least) <= 3 else (1.0,)
    rounds = [factor * 10.0**power for power in range(low, high + 2) for factor in factors]
    first = max((value for value in rounds if value <= least * (1 + 1e-9)), default=rounds[0])
    last = next(value for value in rounds if value >= most * (1 - 1e-9) and value > first)
    inside = [value for value in rounds if first <= value <= last]
    every = math.ceil(len(inside) / 10)
    ticks = tuple((value, number_text(value)) for value in inside[::every])
    return Axis(ticks, first, last, start, end, math.log10)


def percentiles(count: int, start: float, end: float) -> Axis:
    """Of shares from 0 towards 1, so that each nine more takes as much room: HdrHistogram's 1 / (1 - share).

    Args:
        count: Number of values: the axis ends at the largest share that one value is above.
        start: Where it starts.
        end: Where it ends.
    """
    high = 1 - 1 / max(count, 3)
    shares = [0.0, 0.5, *(1 - 10.0**-power for power in range(1, 10))]
    ticks = tuple(
        (share, f"{100 * share:.{max(0, place - 3)}f} %") for place, share in enumerate(shares) if share <= high
    )
    return Axis(ticks, 0.0, high, start, end, lambda share: -math.log10(1 - share))


def number_text(value: float) -> str:
    """A number for reading with as many digits as it needs, at most three after its first: 0.25, 20, 1,914."""
    if not value:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{digits}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", "−")
