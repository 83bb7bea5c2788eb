"""What a step of a search says about the objectives, and whether it says anything about the server at all."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from birnn_loadtest.confidence import bounds
from birnn_loadtest.durations import duration, share
from birnn_loadtest.objectives import Objective
from birnn_loadtest.recorder import NOT_SENT_LATE, Interval, Recording

# "unclear" is neither shown to hold nor shown to fail; "generator" says nothing of the server.
Word = Literal["holds", "fails", "unclear", "generator"]
WINDOWS = 20
# The generator may be late by this, or by a share of what is to be measured.
LATE_SECONDS = 0.002
LATE_SHARE = 0.1
# Share of a core above which a process is late by its own work.
BUSY = 0.7


@dataclass(frozen=True, slots=True)
class Bound:
    """What can be said of one objective.

    Attributes:
        objective: The objective.
        missed: Share of the calls that missed it.
        lower: The share is at least this, with the confidence asked for.
        upper: The share is at most this, with the confidence asked for.
    """

    objective: Objective
    missed: float
    lower: float
    upper: float

    def __str__(self) -> str:
        return (
            f"{self.objective}: {share(self.missed)} missed it, at most {share(self.upper)}; "
            f"{share(self.objective.allowed)} allowed"
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a step says.

    Attributes:
        word: In one word.
        reason: In words.
        bounds: Of each objective.
    """

    word: Word
    reason: str
    bounds: tuple[Bound, ...]


def verdict(recording: Recording, objectives: Sequence[Objective], confidence: float) -> Verdict:
    """Judge the calls of one step, or of several at the same rate."""
    windows = recording.windows(WINDOWS)
    found = tuple(_bound(objective, windows, confidence) for objective in objectives)
    failing = [bound for bound in found if bound.lower > bound.objective.allowed]
    late = lateness(recording, min((limit.limit for limit in objectives if limit.metric != "errors"), default=None))
    if late is not None and not any(_fails_anyway(bound.objective, recording, confidence) for bound in failing):
        return Verdict("generator", late, found)
    if failing:
        return Verdict("fails", "; ".join(map(str, failing)), found)
    open_ = [bound for bound in found if bound.upper > bound.objective.allowed]
    if open_:
        return Verdict("unclear", "; ".join(map(str, open_)), found)
    return Verdict("holds", "; ".join(map(str, found)), found)


def lateness(recording: Recording, limit: float | None = None) -> str | None:
    """How the generator rather than the server made a good part of the latency, in words; None where it did not.

    Args:
        recording: What was recorded.
        limit: The latency that matters, in seconds; by default the p99 that was measured.
    """
    if missed := recording.codes[NOT_SENT_LATE]:
        return f"{missed:,} calls were not sent, because the generator was later than their timeout"
    if not recording.lag.count or not recording.latency.count:
        return None
    lag = recording.lag.percentile(99)
    matters = recording.latency.percentile(99) if limit is None else limit
    if lag <= max(LATE_SECONDS, LATE_SHARE * matters):
        return None
    busiest = max(recording.cpu, default=0.0)
    hint = (
        "raise --processes, or lower the rate"
        if busiest > BUSY
        else "other work on its machine held it up: give it cores of its own"
    )
    return (
        f"the generator was late: p99 of its lag is {duration(lag)}, its busiest process took {share(busiest)} of a "
        f"core; {hint}"
    )


def _fails_anyway(objective: Objective, recording: Recording, confidence: float) -> bool:
    """Whether calls are too slow from when they were sent, even with all of the generator's lateness subtracted.

    A busy generator is late with sending a call and with reading its reply: by its lag, twice.
    """
    if objective.metric == "errors":
        return True
    allowance = objective.limit + 2 * recording.lag.percentile(99)
    sent = recording.service_time
    slow = sent.count - sent.count_within(allowance)
    return bounds([(slow, sent.count)], confidence)[0] > objective.allowed


def _bound(objective: Objective, windows: Sequence[Interval], confidence: float) -> Bound:
    counts = [(objective.missed(window), window.calls) for window in windows]
    missed, calls = (sum(column) for column in zip(*counts, strict=True)) if counts else (0, 0)
    return Bound(objective, missed / calls if calls else 0.0, *bounds(counts, confidence))
