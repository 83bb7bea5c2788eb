"""A chart as inline SVG: colors are classes of the page's style sheet, tooltips are `title` elements, no script."""

from collections.abc import Iterable, Sequence
from itertools import count
from xml.etree.ElementTree import Element

from birnn_loadtest.report.axis import Axis
from birnn_loadtest.report.elements import element

WIDTH = 760.0
LEFT, RIGHT, TOP, BOTTOM = 62.0, 128.0, 26.0, 46.0
LINE_HEIGHT = 15.0
# Mean width of a letter, for what stands beside other text.
LETTER = 6.2
_numbers = count(1)


class Chart:
    """A chart that is drawn step by step.

    Args:
        title: What it shows, for those who do not see it.
        description: What can be seen in it, in words.
        height: Its height; its width is 760 units.
    """

    def __init__(self, title: str, description: str, height: float = 320.0) -> None:
        number = next(_numbers)
        self.height = height
        self._svg = element(
            "svg",
            element("title", title, id=f"title-{number}"),
            element("desc", description, id=f"desc-{number}"),
            viewBox=f"0 0 {WIDTH:g} {height:g}",
            role="img",
            aria_labelledby=f"title-{number} desc-{number}",
        )
        self._labels: list[tuple[float, str, str]] = []

    @property
    def across(self) -> tuple[float, float]:
        """Where a horizontal axis starts and ends."""
        return LEFT, WIDTH - RIGHT

    @property
    def upward(self) -> tuple[float, float]:
        """Where a vertical axis starts and ends."""
        return self.height - BOTTOM, TOP

    def axes(self, x: Axis | None, y: Axis | None, x_name: str, y_name: str) -> None:
        """Draw ticks, lines of the grid and names; an axis that is None has a name only."""
        low, high = self.upward
        for value, text in y.ticks if y else ():
            place = y.place(value) if y else 0.0
            self.add(element("line", class_="grid", x1=LEFT, x2=WIDTH - RIGHT, y1=place, y2=place))
            self.text(LEFT - 8, place + 4, text, "tick", "end")
        for value, text in x.ticks if x else ():
            place = x.place(value) if x else 0.0
            self.add(element("line", class_="grid", x1=place, x2=place, y1=low, y2=high))
            self.text(place, low + 17, text, "tick", "middle")
        self.add(element("line", class_="base", x1=LEFT, x2=WIDTH - RIGHT, y1=low, y2=low))
        self.text((LEFT + WIDTH - RIGHT) / 2, low + 37, x_name, "name", "middle")
        self.text(LEFT - 8 if y else LEFT, TOP - 11, y_name, "name", "end" if len(y_name) < 9 else "start")

    def add(self, *parts: Element) -> None:
        """Put elements on top."""
        self._svg.extend(parts)

    def text(self, x: float, y: float, text: str, kind: str, anchor: str = "start") -> None:
        """Write text; `y` is its base line."""
        self.add(element("text", text, class_=kind, x=x, y=y, text_anchor=anchor))

    def line(self, points: Sequence[tuple[float, float]], kind: str) -> None:
        """Draw straight lines from point to point."""
        if len(points) > 1:
            self.add(element("polyline", class_=f"line {kind}", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points)))

    def mark(self, x: float, y: float, shape: str, kind: str, tip: str) -> None:
        """Draw a mark: a disc, a ring, a cross or a triangle, with what is told of it on hovering."""
        paths = {
            "disc": "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z",
            "dot": "M-2.5 0a2.5 2.5 0 1 0 5 0a2.5 2.5 0 1 0 -5 0z",
            "ring": "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z",
            "cross": "M-4.5 -4.5l9 9M-4.5 4.5l9 -9",
            "triangle": "M0 -5.5l5.5 9.5h-11z",
        }
        place = f"translate({x:.1f} {y:.1f})"
        self.add(
            element(
                "path",
                element("title", tip) if tip else None,
                class_=f"{shape} {kind}",
                d=paths[shape],
                transform=place,
            )
        )

    def key(self, entries: Iterable[tuple[str, str, str]]) -> None:
        """Say above the chart, from its right end, what marks mean: their shape, meaning and kind."""
        place = WIDTH
        for shape, meaning, kind in reversed(list(entries)):
            place -= LETTER * len(meaning) + 24
            self.mark(place, TOP - 15, shape, kind, "")
            self.text(place + 11, TOP - 11, meaning, "tick")

    def bar(self, x: float, y: float, width: float, height: float, kind: str, tip: str) -> None:
        """Draw a bar; `x` and `y` are its upper left corner."""
        self.add(element("rect", element("title", tip), class_=kind, x=x, y=y, width=width, height=height))

    def limit(self, y: float, text: str) -> None:
        """Draw a dashed line across, with what it stands for at its right end."""
        self.add(element("line", class_="limit", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y))
        self.label(y, text, "limit-text")

    def label(self, y: float, text: str, kind: str) -> None:
        """Write text beside the right end; those that would overlap move apart."""
        self._labels.append((y, text, kind))

    def svg(self) -> Element:
        """The whole; nothing may be drawn after it."""
        placed = spaced([y for y, _, _ in self._labels], LINE_HEIGHT, TOP, self.upward[0])
        for y, (_, text, kind) in zip(placed, self._labels, strict=True):
            self.text(WIDTH - RIGHT + 9, y + 4, text, kind)
        self._labels.clear()
        return self._svg


def spaced(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """The places moved as little as a sweep can so that neighbors have a gap, all from `low` to `high` if they fit."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    moved = list(places)
    least = low
    for index in order:
        moved[index] = least = max(moved[index], least)
        least += gap
    most = high
    for index in reversed(order):
        moved[index] = most = min(moved[index], most)
        most -= gap
    return moved
