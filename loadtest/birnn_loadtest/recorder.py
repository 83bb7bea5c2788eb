"""The outcomes of the calls of a test, in memory that does not grow with their number.

A call counts for the moment when it was due. Counted from the moment it was sent, calls that a stalled server or a busy
generator held back would look fast, and the stall would hardly show: coordinated omission (Tene, "How NOT to measure
latency").
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from birnn_bundle.quoting import one_line
from birnn_loadtest.histogram import Histogram

OK = "OK"
# Of calls that were due and never sent: too many were under way, or the generator was too late.
NOT_SENT_FULL = "NOT_SENT_FULL"
NOT_SENT_LATE = "NOT_SENT_LATE"
# Of calls that were under way when the test was ended before its time.
GIVEN_UP = "GIVEN_UP"
NOT_SENT = (NOT_SENT_FULL, NOT_SENT_LATE)
# Kept apart; what comes beyond them counts together.
MOST_CODES = 50
MOST_CLASSES = 32
OTHER = "other"
MOST_INTERVALS = 3600
_OPEN = 32


@dataclass(slots=True)
class Interval:
    """The calls that were due within some seconds of a test.

    Attributes:
        calls: How many were due.
        failed: How many of them did not end OK, whether sent or not.
        sequences: Sequences of those that ended OK.
        latency: From due to answered, of those that ended OK.
    """

    calls: int = 0
    failed: int = 0
    sequences: int = 0
    latency: Histogram = field(default_factory=Histogram)

    def add(self, other: "Interval") -> None:
        """Count the calls of another."""
        self.calls += other.calls
        self.failed += other.failed
        self.sequences += other.sequences
        self.latency.add(other.latency)

    def packed(self) -> "PackedInterval":
        """The same in little memory."""
        return PackedInterval(self.calls, self.failed, self.sequences, self.latency.encoded())


@dataclass(frozen=True, slots=True)
class PackedInterval:
    """An interval whose histogram is text."""

    calls: int
    failed: int
    sequences: int
    latency: str

    def unpacked(self) -> Interval:
        """As an interval."""
        return Interval(self.calls, self.failed, self.sequences, Histogram(self.latency))


@dataclass(slots=True)
class Recording:
    """What a generator process saw, or several together.

    Attributes:
        warmup: Seconds before what is measured.
        seconds: Seconds measured.
        interval: Length of an interval, in seconds.
        intervals: By number, those in which calls were due.
        codes: How many calls ended with each code.
        messages: What the first call that ended with each code was told.
        sequences_due: Sequences of all calls due.
        item_errors: Sequences of answered calls that the server could not encode.
        last: When the last call that ended OK was answered, in seconds from the start.
        latency: From due to answered, of calls that ended OK.
        latency_all: From due to the end, of all calls sent.
        service_time: From sent to answered, of calls that ended OK. No measure of what a caller sees.
        lag: From due to sent: how late the generator was.
        classes: Latency of calls that ended OK, by encoder and number of sequences.
        cpu: Seconds of CPU of each process divided by the time that it ran.
        interrupted: Whether it was ended before its time.
    """

    warmup: float
    seconds: float
    interval: float
    intervals: dict[int, PackedInterval] = field(default_factory=dict)
    codes: Counter[str] = field(default_factory=Counter)
    messages: dict[str, str] = field(default_factory=dict)
    sequences_due: int = 0
    item_errors: int = 0
    last: float = 0.0
    latency: Histogram = field(default_factory=Histogram)
    latency_all: Histogram = field(default_factory=Histogram)
    service_time: Histogram = field(default_factory=Histogram)
    lag: Histogram = field(default_factory=Histogram)
    classes: dict[str, Histogram] = field(default_factory=dict)
    cpu: list[float] = field(default_factory=list)
    interrupted: bool = False

    @classmethod
    def merged(cls, recordings: Iterable["Recording"]) -> "Recording":
        """What several processes saw of one test; there must be at least one."""
        first, *others = recordings
        total = cls(first.warmup, first.seconds, first.interval)
        for recording in (first, *others):
            total._add(recording)
        return total

    @property
    def calls(self) -> int:
        """How many calls were due."""
        return self.codes.total()

    @property
    def failed(self) -> int:
        """How many of them did not end OK."""
        return self.calls - self.codes[OK]

    @property
    def took(self) -> float:
        """Seconds in which the calls that ended OK were answered: as planned, or longer where answers came later."""
        return max(self.seconds, self.last - self.warmup)

    def continued(self, other: "Recording") -> "Recording":
        """This one and another of the same load after it, as if they were one longer test."""
        shift = max(self.intervals, default=-1) + 1
        later = replace(
            other,
            intervals={number + shift: packed for number, packed in other.intervals.items()},
            last=0.0,
        )
        both = Recording.merged([self, later])
        both.seconds = self.seconds + other.seconds
        both.last = both.warmup + self.took + other.took
        both.cpu = [max(pair) for pair in zip(self.cpu, other.cpu, strict=True)]
        return both

    def windows(self, most: int) -> list[Interval]:
        """Neighboring intervals together, in at most `most` windows of about the same length."""
        numbers = sorted(self.intervals)
        if not numbers:
            return []
        count = numbers[-1] + 1
        size = math.ceil(count / most)
        windows = [Interval() for _ in range(math.ceil(count / size))]
        for number in numbers:
            windows[number // size].add(self.intervals[number].unpacked())
        return windows

    def _add(self, other: "Recording") -> None:
        for number, packed in other.intervals.items():
            if (here := self.intervals.get(number)) is None:
                self.intervals[number] = packed
            else:
                both = here.unpacked()
                both.add(packed.unpacked())
                self.intervals[number] = both.packed()
        self.codes += other.codes
        self.messages = other.messages | self.messages
        self.sequences_due += other.sequences_due
        self.item_errors += other.item_errors
        self.last = max(self.last, other.last)
        for name in ("latency", "latency_all", "service_time", "lag"):
            getattr(self, name).add(getattr(other, name))
        for name, histogram in other.classes.items():
            self.classes.setdefault(name, Histogram()).add(histogram)
        self.cpu += other.cpu
        self.interrupted |= other.interrupted


class Recorder:
    """Counts calls as they end. Those due in the warm-up are left out.

    Args:
        warmup: Seconds before what is measured.
        seconds: Seconds measured.
    """

    def __init__(self, warmup: float, seconds: float) -> None:
        self._recording = Recording(warmup, seconds, float(math.ceil(seconds / MOST_INTERVALS)))
        # Those that calls still end in; the others are packed.
        self._open: dict[int, Interval] = {}

    def record(
        self, kind: str, due: float, sent: float, ended: float, code: str, sequences: int, item_errors: int = 0
    ) -> None:
        """Count a call; times are in seconds from the start of the test.

        Args:
            kind: Its encoder and number of sequences, in words.
            due: When it was to be sent.
            sent: When it was; the same as `ended` for one that was not.
            ended: When its reply or failure came.
            code: OK, one of NOT_SENT, or what the protocol calls the failure.
            sequences: How many it carried.
            item_errors: How many of them the server could not encode.
        """
        recording = self._recording
        if not recording.warmup <= due < recording.warmup + recording.seconds:
            return
        if code not in recording.codes and len(recording.codes) >= MOST_CODES:
            code = OTHER
        recording.codes[code] += 1
        recording.sequences_due += sequences
        recording.lag.record(sent - due)
        interval = self._interval(int((due - recording.warmup) / recording.interval))
        interval.calls += 1
        if code not in NOT_SENT:
            recording.latency_all.record(ended - due)
        if code != OK:
            interval.failed += 1
            return
        interval.sequences += sequences
        interval.latency.record(ended - due)
        recording.latency.record(ended - due)
        recording.service_time.record(ended - sent)
        recording.item_errors += item_errors
        recording.last = max(recording.last, ended)
        if kind not in recording.classes and len(recording.classes) >= MOST_CLASSES:
            kind = OTHER
        recording.classes.setdefault(kind, Histogram()).record(ended - due)

    def note(self, code: str, message: str) -> None:
        """Keep the first message of each code."""
        messages = self._recording.messages
        if code not in messages and len(messages) < MOST_CODES:
            messages[code] = one_line(message, 300)

    def finished(self, cpu: float, interrupted: bool = False) -> Recording:
        """All that was recorded; ends the recording."""
        while self._open:
            self._pack(next(iter(self._open)))
        self._recording.cpu.append(cpu)
        self._recording.interrupted = interrupted
        return self._recording

    def _interval(self, number: int) -> Interval:
        interval = self._open.get(number)
        if interval is None:
            if len(self._open) >= _OPEN:
                self._pack(min(self._open))
            packed = self._recording.intervals.pop(number, None)
            interval = self._open[number] = Interval() if packed is None else packed.unpacked()
        return interval

    def _pack(self, number: int) -> None:
        self._recording.intervals[number] = self._open.pop(number).packed()
