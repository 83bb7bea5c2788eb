"""A whole load test: one run, or the steps of a search."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime

from birnn_loadtest.arrivals import Process, Rate, Trace
from birnn_loadtest.check import Check
from birnn_loadtest.durations import duration, share
from birnn_loadtest.fleet import Fleet, Run
from birnn_loadtest.histogram import needed
from birnn_loadtest.objectives import Judgment, Objective, Threshold
from birnn_loadtest.recorder import Recording
from birnn_loadtest.search import Capacity, Search
from birnn_loadtest.server_metrics import MetricsSource, MetricsWatch, ServerSplit
from birnn_loadtest.verdict import Verdict, verdict

# Of a search: runs of a step that stays unclear, how much longer the confirming run is, and how much longer than
# --duration a step may become where its rate is low.
UNCLEAR_RUNS = 3
CONFIRMING = 2.0
LONGEST = 10.0


@dataclass(frozen=True, slots=True)
class Load:
    """The load of a test.

    Attributes:
        arrivals: When calls are due; None in a closed loop.
        warmup: Seconds before what is measured.
        seconds: Seconds measured.
        seed: Decides the calls.
        check: Whether to compare replies.
    """

    arrivals: Process | Trace | None
    warmup: float
    seconds: float
    seed: int
    check: bool


@dataclass(frozen=True, slots=True)
class SloSearch:
    """What a search looks for.

    Attributes:
        objectives: What must hold.
        confidence: With which it must hold.
        resolution: Share by which two rates must differ to be told apart.
        maximum: The highest rate tried.
    """

    objectives: Sequence[Objective]
    confidence: float
    resolution: float
    maximum: float

    @property
    def needed(self) -> int:
        """Calls that a step should have: twice those without which nothing can be shown."""
        return 2 * max(objective.needed for objective in self.objectives)


@dataclass(frozen=True, slots=True)
class StepResult:
    """A step of a search that has run.

    Attributes:
        rate: Calls per second.
        recording: What was recorded, of all its runs.
        verdict: What it says.
        confirming: Whether it was to confirm the result.
    """

    rate: float
    recording: Recording
    verdict: Verdict
    confirming: bool


@dataclass(slots=True)
class Outcome:
    """What a load test came to.

    Attributes:
        started: When it began.
        recording: Of the run; of a search, of the step that counts: the one that confirmed it, or the last.
        check: What came of comparing replies; None where none were.
        split: What the server measured meanwhile; None where it was not asked.
        judgments: What came of the thresholds.
        steps: Of a search.
        capacity: What a search found; None for a run, and for a search that was ended before its time.
    """

    started: datetime
    recording: Recording
    check: Check | None
    split: ServerSplit | None
    judgments: list[Judgment] = field(default_factory=list)
    steps: list[StepResult] = field(default_factory=list)
    capacity: Capacity | None = None

    @property
    def failures(self) -> list[str]:
        """Why the test failed, in words; empty where it did not."""
        found = [f"{one.threshold}: {one.value}" for one in self.judgments if one.failed]
        if self.check is not None and self.check.wrong:
            found.append(f"{self.check.wrong} of {self.check.compared} vectors compared are wrong")
        if not self.recording.calls:
            found.append("no call was due: raise --duration or --rate")
        return found


class SearchEndedError(Exception):
    """The user ended a search."""


class LoadTest:
    """Runs steps on a fleet.

    Args:
        fleet: The generator processes.
        load: What they send.
        source: The server's metrics; None where they are not asked for.
        tell: Where progress goes, line by line.
    """

    def __init__(self, fleet: Fleet, load: Load, source: MetricsSource | None, tell: Callable[[str], None]) -> None:
        self._fleet = fleet
        self._load = load
        self._source = source
        self._tell = tell

    def run(self, thresholds: Sequence[Threshold], goodput: float | None) -> Outcome:
        """One run.

        Raises:
            EncodeError: A generator process cannot go on.
        """
        load = self._load
        self._tell(f"running for {load.warmup + load.seconds:g} s ...")
        run, split = self._step(load)
        return self._outcome(run.started, run.recording, split, thresholds, goodput)

    def search(self, slo: SloSearch, thresholds: Sequence[Threshold], goodput: float | None) -> Outcome:
        """Search for the highest rate that holds the objectives; thresholds are for the run that confirms it.

        Raises:
            EncodeError: A generator process cannot go on.
        """
        process = self._load.arrivals
        assert isinstance(process, Process)
        steps: list[StepResult] = []
        runs: list[tuple[Run, ServerSplit | None]] = []

        def measure(rate: float, seed: int, confirming: bool) -> StepResult:
            step = self._search_step(slo, replace(process, rate=Rate(rate, rate)), seed, confirming, runs)
            steps.append(step)
            self._tell(f"step {len(steps)}{' (confirming)' if confirming else ''}: {_words(step)}")
            if self._fleet.interrupted:
                raise SearchEndedError
            return step

        capacity = None
        lowest = slo.needed / (LONGEST * self._load.seconds)
        with suppress(SearchEndedError):
            capacity = Search(measure, process.rate.start, slo.resolution, lowest, slo.maximum).run()
        run, split = runs[-1]
        recording = replace(steps[-1].recording, interrupted=bool(self._fleet.interrupted))
        outcome = self._outcome(run.started, recording, split, thresholds, goodput)
        outcome.steps, outcome.capacity = steps, capacity
        return outcome

    def _outcome(
        self,
        started: datetime,
        recording: Recording,
        split: ServerSplit | None,
        thresholds: Sequence[Threshold],
        goodput: float | None,
    ) -> Outcome:
        check = None
        if self._load.check and not self._fleet.interrupted:
            check = self._fleet.check()
        judgments = [one.judge(recording, check, goodput) for one in thresholds]
        return Outcome(started, recording, check, split, judgments)

    def _search_step(
        self,
        slo: SloSearch,
        arrivals: Process,
        seed: int,
        confirming: bool,
        runs: list[tuple[Run, ServerSplit | None]],
    ) -> StepResult:
        rate = arrivals.rate.start
        seconds = max(self._load.seconds, slo.needed / rate) * (CONFIRMING if confirming else 1.0)
        load = replace(self._load, arrivals=arrivals, seconds=seconds)
        recording, found = None, None
        # One confirming run says what it says; repeated until it does, it would confirm anything.
        for number in range(1 if confirming else UNCLEAR_RUNS):
            run, split = self._step(replace(load, seed=self._load.seed + 1000 * seed + number))
            runs.append((run, split))
            recording = run.recording if recording is None else recording.continued(run.recording)
            found = verdict(recording, slo.objectives, slo.confidence)
            if found.word != "unclear" or self._fleet.interrupted:
                break
        assert recording is not None
        assert found is not None
        return StepResult(rate, recording, found, confirming)

    def _step(self, load: Load) -> tuple[Run, ServerSplit | None]:
        watch = None if self._source is None else MetricsWatch(self._source, load.warmup, max(1.0, load.seconds / 100))
        with watch or nullcontext():
            run = self._fleet.run(load.arrivals, load.warmup, load.seconds, load.seed, sample=load.check)
        return run, None if watch is None else watch.split()


def _words(step: StepResult) -> str:
    recording, latency = step.recording, step.recording.latency
    p99 = duration(latency.percentile(99)) if latency.count >= needed(99) else "-"
    failed = share(recording.failed / recording.calls) if recording.calls else "-"
    word = {"generator": "says nothing of the server"}.get(step.verdict.word, step.verdict.word)
    figures = f"{step.rate:.4g} calls/s for {recording.seconds:.3g} s: p99 {p99}, {failed} failed"
    return f"{figures}: {word} ({step.verdict.reason})"
