"""The comparison of runs: lines for a terminal, and a page."""

from collections.abc import Iterator, Sequence
from xml.etree.ElementTree import Element

from birnn_loadtest.comparison import (
    CONFIDENCE,
    DRAWS,
    FEWEST_WINDOWS,
    MOST_WINDOWS,
    Difference,
    Windows,
    compare,
)
from birnn_loadtest.report.axis import linear, number_text
from birnn_loadtest.report.chart import Chart
from birnn_loadtest.report.elements import element
from birnn_loadtest.report.figure import Figure, share_text, time_text
from birnn_loadtest.report.latency_charts import against_throughput, spectrum
from birnn_loadtest.report.page import page, settings_tables
from birnn_loadtest.report.saved_run import SavedRun, explained

METHOD = (
    f"Noise: each run is cut into at most {MOST_WINDOWS} windows of the same length, and windows are drawn with "
    f"replacement {DRAWS:,} times (bootstrap). A difference is beyond noise if the interval that holds "
    f"{CONFIDENCE:.0%} of the differences drawn leaves out 0. This is the noise within the runs. What changes from run "
    "to run is not in it: only repeated runs show that."
)
NAMES = {"calls": "answered calls/s", "failed": "failed calls"}
# What else may differ without making runs incomparable.
INCIDENTAL = ("address", "seed", "metrics", "check", "tolerance", "files")


class Comparison:
    """The first run beside each of the others.

    Args:
        runs: At least two.

    Raises:
        SavedRunError: One of them is damaged.
    """

    def __init__(self, runs: Sequence[SavedRun]) -> None:
        self.runs = runs
        windows = []
        for run in runs:
            with explained(run.name):
                windows.append(Windows(run.windows(MOST_WINDOWS), run.run["seconds"]))
        self.counts = [one.count for one in windows]
        self.differences = [compare(windows[0], other) for other in windows[1:]]

    def lines(self) -> Iterator[str]:
        """For a terminal."""
        for warning in self.warnings():
            yield f"note: {warning}"
        for run, differences in zip(self.runs[1:], self.differences, strict=True):
            yield ""
            heading = f"{run.name} against {self.runs[0].name}"
            yield f"{heading:<32}{'before':>12}{'after':>12}{'difference':>20}   {CONFIDENCE:.0%} interval"
            for one in differences:
                before, after, difference, interval = _cells(one)
                name = NAMES.get(one.name, one.name)
                yield f"{name:<32}{before:>12}{after:>12}{difference:>20}   {interval:<26}{one.verdict}"
        yield from self.capacities()
        yield ""
        yield METHOD

    def html(self) -> str:
        """As a page.

        Raises:
            SavedRunError: A run is damaged.
        """
        with explained(" or ".join(run.name for run in self.runs)):
            names = [run.name for run in self.runs]
            notices = [element("p", text, class_="notice") for text in [*self.warnings(), *self.capacities()]]
            figures = [
                *(self._figure(run, found) for run, found in zip(self.runs[1:], self.differences, strict=True)),
                spectrum([(run.name, run.latency) for run in self.runs]),
                against_throughput(self.runs),
            ]
            method = Figure("How noise is told", METHOD)
            sections = [one.section() for one in [*(one for one in figures if one.charts), method]]
            left_out = [one.section() for one in figures if not one.charts]
            title = f"{names[0]} and {', '.join(names[1:])} compared"
            times = ", ".join(f"{run.name}: {run.data['started']}" for run in self.runs)
            return page(title, times, [*notices, *sections], [*left_out, *settings_tables(self.runs)])

    def warnings(self) -> Iterator[str]:
        """What makes the runs less comparable."""
        first = self.runs[0]
        for run, count in zip(self.runs, self.counts, strict=True):
            if count < FEWEST_WINDOWS:
                yield (f"{run.name} has {count} windows, and noise cannot be told with fewer than {FEWEST_WINDOWS}: "
                       "raise --duration")  # fmt: skip
            if run.run["generator_late"]:
                yield f"{run.name}: the latency is partly the generator's: {run.run['generator_late']}"
        for run in self.runs[1:]:
            told = {"machine": "client", "server": "server", "encoders": "encoders"}
            differ = [name for name, key in told.items() if _part(run, key) != _part(first, key)]
            settings = run.data["settings"]
            differ += [name for name, value in first.data["settings"].items()
                       if name not in INCIDENTAL and settings.get(name) != value]  # fmt: skip
            if differ:
                yield f"{run.name} differs from {first.name} in {', '.join(name.replace('_', ' ') for name in differ)}"
            if run.data["search"] or first.data["search"]:
                yield f"{run.name} against {first.name}: of a search, its last step is compared, at a rate of its own"

    def capacities(self) -> Iterator[str]:
        """How capacities differ, where there are some."""
        found = [(run.name, (run.data["search"] or {}).get("capacity")) for run in self.runs]
        (first, before), *others = found
        for name, after in others:
            if not before or not after or not before["rate"] or not after["rate"]:
                continue
            change = after["rate"] / before["rate"] - 1
            # A capacity lies between the highest rate that holds and the lowest that does not.
            low, high = sorted((before, after), key=lambda one: float(one["rate"]))
            apart = low["beyond"] is not None and low["limit"] == "server" and high["rate"] >= low["beyond"]
            yield (
                f"capacity of {name} against {first}: {number_text(before['rate'])} to {number_text(after['rate'])} "
                f"calls/s ({change:+.1%}), " + ("beyond" if apart else "within") + " the resolution of the searches"
            )

    def _figure(self, run: SavedRun, differences: Sequence[Difference]) -> Figure:
        first = self.runs[0].name
        heading = f"{run.name} against {first}"
        beyond = [f"{NAMES.get(one.name, one.name)} {one.verdict}" for one in differences
                  if one.verdict in ("lower", "higher")]  # fmt: skip
        within = [NAMES.get(one.name, one.name) for one in differences if one.verdict == "within noise"]
        words = f"Beyond noise: {', '.join(beyond) or 'nothing'}. Within noise: {', '.join(within) or 'nothing'}."
        drawn = [(one, one.ratio) for one in differences if one.ratio is not None]
        rows = [(NAMES.get(one.name, one.name), *_cells(one), one.verdict) for one in differences]
        header = ("figure", first, run.name, "difference", f"{CONFIDENCE:.0%} interval", "verdict")
        charts = [_intervals(heading, words, drawn)] if drawn else []
        return Figure(heading, words, charts, header, rows)


