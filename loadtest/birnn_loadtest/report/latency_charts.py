"""Charts of how long calls took: against throughput, by percentile, and over time."""

from collections.abc import Sequence
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from birnn_loadtest.histogram import Histogram, bucket_tops, needed
from birnn_loadtest.report.axis import fitting, linear, number_text, percentiles
from birnn_loadtest.report.chart import Chart
from birnn_loadtest.report.figure import Figure, milliseconds, share_text, time_text
from birnn_loadtest.report.saved_run import SavedRun, histogram

SHOWN = (50.0, 90.0, 99.0, 99.9, 99.99)
MOST_POINTS = 240
# How a step is marked, and what that means.
VERDICTS = {
    "holds": ("disc", "keeps the SLO"),
    "fails": ("cross", "misses the SLO"),
    "unclear": ("ring", "unclear"),
    "generator": ("triangle", "does not count: late generator"),
}


def against_throughput(runs: Sequence[SavedRun]) -> Figure:
    """Steps of one search, or of several: a chart for each percentile that has an objective, else for p99."""
    heading = "Latency against throughput"
    searches = [(place, run) for place, run in enumerate(runs) if run.data["search"] is not None]
    if not searches:
        return Figure(heading, "Left out: it needs runs at several rates, which a search makes (--slo).")
    limits = [limit for _, run in searches for limit in run.data["search"]["limits"] if limit["metric"] != "errors"]
    metrics = list(dict.fromkeys(limit["metric"] for limit in limits)) or ["p99"]
    steps = [(place, step, histogram(step["latency"])) for place, run in searches
             for step in sorted(run.data["search"]["steps"], key=lambda step: step["rate"])]  # fmt: skip
    counted = sum(step["verdict"] != "generator" for _, step, _ in steps)
    words = (
        f"{' and '.join(metrics)} of each of the {len(steps)} steps, {counted} of which say something about the server."
    )
    for _, run in searches:
        if (capacity := run.data["search"]["capacity"]) is not None:
            name = f"{run.name}: " if len(runs) > 1 else ""
            words += f" {name}Capacity: {capacity['words']}."
    charts = []
    for metric in metrics:
        drawn = [(place, step, latency.percentile(float(metric[1:]))) for place, step, latency in steps
                 if latency.supported(float(metric[1:])) is not None]  # fmt: skip
        if drawn:
            allowed = sorted({float(limit["limit"]) for limit in limits if limit["metric"] == metric})
            charts.append(_steps(runs, metric, words, drawn, allowed))
        else:
            words += f" No step has the calls that {metric} needs ({needed(float(metric[1:])):,})."
    percents = list(dict.fromkeys([50.0, *(float(metric[1:]) for metric in metrics)]))
    rows = [
        (
            *([runs[place].name] if len(runs) > 1 else []),
            f"{step['rate']:,.1f}{' (confirming)' if step['confirming'] else ''}", f"{step['achieved']:,.1f}",
            *(milliseconds(latency.supported(percent)) for percent in percents),
            share_text(step["failed"] / step["calls"] if step["calls"] else None), VERDICTS[step["verdict"]][1],
        )
        for place, step, latency in steps
    ]  # fmt: skip
    header = [*(["run"] if len(runs) > 1 else []), "offered, calls/s", "answered, calls/s",
              *(f"p{percent:g}, ms" for percent in percents), "failed", "verdict"]  # fmt: skip
    return Figure(heading, words, charts, header, rows)


def _steps(
    runs: Sequence[SavedRun], metric: str, words: str, drawn: Sequence[tuple[int, dict[str, Any], float]],
    limits: Sequence[float],
) -> Element:  # fmt: skip
    """A percentile of steps, each with the number of its run, against what was answered; `limits` are in seconds."""
    chart = Chart(f"{metric} latency against answered calls per second", words, 350)
    x = fitting((step["achieved"] for _, step, _ in drawn), *chart.across)
    y = fitting([1000 * value for value in (*(value for _, _, value in drawn), *limits)], *chart.upward)
    chart.axes(x, y, "answered calls/s", f"{metric} latency, ms")
    for limit in limits:
        chart.limit(y.place(1000 * limit), f"SLO {time_text(limit)}")
    for number, run in enumerate(runs):
        mine = [(step, x.place(step["achieved"]), y.place(1000 * value), value)
                for place, step, value in drawn if place == number]  # fmt: skip
        line = [(across, up) for step, across, up, _ in mine if step["verdict"] != "generator"]
        chart.line(line, f"series-{number}")
        for step, across, up, value in mine:
            shape, meaning = VERDICTS[step["verdict"]]
            rates = f"{number_text(step['rate'])} calls/s offered, {number_text(step['achieved'])} answered"
            kind = "excluded" if step["verdict"] == "generator" else f"series-{number}"
            chart.mark(across, up, shape, kind, f"{rates}: {metric} {time_text(value)}; {meaning}")
        if line and len(runs) > 1:
            chart.label(line[-1][1], run.name[:18], f"label-{number}")
    used = {step["verdict"] for _, step, _ in drawn}
    chart.key((*VERDICTS[word], "excluded" if word == "generator" else "key") for word in VERDICTS if word in used)
    return chart.svg()


