"""What a test is asked to hold: objectives of a search (--slo) and thresholds of a run (--fail-if)."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from birnn_loadtest.check import Check
from birnn_loadtest.durations import duration, read_duration, read_number, read_share, share
from birnn_loadtest.histogram import needed
from birnn_loadtest.recorder import Interval, Recording

_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d{1,3})?)")
_OBJECTIVE = re.compile(r"\s*([a-z0-9.-]+)\s*=\s*(.+?)\s*")
_THRESHOLD = re.compile(r"\s*([a-z0-9.-]+)\s*(>=|<=|>|<)\s*(.+?)\s*")
_CROSSED: dict[str, Callable[[float, float], bool]] = {
    ">": lambda value, limit: value > limit,
    ">=": lambda value, limit: value >= limit,
    "<": lambda value, limit: value < limit,
    "<=": lambda value, limit: value <= limit,
}
# What can be asked of a run, how its limit is written, and how it is shown.
_DURATIONS = ("mean", "max", "lag")
_SHARES = ("errors", "goodput", "sequence-errors")
_NUMBERS = ("calls", "sequences", "wrong")
METRICS = f"p50 (any percentile), {', '.join((*_DURATIONS, *_SHARES, *_NUMBERS))}"


@dataclass(frozen=True, slots=True)
class Objective:
    """A limit that a share of all calls must keep.

    A call that failed, or was not sent, keeps no limit of latency: a server that refuses half of its calls is not fast.

    Attributes:
        metric: "p99", or any other percentile, or "errors".
        limit: Seconds for a percentile; a share for errors.
    """

    metric: str
    limit: float

    @classmethod
    def read(cls, text: str) -> "Objective":
        """From p99=20ms or errors=0.1%.

        Raises:
            ValueError: It is neither; says what to write.
        """
        match = _OBJECTIVE.fullmatch(text)
        metric = match[1] if match else ""
        if not match or (metric != "errors" and _percent(metric) is None):
            raise ValueError(f"{text!r} is not an objective; write p99=20ms (any percentile) or errors=0.1%")
        if metric == "errors" and not read_share(match[2]):
            raise ValueError(
                "errors=0% can never be shown, however long a test is; write a share above 0, such as 0.1%"
            )
        return cls(metric, read_share(match[2]) if metric == "errors" else read_duration(match[2]))

    @property
    def allowed(self) -> float:
        """Share of the calls that may miss the limit."""
        percent = _percent(self.metric)
        return self.limit if percent is None else 1 - percent / 100

    @property
    def needed(self) -> int:
        """Calls without which it cannot be shown to hold, even if none of them misses the limit."""
        return needed(100 * (1 - self.allowed))

    def missed(self, interval: Interval) -> int:
        """How many calls of an interval missed the limit."""
        return (
            interval.failed if self.metric == "errors" else interval.calls - interval.latency.count_within(self.limit)
        )

    def __str__(self) -> str:
        return f"{self.metric}={(share if self.metric == 'errors' else duration)(self.limit)}"


@dataclass(frozen=True, slots=True)
class Judgment:
    """What came of a threshold.

    Attributes:
        threshold: The threshold, in words.
        value: The value, in words.
        failed: Whether it makes the run fail.
    """

    threshold: str
    value: str
    failed: bool


@dataclass(frozen=True, slots=True)
class Threshold:
    """A limit that makes a run fail where it is crossed.

    Attributes:
        metric: One of `METRICS`.
        operator: When it fails: ">", ">=", "<" or "<=".
        limit: In seconds, a share, or a number.
    """

    metric: str
    operator: str
    limit: float

    @classmethod
    def read(cls, text: str) -> "Threshold":
        """From p99>50ms, errors>1% or calls<100.

        Raises:
            ValueError: It is none; says what to write.
        """
        match = _THRESHOLD.fullmatch(text)
        if not match:
            raise ValueError(f"{text!r} is not a threshold; write METRIC>LIMIT or METRIC<LIMIT, such as p99>50ms")
        metric, operator, limit = match.groups()
        if metric in _SHARES:
            return cls(metric, operator, read_share(limit))
        if metric in _NUMBERS:
            return cls(metric, operator, read_number(limit))
        if metric in _DURATIONS or _percent(metric) is not None:
            return cls(metric, operator, read_duration(limit))
        raise ValueError(f"{metric!r} is not measured; there are: {METRICS}")

    def judge(self, recording: Recording, check: Check | None, goodput: float | None) -> Judgment:
        """Whether a run crossed it. A value that too few calls support fails: it was asked for, and is not known."""
        value = measured(self.metric, recording, check, goodput)
        if value is not None:
            return Judgment(str(self), self._shown(value), _CROSSED[self.operator](value, self.limit))
        percent = _percent(self.metric)
        if percent is not None and recording.latency.count:
            few = f"unknown: {recording.latency.count:,} calls ended OK, {needed(percent):,} are needed"
        else:
            few = "unknown: no call ended OK"
        return Judgment(str(self), few, True)

    def _shown(self, value: float) -> str:
        if self.metric in _NUMBERS:
            return f"{value:,.6g}"
        return share(value) if self.metric in _SHARES else duration(value)

    def __str__(self) -> str:
        return f"{self.metric}{self.operator}{self._shown(self.limit)}"


def measured(metric: str, recording: Recording, check: Check | None, goodput: float | None) -> float | None:
    """The value of a metric of a run; None where there is none, or too few calls support it.

    Args:
        metric: One of `METRICS`.
        recording: What was recorded.
        check: What came of comparing replies; None where none were.
        goodput: The limit within which a call must be answered to count, in seconds.
    """
    latency = recording.latency
    match metric:
        case "mean":
            return latency.mean if latency.count else None
        case "max":
            return latency.maximum if latency.count else None
        case "lag":
            return recording.lag.percentile(99) if recording.lag.count else None
        case "errors":
            return recording.failed / recording.calls if recording.calls else None
        case "goodput":
            assert goodput is not None
            return latency.count_within(goodput) / recording.calls if recording.calls else None
        case "sequence-errors":
            answered = sum(packed.sequences for packed in recording.intervals.values())
            return recording.item_errors / answered if answered else None
        case "calls":
            return latency.count / recording.took
        case "sequences":
            return sum(packed.sequences for packed in recording.intervals.values()) / recording.took
        case "wrong":
            return float(check.wrong) if check is not None else None
    percent = _percent(metric)
    assert percent is not None
    return latency.supported(percent)


def _percent(metric: str) -> float | None:
    match = _PERCENTILE.fullmatch(metric)
    return float(match[1]) if match and float(match[1]) > 0 else None
