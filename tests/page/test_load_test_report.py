"""The page of a load test in a real browser."""

import json
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe

from birnn_loadtest.report.compare_page import Comparison
from birnn_loadtest.report.page import report
from birnn_loadtest.report.saved_run import SavedRun
from tests.loadtest.saved_runs import recording, saved, server_split
from tests.page.browser import NARROW, needs_chromium
from tests.page.conftest import Open

pytestmark = needs_chromium
PAGES = ["report", "comparison"]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("pages")
    run = SavedRun("run", saved(recording(failing=0.05), server_split(), steps=5))
    other = SavedRun("other", saved(recording(scale=0.006, seed=1), steps=4))
    texts = {"report": report(run), "comparison": Comparison([run, other]).html()}
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text)
    return {name: (folder / f"{name}.html").as_uri() for name in texts}


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everyone_can_read_it(pages: dict[str, str], visit: Open, name: str, scheme: str) -> None:
    tab = visit(pages[name], color_scheme=scheme)
    assert [request.url for request in tab.asked] == [pages[name]], "a page asks for nothing but itself"
    # Its own policy, which allows no script, does not let axe in; what axe reads is the same without it.
    reader = visit("about:blank", color_scheme=scheme)
    reader.page.set_content(tab.page.content().replace("Content-Security-Policy", "none"))
    found = Axe().run(reader.page).response["violations"]
    assert found == [], json.dumps(found, indent=1)[:3000]


@pytest.mark.parametrize("name", PAGES)
def test_colors_follow_the_scheme_and_paper_is_white(pages: dict[str, str], visit: Open, name: str) -> None:
    colors = {}
    for scheme in ("light", "dark"):
        tab = visit(pages[name], color_scheme=scheme)
        back = "() => getComputedStyle(document.documentElement).backgroundColor"
        text = "() => getComputedStyle(document.querySelector('svg[role] .tick')).fill"
        colors[scheme] = [tab.page.evaluate(back), tab.page.evaluate(text)]
        tab.page.emulate_media(media="print", color_scheme=scheme)
        assert tab.page.evaluate(back) == "rgb(255, 255, 255)"
        assert tab.page.evaluate(text) == "rgb(51, 51, 51)"
    assert colors["light"] != colors["dark"]


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("size", [NARROW, (1280, 900)])
def test_nothing_is_wider_than_the_window_and_no_text_leaves_its_chart(
    pages: dict[str, str], visit: Open, name: str, size: tuple[int, int]
) -> None:
    tab = visit(pages[name], size=size)
    assert tab.page.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0
    outside = tab.page.evaluate(
        """() => [...document.querySelectorAll('svg[role]')].flatMap((chart) => {
            const frame = chart.getBoundingClientRect()
            return [...chart.querySelectorAll('text, .disc, .cross, .ring, .triangle, rect')].filter((one) => {
                const box = one.getBoundingClientRect()
                return box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1
                    || box.bottom > frame.bottom + 1
            }).map((one) => one.textContent)
        })"""
    )
    assert outside == []


@pytest.mark.parametrize("name", PAGES)
def test_labels_of_a_chart_do_not_overlap(pages: dict[str, str], visit: Open, name: str) -> None:
    tab = visit(pages[name])
    overlapping = tab.page.evaluate(
        """() => [...document.querySelectorAll('svg[role]')].flatMap((chart) => {
            const all = [...chart.querySelectorAll('text')]
            const boxes = all.map((one) => [one.textContent, one.getBoundingClientRect()])
            return boxes.flatMap(([text, box], place) => boxes.slice(place + 1).filter(([, other]) =>
                Math.min(box.right, other.right) - Math.max(box.left, other.left) > 1
                && Math.min(box.bottom, other.bottom) - Math.max(box.top, other.top) > 4
            ).map(([other]) => `${text} / ${other}`))
        })"""
    )
    assert overlapping == []


def test_a_printed_page_keeps_its_charts_whole(pages: dict[str, str], visit: Open, tmp_path: Path) -> None:
    tab = visit(pages["report"], color_scheme="dark")
    tab.page.emulate_media(media="print")
    rules = tab.page.locator(".chart").evaluate_all("all => all.map(one => getComputedStyle(one).breakInside)")
    assert set(rules) == {"avoid"}
    # On paper of A4 without its margins, no chart is higher than a page or wider.
    tab.page.set_viewport_size({"width": round(182 / 25.4 * 96), "height": round(269 / 25.4 * 96)})
    boxes = tab.page.locator("svg[role]").evaluate_all("all => all.map(one => one.getBoundingClientRect().toJSON())")
    assert all(box["width"] <= 182 / 25.4 * 96 and box["height"] < 269 / 25.4 * 96 / 2 for box in boxes)
    assert tab.page.pdf(prefer_css_page_size=True).startswith(b"%PDF")
