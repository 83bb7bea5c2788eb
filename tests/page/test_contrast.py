"""Colors of the page: whether everyone can tell text from what is behind it (WCAG 2.2, 1.4.3 and 1.4.11)."""

import re
from pathlib import Path

import pytest

from birnn_service.protocols.page.files import SITE

CSS = (SITE / "page.css").read_text()
DARK = CSS.index("@media (prefers-color-scheme: dark)")
# Text, and what it stands on.
TEXT = [
    ("text", "back"), ("text", "surface"), ("text", "inset"), ("text", "fill"), ("text", "warn-back"),
    ("muted", "back"), ("muted", "surface"), ("muted", "inset"), ("muted", "fill"), ("muted", "warn-back"),
    ("accent", "surface"), ("accent", "back"), ("on-accent", "accent"), ("bad", "surface"),
    ("good", "good-back"), ("bad", "bad-back"), ("warn", "warn-back"),
]  # fmt: skip
# Lines of charts, and edges of what can be used.
LINES = [
    ("accent", "surface"), ("accent", "inset"), ("accent", "fill"), ("second", "surface"), ("edge", "surface"),
    ("edge", "back"), ("warn", "surface"),
]  # fmt: skip


def colors(scheme: str) -> dict[str, str]:
    found = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", CSS[:DARK]))
    if scheme == "dark":
        rule = CSS[DARK : CSS.index("}\n}", DARK)]
        dark = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", rule))
        assert dark.keys() == found.keys()
        return dark
    return found


def luminance(color: str) -> float:
    channels = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_formula_is_the_standards() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_lines_stand_out(scheme: str) -> None:
    found = colors(scheme)
    low = {
        f"{front} on {back}": round(contrast(found[front], found[back]), 2)
        for least, pairs in ((4.5, TEXT), (3.0, LINES))
        for front, back in pairs
        if contrast(found[front], found[back]) < least
    }
    assert low == {}


def test_no_color_stands_outside_of_the_two_schemes() -> None:
    rest = CSS[CSS.index("}\n}", DARK) :]
    assert re.findall(r"#[0-9a-f]{3,8}\b(?=[^{]*[;}])", rest) == []
    assert set(re.findall(r"var\(--([a-z-]+)\)", rest)) <= colors("light").keys()


def test_the_icon_is_drawn_by_what_every_browser_has() -> None:
    assert Path(SITE / "icon.svg").read_text().startswith("<svg ")