def _intervals(
    title: str, words: str, drawn: Sequence[tuple[Difference, tuple[float, float, float] | None]]
) -> Element:
    """Differences in percent with their intervals, one below the other, beside a line at 0."""
    chart = Chart(title, words, 68.0 + 30 * len(drawn))
    ends = [100 * end for _, ratio in drawn if ratio for end in ratio]
    start, end = chart.across
    x = linear(max(*ends, 0.0), start + 60, end, min(*ends, 0.0))
    chart.axes(x, None, f"difference from the first run, % ({CONFIDENCE:.0%} interval)", "")
    low, high = chart.upward
    chart.line([(x.place(0), low), (x.place(0), high)], "key")
    for number, (one, ratio) in enumerate(drawn):
        if ratio is None:
            continue
        y = high + 15 + 30 * number
        kind = {"within noise": "key", "lower": "series-0", "higher": "series-1"}.get(one.verdict, "key")
        middle, least, most = (x.place(100 * value) for value in ratio)
        chart.line([(least, y), (most, y)], f"{kind} interval")
        chart.mark(middle, y, "disc", kind, f"{one.name}: {100 * ratio[0]:+.1f} %")
        chart.text(start + 46, y + 4, NAMES.get(one.name, one.name), "tick", "end")
        chart.label(y, one.verdict, "tick")
    return chart.svg()


def _part(run: SavedRun, key: str) -> object:
    part = run.data[key]
    return (part["processor"], part["cores"]) if key == "client" else part


def _cells(one: Difference) -> tuple[str, str, str, str]:
    """Before, after, their difference and its interval, in words."""

    def text(value: float | None) -> str:
        if value is None:
            return "–"
        if one.name in ("calls", "failed"):
            return number_text(value) if one.name == "calls" else share_text(value)
        return time_text(abs(value)) if value >= 0 else f"−{time_text(-value)}"

    def signed(value: float | None) -> str:
        return f"+{text(value)}" if value is not None and value > 0 else text(value)

    difference = None if one.before is None or one.after is None else one.after - one.before
    interval = "–" if one.low is None else f"{signed(one.low)} to {signed(one.high)}"
    change = f" ({difference / one.before:+.0%})" if difference is not None and one.before else ""
    return text(one.before), text(one.after), f"{signed(difference)}{change}", interval
