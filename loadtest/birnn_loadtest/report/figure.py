"""A part of the page: a heading, a chart, what it says in words, and its numbers as a table."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element

from birnn_loadtest.durations import duration
from birnn_loadtest.report.elements import Child, element, table


@dataclass(frozen=True, slots=True)
class Figure:
    """A part of the page.

    Attributes:
        heading: Its heading.
        words: What can be seen; or, without a chart, why there is none.
        charts: The charts; none where there is nothing to draw.
        header: Names of the table's columns.
        rows: Its rows.
    """

    heading: str
    words: str
    charts: Sequence[Element] = ()
    header: Sequence[str] = ()
    rows: Sequence[Sequence[Child]] = field(default_factory=list)

    def section(self) -> Element:
        """As an element of the page."""
        charts = [element("div", chart, class_="chart") for chart in self.charts]
        # On paper a heading stays with its chart.
        head = element("div", element("h2", self.heading), element("p", self.words), *charts[:1], class_="head")
        numbers = None
        if self.rows:
            # A short table is read at once, a long one is opened; on paper one that is closed is left out.
            inside = table(self.header, self.rows)
            summary = element("summary", f"Numbers ({len(self.rows)} rows)")
            numbers = inside if len(self.rows) <= 12 else element("details", summary, inside)
        return element(
            "section", head, *charts[1:], numbers,
            class_="figure" if self.charts else "absent",
        )  # fmt: skip


def milliseconds(seconds: float | None) -> str:
    """For a table whose header names the unit; a dash for what is not known."""
    return "–" if seconds is None else f"{1000 * seconds:,.2f}"


def time_text(seconds: float | None) -> str:
    """For a sentence or a label: 20 ms."""
    if seconds is None:
        return "–"
    text = duration(seconds)
    digits = text.rstrip("usmin")
    return f"{digits} {text[len(digits) :].replace('us', 'µs')}"


def share_text(share: float | None) -> str:
    """A share for reading: 0.12 %."""
    return "–" if share is None else f"{100 * share:.3g} %"
