"""A distribution of times in bounded memory, exact to three digits, which others' tools can read: an HdrHistogram."""

import math
import zlib
from collections.abc import Iterable

import numpy as np
from hdrh.codec import HdrCookieException, HdrLengthException
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

# Recorded in microseconds, from 1 us to 1 h.
UNIT = 1e-6
_MOST = 3_600_000_000
_DIGITS = 3
# Of the statement that a percentile lies below what is shown for it.
CONFIDENCE = 0.95
_values: NDArray[np.float64] | None = None


class Histogram:
    """How often which time occurred. Times are in seconds."""

    def __init__(self, text: str | None = None) -> None:
        """An empty one, or what `encoded` gave.

        Raises:
            ValueError: The text is something else.
        """
        self._hdr = HdrHistogram(1, _MOST, _DIGITS)
        if text is not None:
            try:
                self._hdr.decode_and_add(text.encode())
            except (HdrCookieException, HdrLengthException, zlib.error) as error:
                raise ValueError(f"not a histogram: {error}") from error

    def __reduce__(self) -> tuple[type["Histogram"], tuple[str]]:
        # What it is made of cannot be pickled, and travels between processes as text.
        return Histogram, (self.encoded(),)

    @classmethod
    def of(cls, seconds: Iterable[float]) -> "Histogram":
        """The distribution of some times."""
        histogram = cls()
        for value in seconds:
            histogram.record(value)
        return histogram

    @classmethod
    def merged(cls, histograms: Iterable["Histogram"]) -> "Histogram":
        """The distribution of the times of all."""
        total = cls()
        for histogram in histograms:
            total.add(histogram)
        return total

    def record(self, seconds: float) -> None:
        """Count a time. One below a microsecond counts as that, one above an hour as an hour."""
        self._hdr.record_value(min(max(round(seconds / UNIT), 1), _MOST))

    def add(self, other: "Histogram") -> None:
        """Count all times of another."""
        if other.count:
            self._hdr.add(other._hdr)

    @property
    def count(self) -> int:
        """How many times there are."""
        return int(self._hdr.get_total_count())

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many times lie in each bucket: int64 [buckets]."""
        return np.ctypeslib.as_array(self._hdr.counts).astype(np.int64)

    @property
    def mean(self) -> float:
        """Their mean; 0 where there are none."""
        counts = self.counts
        return float(counts @ bucket_tops() / counts.sum()) if self.count else 0.0

    @property
    def maximum(self) -> float:
        """The largest, to three digits; 0 where there are none."""
        return float(bucket_tops()[np.flatnonzero(self.counts)[-1]]) if self.count else 0.0

    def percentile(self, percent: float) -> float:
        """The smallest time that covers `percent` of all; there must be some."""
        counts = np.cumsum(self.counts)
        # A share of 99.9 % of 1,000 is 999, whatever binary fractions make of it.
        wanted = max(1, math.ceil(round(percent / 100 * self.count, 6)))
        return float(bucket_tops()[np.searchsorted(counts, wanted)])

    def supported(self, percent: float) -> float | None:
        """The percentile; None where there are too few times to say anything of it: see `needed`."""
        return self.percentile(percent) if self.count >= needed(percent) else None

    def count_within(self, limit: float) -> int:
        """How many times are at most `limit`; those in its own bucket count as above unless the limit covers it."""
        last = int(np.searchsorted(bucket_tops(), limit * (1 + 1e-9), side="right"))
        return int(self.counts[:last].sum())

    def encoded(self) -> str:
        """As text: base64 of a compressed V2 histogram, in microseconds."""
        return str(self._hdr.encode().decode())


def needed(percent: float, confidence: float = CONFIDENCE) -> int:
    """How many times are needed to say anything of a percentile.

    With fewer than this, all of them may lie below the true percentile with a probability above 1 - confidence: p^n
    must be at most that. 299 for p99, and 2,995 for p99.9.
    """
    return 1 if percent <= 0 else math.ceil(math.log(1 - confidence) / math.log(percent / 100))


def bucket_tops() -> NDArray[np.float64]:
    """The largest time in each bucket, in seconds: float64 [buckets]."""
    global _values
    if _values is None:
        hdr = HdrHistogram(1, _MOST, _DIGITS)
        _values = UNIT * np.array(
            [hdr.get_highest_equivalent_value(hdr.get_value_from_index(index)) for index in range(hdr.counts_len)],
            dtype=np.float64,
        )
    return _values
