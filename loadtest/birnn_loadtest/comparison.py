"""How two runs differ, and which differences are more than the noise within the runs.

Calls made at the same moment tend to be slow together, so they cannot be resampled one by one. Each run is cut into at
most 40 windows of equal length. Windows are resampled with replacement, 2,000 times for each run (bootstrap; Efron and
Tibshirani, 1993). The interval of a difference holds 99 % of the differences between resampled runs. It is 99 % because
several figures are compared at once.

This is the noise within the runs. It does not include what changes between runs, such as the state of the machine. Only
repeated runs show that.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from birnn_loadtest.histogram import bucket_tops, needed
from birnn_loadtest.recorder import Interval

MOST_WINDOWS = 40
# With fewer, the windows drawn say little of how windows vary.
FEWEST_WINDOWS = 10
DRAWS = 2000
CONFIDENCE = 0.99
PERCENTILES = (50.0, 90.0, 99.0, 99.9)
_AT_ONCE = 100

Verdict = Literal["lower", "higher", "within noise", "unknown"]


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure of two runs.

    Attributes:
        name: What it is: "mean", a percentile such as "p99", "calls" (answered per second) or "failed" (a share).
        before: In the first run; None where too few calls support it.
        after: In the second run.
        low: The difference is at least this, with 99 % confidence; None if there is too little data to say.
        high: The difference is at most this.
    """

    name: str
    before: float | None
    after: float | None
    low: float | None
    high: float | None

    @property
    def verdict(self) -> Verdict:
        """Whether the second run is beyond noise."""
        if self.low is None or self.high is None:
            return "unknown"
        return "higher" if self.low > 0 else "lower" if self.high < 0 else "within noise"

    @property
    def ratio(self) -> tuple[float, float, float] | None:
        """The difference and its bounds as shares of the first run's figure; None without these."""
        if not self.before or self.after is None or self.low is None or self.high is None:
            return None
        return (self.after - self.before) / self.before, self.low / self.before, self.high / self.before


class Windows:
    """A run in windows.

    Args:
        windows: In order of time, of the same length.
        seconds: Length of all together.
    """

    def __init__(self, windows: Sequence[Interval], seconds: float) -> None:
        self.count = len(windows)
        self._seconds = seconds / max(len(windows), 1)
        counts = np.array([window.latency.counts for window in windows]).reshape(len(windows), len(bucket_tops()))
        filled = np.flatnonzero(counts.sum(0))
        # [windows, times], of the times that occur.
        self._counts = counts[:, filled].astype(np.float64)
        self._times = bucket_tops()[filled]
        self._calls = np.array([[window.calls, window.failed] for window in windows], np.float64).reshape(-1, 2)

    def figures(self) -> dict[str, float | None]:
        """By name, of the whole run."""
        if not self.count:
            return {}
        answered = int(self._counts.sum())
        found = self._of(np.ones((1, self.count)))
        return {name: value for name, value in
                ((name, float(values[0]) if _supported(name, answered) else None) for name, values in found.items())
                if value is None or math.isfinite(value)}  # fmt: skip

    def drawn(self, seed: int) -> dict[str, NDArray[np.float64]]:
        """By name, of runs whose windows were drawn from this one's: float64 [draws]."""
        often = np.random.default_rng(seed).multinomial(self.count, [1 / self.count] * self.count, DRAWS)
        parts = [self._of(often[place : place + _AT_ONCE].astype(np.float64)) for place in range(0, DRAWS, _AT_ONCE)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _of(self, often: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Figures where each window counts so many times: [draws, windows] to float64 [draws] by name."""
        counts = often @ self._counts
        below = np.cumsum(counts, axis=1)
        answered = counts.sum(1)
        calls, failed = (often @ self._calls).T
        with np.errstate(invalid="ignore", divide="ignore"):
            found = {"mean": counts @ self._times / answered}
            for percent in PERCENTILES:
                wanted = np.maximum(1, np.ceil(np.round(percent / 100 * answered, 6)))
                # Places of the first times that cover so many; the last for a run without answers, which has none.
                places = np.minimum((below < wanted[:, None]).sum(1), max(len(self._times) - 1, 0))
                found[f"p{percent:g}"] = self._times[places] if len(self._times) else np.full(len(often), np.nan)
            found["calls"] = answered / (often.sum(1) * self._seconds)
            found["failed"] = failed / calls
        return found


def compare(before: Windows, after: Windows) -> list[Difference]:
    """The figures of two runs, with bounds of their differences where both have at least 10 windows."""
    first, second = before.figures(), after.figures()
    enough = min(before.count, after.count) >= FEWEST_WINDOWS
    # Different seeds: the runs are independent of each other.
    draws = (before.drawn(0), after.drawn(1)) if enough else None
    differences = []
    for name in first | second:
        low = high = None
        one, other = first.get(name), second.get(name)
        if draws is not None and one is not None and other is not None:
            spread = draws[1][name] - draws[0][name]
            # A drawn run in which no call was answered has no latency. If that is common, there are no bounds.
            if (known := spread[np.isfinite(spread)]).size > 0.99 * spread.size:
                tail = (1 - CONFIDENCE) / 2
                low, high = (float(bound) for bound in np.quantile(known, [tail, 1 - tail]))
        differences.append(Difference(name, one, other, low, high))
    return differences


def _supported(name: str, answered: int) -> bool:
    if name[0] != "p":
        return name != "mean" or answered > 0
    return answered >= needed(float(name[1:]))
