"""The result of a load test as JSON, with all that is needed to repeat and to judge it."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from birnn_loadtest.histogram import Histogram
from birnn_loadtest.load_test import Outcome, SloSearch, StepResult
from birnn_loadtest.machine import Machine
from birnn_loadtest.recorder import Interval, Recording
from birnn_loadtest.server_metrics import Buckets, ServerSplit
from birnn_loadtest.settings import Settings
from birnn_loadtest.verdict import lateness
from birnn_loadtest.worker import Opened

SCHEMA_VERSION = 2
PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9, 99.99)
EXIT_OK, EXIT_FAILED, EXIT_ERROR, EXIT_GENERATOR, EXIT_INTERRUPTED = 0, 1, 3, 4, 130


@dataclass(frozen=True, slots=True)
class Result:
    """A load test that has run.

    Attributes:
        settings: What was asked for.
        slo: What was searched for; None for a run.
        machine: Where the load came from.
        opened: What the server says of itself.
        outcome: What came of it.
    """

    settings: Settings
    slo: SloSearch | None
    machine: Machine
    opened: Opened
    outcome: Outcome

    @property
    def exit_code(self) -> int:
        """What the command ends with."""
        outcome = self.outcome
        if outcome.recording.interrupted:
            return EXIT_INTERRUPTED
        if outcome.failures:
            return EXIT_FAILED
        if outcome.capacity is not None and outcome.capacity.limit == "generator":
            return EXIT_GENERATOR
        if outcome.capacity is not None and not outcome.capacity.confirmed:
            return EXIT_FAILED
        return EXIT_OK

    def to_json(self) -> dict[str, Any]:
        """The result as JSON data; times in seconds, rates per second; histograms are HdrHistogram V2, in us."""
        outcome, opened = self.outcome, self.opened
        return {
            "schema_version": SCHEMA_VERSION,
            "started": outcome.started.isoformat(timespec="seconds"),
            "interrupted": outcome.recording.interrupted,
            "failures": outcome.failures,
            "settings": asdict(self.settings),
            "client": {
                **self.machine.to_json(),
                "event_loop": opened.event_loop,
                "timer": "timerfd" if opened.precise_timer else "event loop",
            },
            "server": opened.server,
            "encoders": [asdict(served) for served in opened.served],
            "run": _recording(outcome.recording, self.settings.goodput),
            "check": None if outcome.check is None else asdict(outcome.check),
            "server_metrics": None if outcome.split is None else _split(outcome.split),
            "thresholds": [asdict(judgment) for judgment in outcome.judgments],
            "search": None if self.slo is None else self._search(self.slo),
        }

    def _search(self, slo: SloSearch) -> dict[str, Any]:
        capacity = self.outcome.capacity
        return {
            "objectives": [str(objective) for objective in slo.objectives],
            "limits": [asdict(objective) for objective in slo.objectives],
            "confidence": slo.confidence,
            "resolution": slo.resolution,
            "max_rate": slo.maximum,
            "capacity": None if capacity is None else asdict(capacity),
            "steps": [_step(step) for step in self.outcome.steps],
        }


def spread(histogram: Histogram) -> dict[str, Any] | None:
    """Figures of a distribution; None for a percentile that too few values support, and for no values at all."""
    if not histogram.count:
        return None
    return {
        "count": histogram.count,
        "mean": histogram.mean,
        **{f"p{percent:g}": histogram.supported(percent) for percent in PERCENTILES},
        "max": histogram.maximum,
        "histogram": histogram.encoded(),
    }


def _recording(recording: Recording, goodput: float | None) -> dict[str, Any]:
    answered = sum(packed.sequences for packed in recording.intervals.values())
    within = None if goodput is None else recording.latency.count_within(goodput)
    return {
        "seconds": recording.seconds,
        "took": recording.took,
        "calls": recording.calls,
        "failed": recording.failed,
        "codes": dict(recording.codes.most_common()),
        "messages": recording.messages,
        "sequences": recording.sequences_due,
        "sequence_errors": recording.item_errors,
        "offered": {
            "calls": recording.calls / recording.seconds,
            "sequences": recording.sequences_due / recording.seconds,
        },
        "achieved": {"calls": recording.latency.count / recording.took, "sequences": answered / recording.took},
        "goodput": None
        if within is None
        else {"calls": within / recording.seconds, "share": _ratio(within, recording.calls)},
        "latency": spread(recording.latency),
        "latency_all": spread(recording.latency_all),
        "service_time": spread(recording.service_time),
        "lag": spread(recording.lag),
        "classes": {name: spread(histogram) for name, histogram in sorted(recording.classes.items())},
        "generator_cpu": recording.cpu,
        "generator_late": lateness(recording),
        "interval": recording.interval,
        "intervals": [_interval(number, recording, goodput) for number in sorted(recording.intervals)],
    }


def _interval(number: int, recording: Recording, goodput: float | None) -> dict[str, Any]:
    packed = recording.intervals[number]
    interval: Interval = packed.unpacked()
    latency = interval.latency
    return {
        "start": number * recording.interval,
        "calls": interval.calls,
        "failed": interval.failed,
        "sequences": interval.sequences,
        "good": None if goodput is None else latency.count_within(goodput),
        # Of one interval: what too few calls support would be noise in a chart as well.
        **{f"p{percent:g}": latency.supported(percent) for percent in (50.0, 95.0, 99.0)},
        "max": latency.maximum if latency.count else None,
        "latency": packed.latency,
    }


def _step(step: StepResult) -> dict[str, Any]:
    recording = step.recording
    figures = spread(recording.latency)
    return {
        "rate": step.rate,
        "seconds": recording.seconds,
        "confirming": step.confirming,
        "verdict": step.verdict.word,
        "reason": step.verdict.reason,
        "bounds": [
            {
                "objective": str(bound.objective),
                "missed": bound.missed,
                "lower": bound.lower,
                "upper": bound.upper,
                "allowed": bound.objective.allowed,
            }
            for bound in step.verdict.bounds
        ],
        "calls": recording.calls,
        "failed": recording.failed,
        "codes": dict(recording.codes.most_common()),
        "achieved": recording.latency.count / recording.took,
        "latency": figures,
        "lag": spread(recording.lag),
        "generator_cpu": recording.cpu,
    }


def _split(split: ServerSplit) -> dict[str, Any]:
    return {
        "stages": {
            stage: {"what": split.names.stages[stage].words, **_buckets(buckets)}
            for stage, buckets in split.stages.items()
        },
        "rest": split.rest,
        "batches": None if split.batches is None else _buckets(split.batches),
        "counters": split.counters,
        "waiting": split.waiting,
        "missing": split.missing,
        "problems": split.problems,
    }


def _buckets(buckets: Buckets) -> dict[str, Any]:
    bounds = sorted(buckets.counts)
    return {
        "count": buckets.count,
        "mean": buckets.mean,
        "p50": buckets.percentile(50),
        "p99": buckets.percentile(99),
        # JSON has no infinity: the last bucket, without an upper bound, is null.
        "buckets": [[None if math.isinf(bound) else bound, buckets.counts[bound]] for bound in bounds],
    }


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
