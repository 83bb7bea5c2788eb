"""When calls are due: decided before the first is sent, and never by how the server does."""

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from birnn_loadtest.durations import read_number

Gaps = Literal["poisson", "constant", "gamma"]
GAPS: tuple[Gaps, ...] = get_args(Gaps)
BLOCK = 4096
MOST_TRACED = 5_000_000
MOST_BATCH = 16_384


@dataclass(frozen=True, slots=True)
class Rate:
    """Calls per second over the time of a test: one number, or a straight line from one to another.

    Attributes:
        start: At the beginning, above 0.
        end: At the end, above 0; the same for a rate that does not change.
    """

    start: float
    end: float

    @classmethod
    def read(cls, text: str) -> "Rate":
        """From 50, or 10..200 for a ramp.

        Raises:
            ValueError: It is neither.
        """
        start, ramp, end = text.partition("..")
        try:
            rate = cls(read_number(start), read_number(end) if ramp else read_number(start))
        except ValueError:
            rate = cls(0, 0)
        if rate.start <= 0 or rate.end <= 0:
            raise ValueError(
                f"{text!r} is not a rate; write calls per second above 0, such as 50, or 10..200 for a ramp"
            )
        return rate

    @property
    def steady(self) -> bool:
        """Whether it never changes."""
        return self.start == self.end

    @property
    def mean(self) -> float:
        """The mean over the time that is measured."""
        return (self.start + self.end) / 2

    def times(self, counts: NDArray[np.float64], hold: float, seconds: float) -> NDArray[np.float64]:
        """When the expected number of calls reaches each of `counts`; infinite where it never does.

        Args:
            counts: float64 [n].
            hold: Seconds at the start rate, before the line begins.
            seconds: Seconds from one end of the line to the other.
        """
        before = counts / self.start
        slope = (self.end - self.start) / seconds
        rest = np.maximum(counts - self.start * hold, 0.0)
        # The root of start t + slope t^2 / 2 = rest, in the form that is exact for a slope of 0.
        inside = self.start**2 + 2 * slope * rest
        with np.errstate(invalid="ignore"):
            after = np.where(inside < 0, math.inf, hold + 2 * rest / (self.start + np.sqrt(inside)))
        # Rounding must not put two calls in the wrong order.
        return np.maximum.accumulate(np.where(before <= hold, before, after))

    def __str__(self) -> str:
        return f"{self.start:g}" if self.steady else f"{self.start:g}..{self.end:g}"


@dataclass(frozen=True, slots=True)
class Process:
    """Random arrivals at a rate.

    Attributes:
        rate: Calls per second.
        gaps: How the time from call to call varies: "poisson" as with independent callers, "constant" not at all,
            "gamma" in bursts.
        burstiness: Of "gamma", the squared coefficient of variation of the gaps: 1 is Poisson, above 1 bursts.
    """

    rate: Rate
    gaps: Gaps = "poisson"
    burstiness: float = 1.0

    def blocks(self, warmup: float, seconds: float, seed: int) -> Iterator[NDArray[np.float64]]:
        """Arrivals in ascending order, block by block: float64 [n], seconds from the start, below warmup + seconds.

        Time is stretched so that unit arrivals come at the rate. The same seed gives the same arrivals, and a longer
        test at a steady rate begins with those of a shorter one.

        Args:
            warmup: Seconds before what is measured, at the start rate.
            seconds: Seconds measured.
            seed: Anything from 0.
        """
        random = np.random.default_rng([seed, 0])
        count = 0.0
        while True:
            counts = count + np.cumsum(self._gaps(random))
            times = self.rate.times(counts, warmup, seconds)
            inside = times[times < warmup + seconds]
            if len(inside):
                yield inside
            if len(inside) < len(times):
                return
            count = float(counts[-1])

    def _gaps(self, random: np.random.Generator) -> NDArray[np.float64]:
        match self.gaps:
            case "poisson":
                return random.exponential(1.0, BLOCK)
            case "constant":
                return np.ones(BLOCK)
            case "gamma":
                return random.gamma(1 / self.burstiness, self.burstiness, BLOCK)

    def __str__(self) -> str:
        gaps = f"gamma (burstiness {self.burstiness:g})" if self.gaps == "gamma" else self.gaps
        return f"{self.rate} calls/s, {gaps}"


class TraceError(ValueError):
    """A recorded trace cannot be read; says where and why."""


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Calls that were recorded, to be sent again at their own times.

    Attributes:
        name: The file.
        times: When each was made, in seconds from the first: float64 [n], ascending.
        encoders: The encoder of each; None where the trace does not say.
        batches: Number of sequences of each: int64 [n]; None where it does not say.
    """

    name: str
    times: NDArray[np.float64]
    encoders: list[str] | None
    batches: NDArray[np.int64] | None

    @classmethod
    def read(cls, path: Path, speed: float = 1.0) -> "Trace":
        """Read a .csv file with the columns `seconds` and, where wanted, `encoder` and `batch`.

        Args:
            path: The file.
            speed: How many times as fast to replay it.

        Raises:
            TraceError: It cannot be read.
        """
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.DictReader(file)
                columns = reader.fieldnames or []
                if "seconds" not in columns:
                    raise TraceError(
                        f"{path}: a trace is a .csv file whose first line names its columns: seconds, and where wanted "
                        "encoder and batch"
                    )
                rows = [_row(path, reader.line_num, row, columns) for row in reader]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise TraceError(f"{path}: cannot be read: {error}") from error
        if not rows:
            raise TraceError(f"{path}: holds no call")
        if len(rows) > MOST_TRACED:
            raise TraceError(f"{path}: {len(rows):,} calls are more than the {MOST_TRACED:,} of a trace at most")
        rows.sort(key=lambda row: row[0])
        times = np.array([row[0] for row in rows])
        return cls(
            str(path),
            (times - times[0]) / speed,
            [row[1] for row in rows] if "encoder" in columns else None,
            np.array([row[2] for row in rows]) if "batch" in columns else None,
        )

    @property
    def seconds(self) -> float:
        """From the first call to just after the last."""
        return math.nextafter(float(self.times[-1]), math.inf)

    def __str__(self) -> str:
        return f"{len(self.times):,} calls of {self.name}"


def _row(path: Path, line: int, row: dict[str, str], columns: Sequence[str]) -> tuple[float, str, int]:
    try:
        seconds = float(row["seconds"])
        batch = int(row["batch"]) if "batch" in columns else 1
        if not math.isfinite(seconds) or not 1 <= batch <= MOST_BATCH:
            raise ValueError
        return seconds, (row["encoder"] or "") if "encoder" in columns else "", batch
    except (TypeError, ValueError) as error:
        raise TraceError(
            f"{path}: line {line}: seconds must be a number, and batch a number from 1 to {MOST_BATCH}"
        ) from error
