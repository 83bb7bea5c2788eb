"""The result of a load test for reading in a terminal."""

from collections.abc import Iterator

from birnn_loadtest.durations import duration, share
from birnn_loadtest.histogram import Histogram, needed
from birnn_loadtest.recorder import NOT_SENT_FULL, OK, Recording
from birnn_loadtest.result import Result
from birnn_loadtest.server_metrics import ServerSplit
from birnn_loadtest.verdict import lateness

SHOWN = (50.0, 90.0, 95.0, 99.0, 99.9)
MOST_CLASSES = 12


def table(result: Result) -> str:
    """All lines."""
    lines = list(_lines(result))
    width = max(len(name) for name, _ in lines) + 2
    return "\n".join(f"{name:<{width}}{text}".rstrip() for name, text in lines)


def _lines(result: Result) -> Iterator[tuple[str, str]]:
    settings, outcome, recording = result.settings, result.outcome, result.outcome.recording
    for served in result.opened.served:
        yield (
            "encoder",
            " ".join(filter(None, (served.encoder, served.version and f"version {served.version}:", served.text))),
        )
    yield (
        "server",
        f"{result.opened.server or 'does not say what it is'} at {settings.address}, called by {settings.protocol}",
    )
    load = settings.arrivals if settings.in_flight is None else f"closed loop: {settings.in_flight} callers in turn"
    if outcome.steps:
        load = f"last step of {len(outcome.steps)}: {outcome.steps[-1].rate:.4g} calls/s"
    yield (
        "load",
        f"{load}; {_sizes(settings.batches)} for {recording.seconds:.4g} s after {settings.warmup:g} s of warm-up, "
        f"seed {settings.seed}",
    )
    if outcome.recording.interrupted:
        yield "", "ENDED EARLY: what follows is of the calls until then"
    if outcome.capacity is not None and result.slo is not None:
        objectives = ", ".join(map(str, result.slo.objectives))
        yield "capacity", f"{outcome.capacity.words}"
        yield "", f"for {objectives}, with {share(result.slo.confidence)} confidence"
    answered = sum(packed.sequences for packed in recording.intervals.values())
    yield "offered", _rates(recording.calls / recording.seconds, recording.sequences_due / recording.seconds)
    yield "achieved", _rates(recording.latency.count / recording.took, answered / recording.took)
    if settings.goodput is not None and recording.calls:
        good = recording.latency.count_within(settings.goodput)
        yield (
            "goodput",
            f"{good / recording.seconds:,.1f} calls/s within {duration(settings.goodput)}, "
            f"{share(good / recording.calls)} of those due",
        )
    yield "calls", f"{recording.calls:,} due: {_codes(recording)}"
    if recording.item_errors:
        yield "sequences", f"{recording.item_errors:,} could not be encoded"
    yield from _latencies(result)
    if outcome.check is not None:
        check = outcome.check
        yield (
            "check",
            f"{check.compared} vectors compared with those of the same sequences alone: {check.equal} have the same "
            f"bits, {check.wrong} are wrong; largest difference {check.largest:.2g}, {settings.tolerance:g} allowed",
        )
    if outcome.split is not None:
        yield from _split(outcome.split)
    busiest = max(recording.cpu, default=0.0)
    yield (
        "generator",
        f"{settings.processes} process{'es' * (settings.processes > 1)}, {sum(recording.cpu):.2f} of "
        f"{result.machine.cores} cores, the busiest {share(busiest)} of one; {result.opened.event_loop}",
    )
    for judgment in outcome.judgments:
        yield "threshold", f"{judgment.threshold}: {judgment.value}{', FAILED' if judgment.failed else ''}"
    yield from (("note", note) for note in _notes(result))


def _latencies(result: Result) -> Iterator[tuple[str, str]]:
    recording = result.outcome.recording
    yield "", "".join(f"{name:>10}" for name in ("mean", *(f"p{percent:g}" for percent in SHOWN), "max", "ms"))
    yield "latency", milliseconds(recording.latency)
    if recording.latency_all.count > recording.latency.count:
        yield "with errors", milliseconds(recording.latency_all)
    if len(recording.classes) > 1:
        for name in sorted(recording.classes)[:MOST_CLASSES]:
            yield name, milliseconds(recording.classes[name])
    if result.settings.in_flight is None:
        yield "lag", milliseconds(recording.lag)


def _split(split: ServerSplit) -> Iterator[tuple[str, str]]:
    if split.stages:
        yield "", f"{'mean':>10}{'p50':>10}{'p99':>10}{'ms':>10}   measured by the server"
    for stage, buckets in split.stages.items():
        figures = (buckets.mean, buckets.percentile(50), buckets.percentile(99))
        shown = "".join(f"{'-' if value is None else f'{1000 * value:.2f}':>10}" for value in figures)
        yield stage, f"{shown}{'':>13}{split.names.stages[stage].words}"
    if split.rest is not None:
        yield "rest", f"{1000 * split.rest:>10.2f}{'':>33}{' - '.join(split.stages)}, on average"
    if split.batches is not None and split.batches.mean is not None:
        yield "batches", f"{split.batches.count:,.0f}, {split.batches.mean:.1f} sequences each on average"
    if split.missing:
        yield "missing", f"the server has no {', '.join(split.missing)}"
    yield from (("metrics", problem) for problem in split.problems)


def _notes(result: Result) -> Iterator[str]:
    recording = result.outcome.recording
    if result.settings.in_flight is not None:
        yield "callers that wait for their replies hide how long others would have waited; use --rate for latency"
    elif (late := lateness(recording)) is not None and result.outcome.capacity is None:
        yield f"the latency is partly the generator's: {late}"
    if recording.codes[NOT_SENT_FULL]:
        yield (
            f"{recording.codes[NOT_SENT_FULL]:,} calls were not sent, because {result.settings.max_in_flight:,} were "
            "under way: the server does not keep up, or --max-in-flight is too low"
        )
    for code, message in recording.messages.items():
        yield f"{code}: {message}"
    dashes = [percent for percent in SHOWN if 0 < recording.latency.count < needed(percent)]
    if dashes:
        wanted = ", ".join(f"p{percent:g} needs {needed(percent):,}" for percent in dashes)
        yield f"- stands where there are too few calls to tell: {wanted}"
    if result.outcome.check is not None:
        yield from result.outcome.check.messages


def milliseconds(histogram: Histogram) -> str:
    """A distribution as a row of the table."""
    if not histogram.count:
        return f"{'-':>10}"
    values = (histogram.mean, *map(histogram.supported, SHOWN), histogram.maximum)
    return "".join(f"{'-' if value is None else f'{1000 * value:.2f}':>10}" for value in values)


def _codes(recording: Recording) -> str:
    return (
        ", ".join(f"{count:,} {code}" for code, count in recording.codes.most_common() if code != OK or count) or "none"
    )


def _sizes(batches: list[str]) -> str:
    if batches == ["1"]:
        return "1 sequence a call"
    return f"{', '.join(batches)} sequences a call{', by weight' if len(batches) > 1 else ''}"


def _rates(calls: float, sequences: float) -> str:
    return f"{calls:,.1f} calls/s, {sequences:,.0f} sequences/s"
