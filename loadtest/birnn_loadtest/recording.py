"""What happened to every call of a load test, and the figures that follow from it.

A call's latency counts from the moment it was meant to be sent. Counted from the moment it was sent, calls that a
stalled server or a busy generator held back would look fast, and the stall would hardly show: coordinated omission
(Tene, "How NOT to measure latency").
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

OK = "OK"
# Not a gRPC code: the call was due, and the generator did not send it.
NOT_SENT = "NOT_SENT"
PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
# 20 buckets a decade, 10 us to 10,000 s: a bucket is 12% wide.
HISTOGRAM_EDGES = np.geomspace(1e-5, 1e4, 181)


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One call. Times are in seconds from the start of the test.

    Attributes:
        intended: When it was due.
        sent: When it was sent; the same as `finished` for NOT_SENT.
        finished: When the reply or the failure came.
        code: Name of the gRPC status, or NOT_SENT.
        sequences: Number of sequences it carried.
        item_errors: How many of them the server could not encode.
    """

    intended: float
    sent: float
    finished: float
    code: str
    sequences: int
    item_errors: int = 0


@dataclass(frozen=True, slots=True)
class Spread:
    """A distribution of times, in seconds.

    Attributes:
        count: Number of values.
        mean: Their mean.
        percentiles: From "p50" to "p99.9". Each is a value that occurred: the smallest that covers its share.
        maximum: The largest.
    """

    count: int
    mean: float
    percentiles: dict[str, float]
    maximum: float

    @classmethod
    def of(cls, seconds: NDArray[np.float64]) -> "Spread | None":
        """The distribution of these values; None where there are none."""
        if not len(seconds):
            return None
        values = np.percentile(seconds, PERCENTILES, method="inverted_cdf").tolist()
        names = [f"p{percentile:g}" for percentile in PERCENTILES]
        return cls(len(seconds), float(seconds.mean()), dict(zip(names, values, strict=True)), float(seconds.max()))


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of the calls that were due within the measured time.

    Attributes:
        seconds: Length of the measured time: as planned, or longer where answers came in after it.
        calls: How many were due.
        codes: How many ended with each code.
        sequences: How many sequences the calls carried.
        item_errors: How many of the answered sequences the server could not encode.
        offered_calls: Calls due per second.
        offered_sequences: Sequences due per second.
        achieved_calls: Calls answered per second.
        achieved_sequences: Sequences answered per second.
        latency: From due to answered, of the calls that ended OK.
        latency_all: From due to the end, of all calls that were sent: failures count with the time they took.
        service_time: From sent to answered, of the calls that ended OK. Far below `latency` where the generator was
            late; no measure of what a caller sees.
        lag: From due to sent: how late the generator was.
        histogram: Number of OK latencies between consecutive HISTOGRAM_EDGES.
    """

    seconds: float
    calls: int
    codes: dict[str, int]
    sequences: int
    item_errors: int
    offered_calls: float
    offered_sequences: float
    achieved_calls: float
    achieved_sequences: float
    latency: Spread | None
    latency_all: Spread | None
    service_time: Spread | None
    lag: Spread | None
    histogram: NDArray[np.int64]

    @property
    def succeeded(self) -> int:
        """Number of calls that ended OK."""
        return self.codes.get(OK, 0)

    @property
    def generator_was_late(self) -> bool:
        """Whether the generator rather than the server made a good part of the latency, or left calls out."""
        if NOT_SENT in self.codes:
            return True
        if self.lag is None or self.latency is None:
            return False
        # Event loops wake up to a millisecond late, whatever the load.
        return self.lag.percentiles["p99"] > max(0.002, 0.1 * self.latency.percentiles["p99"])


@dataclass(slots=True)
class Recording:
    """All calls of a test, in the order in which they ended."""

    calls: list[CallRecord] = field(default_factory=list)

    def figures(self, warmup: float, seconds: float) -> Figures:
        """The figures of the calls due between `warmup` and `warmup + seconds`; the others are left out."""
        due = [call for call in self.calls if warmup <= call.intended < warmup + seconds]
        good = [call for call in due if call.code == OK]
        sent = [call for call in due if call.code != NOT_SENT]
        finished = max((call.finished for call in good), default=0.0)
        took = max(seconds, finished - warmup)
        sequences = sum(call.sequences for call in due)
        latency = _seconds([call.finished - call.intended for call in good])
        return Figures(
            seconds=took,
            calls=len(due),
            codes=dict(Counter(call.code for call in due).most_common()),
            sequences=sequences,
            item_errors=sum(call.item_errors for call in due),
            offered_calls=len(due) / seconds,
            offered_sequences=sequences / seconds,
            achieved_calls=len(good) / took,
            achieved_sequences=sum(call.sequences for call in good) / took,
            latency=Spread.of(latency),
            latency_all=Spread.of(_seconds([call.finished - call.intended for call in sent])),
            service_time=Spread.of(_seconds([call.finished - call.sent for call in good])),
            lag=Spread.of(_seconds([call.sent - call.intended for call in due])),
            histogram=np.histogram(latency, HISTOGRAM_EDGES)[0].astype(np.int64),
        )


def _seconds(values: list[float]) -> NDArray[np.float64]:
    return np.array(values, dtype=np.float64)