def spectrum(series: Sequence[tuple[str, Histogram]]) -> Figure:
    """Distributions, each with its name."""
    heading = "Percentile spectrum"
    series = [(name, values) for name, values in series if values.count]
    if not series:
        return Figure(heading, "Left out: no call was answered.")
    name, most = series[0]
    words = (
        f"Half of all calls ({name}) took at most {time_text(most.percentile(50))}, the slowest "
        f"{time_text(most.maximum)}. Each further nine takes as much room as the one before. "
        "Dotted: too few calls to be sure."
    )
    chart = Chart("Latency by percentile", words, 330)
    x = percentiles(max(values.count for _, values in series), *chart.across)
    curves = [(*_curve(values), values.count) for _, values in series]
    milli = [1000 * time for times, _, _ in curves for time in times]
    # What is a ten-thousandth of the slowest may lie at the bottom.
    y = fitting((max(value, max(milli) / 1e4) for value in milli), *chart.upward)
    chart.axes(x, y, "share of calls that took at most so long", "latency, ms")
    for place, ((name, _), (times, shares, count)) in enumerate(zip(series, curves, strict=True)):
        points = [(x.place(share), y.place(1000 * time)) for time, share in zip(times, shares, strict=True)]
        # Up to the percentile that so many calls support.
        sure = sum(count >= needed(100 * share) for share in shares)
        chart.line(points[: sure + 1], f"series-{place}")
        chart.line(points[sure:], f"series-{place} unsure")
        chart.label(points[-1][1], name[:18], f"label-{place}")
    rows = [
        (name, f"{values.count:,}", *(milliseconds(values.supported(percent)) for percent in SHOWN),
         milliseconds(values.maximum))
        for name, values in series
    ]  # fmt: skip
    header = ("distribution", "calls", *(f"p{percent:g}, ms" for percent in SHOWN), "slowest, ms")
    return Figure(heading, words, [chart.svg()], header, rows)


def _curve(values: Histogram) -> tuple[list[float], list[float]]:
    """Times in seconds, and the share of calls that took at most so long; the last is just above all but one call."""
    counts = values.counts
    filled = np.flatnonzero(counts)
    shares = np.cumsum(counts[filled]) / values.count
    shares[-1] = 1 - 1 / max(values.count, 2)
    shares = np.maximum.accumulate(np.minimum(shares, shares[-1]))
    places = -np.log10(1 - shares)
    chosen = np.unique(np.searchsorted(places, np.linspace(0, places[-1], MOST_POINTS)).clip(0, len(filled) - 1))
    times = bucket_tops()[filled[chosen]]
    return [float(bucket_tops()[filled[0]]), *times.tolist()], [0.0, *shares[chosen].tolist()]


def over_time(run: SavedRun) -> Figure:
    """The median, a high percentile, and failures, second by second."""
    heading = "Latency over time"
    # The highest percentile that most windows support, in the shortest windows that do.
    tried = [(99.0, MOST_POINTS), (99.0, 12), (90.0, MOST_POINTS), (90.0, 12), (50.0, MOST_POINTS)]
    for percent, most in tried:
        windows, seconds = run.windows(most), run.window_seconds(most)
        if sum(one.latency.supported(percent) is not None for one in windows) > len(windows) / 2:
            break
    if not sum(one.latency.count for one in windows):
        return Figure(heading, "Left out: no call was answered.")
    names = list(dict.fromkeys((50.0, percent)))
    failed = sum(one.failed for one in windows)
    each = "each second" if seconds == 1 else f"each {seconds:g} seconds"
    words = f"{' and '.join(f'p{name:g}' for name in names)} of {each}, by when calls were due. " + (
        f"{failed:,} calls failed." if failed else "No call failed."
    )
    if percent < 99:
        words += f" p99 needs {needed(99)} calls in a window."
    figures = [[one.latency.supported(name) for one in windows] for name in names]
    middles = [min((number + 0.5) * seconds, run.run["seconds"]) for number in range(len(windows))]
    chart = Chart("Latency over time", words, 300)
    x = linear(run.run["seconds"], *chart.across)
    y = fitting([1000 * value for values in figures for value in values if value is not None], *chart.upward)
    chart.axes(x, y, "seconds since the warm-up ended", "latency, ms")
    for place, (name, values) in enumerate(zip(names, figures, strict=True)):
        found = [(x.place(at), y.place(1000 * value), at, value)
                 for at, value in zip(middles, values, strict=True) if value is not None]  # fmt: skip
        chart.line([point[:2] for point in found], f"series-{place}")
        for across, up, at, value in found if len(found) <= 60 else ():
            chart.mark(across, up, "dot", f"series-{place}", f"p{name:g} {time_text(value)} at {at:g} s")
        if found:
            chart.label(found[-1][1], f"p{name:g}", f"label-{place}")
    charts = [chart.svg()]
    if failed:
        bars = Chart("Failed calls over time", f"{failed:,} calls failed.", 170)
        rates = [one.failed / seconds for one in windows]
        rate_axis = linear(max(rates), *bars.upward)
        bars.axes(x, rate_axis, "seconds since the warm-up ended", "failed calls/s")
        for number, rate in enumerate(rates):
            left, right = x.place(number * seconds), x.place((number + 1) * seconds)
            top = rate_axis.place(rate)
            bars.bar(left, top, max(1.0, right - left - 1), bars.upward[0] - top, "bad",
                     f"{number_text(rate)} failed calls/s at {number * seconds:g} s")  # fmt: skip
        charts.append(bars.svg())
    header = ("from, s", "calls due", "failed", *(f"p{name:g}, ms" for name in names), "slowest, ms")
    rows = [
        (f"{number * seconds:g}", f"{one.calls:,}", f"{one.failed:,}",
         *(milliseconds(one.latency.supported(name)) for name in names),
         milliseconds(one.latency.maximum if one.latency.count else None))
        for number, one in enumerate(windows)
    ]  # fmt: skip
    return Figure(heading, words, charts, header, rows)
