"""The scripts of the page one by one, in a browser: metrics, numbers, and the loop that asks."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.e2e.server_process import MODELS, running
from tests.page.browser import Visit, needs_chromium

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def visit(browser: Browser) -> Iterator[Visit]:
    with running(MODELS / "smiles-small" / "1", "--http-port", "0") as server:
        visit = Visit(browser)
        # A file of the page that runs nothing.
        visit.page.goto(server.rest + "/page/icon.svg")
        yield visit
        # Of a document that names no icon, browsers look for one.
        visit.close("error: Failed to load resource: the server responded with a status of 404")


def run(visit: Visit, module: str, code: str, argument: Any = None) -> Any:
    """What an expression over the exports of a script gives; it may use `argument`."""
    return visit.page.evaluate(f"(argument) => import('/page/{module}.js').then(async (module) => {code})", argument)


def scrape(calls: float, *, labels: str = "", encoder: str = "a") -> str:
    """Metrics of an encoder whose calls took 1 to 2 ms, half of them less than 1.5 ms; the last one took forever."""
    named = f'encoder="{encoder}"{labels}'
    edges = {"0.001": 0, "0.0015": calls / 2, "0.002": calls, "+Inf": calls + 1}
    buckets = [f'birnn_request_seconds_bucket{{{named},le="{edge}"}} {count}' for edge, count in edges.items()]
    return "\n".join(
        [
            "# HELP birnn_request_seconds From a call's arrival to its reply.",
            *buckets,
            f"birnn_request_seconds_count{{{named}}} {calls + 1}",
            f'birnn_requests_total{{{named},code="OK"}} {calls}',
            f'birnn_requests_total{{{named},code="INVALID_ARGUMENT"}} 1.0',
            f"birnn_sequences_total{{{named}}} {10 * calls}",
            f"birnn_cache_hits_total{{{named}}} {calls}",
            f"birnn_batch_sequences_sum{{{named}}} {10 * calls}",
            f"birnn_batch_sequences_count{{{named}}} {2 * calls}",
            f"birnn_queue_sequences{{{named}}} 7.0",
            "python_gc_objects_collected_total 12.0",
        ]
    )


HISTORY = """{
    const history = new module.History(300, 5);
    for (const [text, at] of argument.scrapes) history.add(module.read(text, at));
    return history.points(argument.encoder ?? '').map((point) => ({...point}));
}"""


def points(visit: Visit, *scrapes: tuple[str, float], encoder: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = run(visit, "metrics", HISTORY, {"scrapes": scrapes, "encoder": encoder})
    return found


@pytest.mark.parametrize("labels", ["", ',version="2"', ',method="Encode",version="2"'])
def test_points_are_what_happened_between_scrapes(visit: Visit, labels: str) -> None:
    (point,) = points(visit, (scrape(100, labels=labels), 10.0), (scrape(300, labels=labels), 14.0))
    assert point["at"] == 14
    # Of 200 calls the hundredth is at the end of the first half, which lies between 1 and 1.5 ms.
    assert point["p50"] == pytest.approx(0.0015)
    assert point["p99"] == pytest.approx(0.0015 + 0.0005 * 98 / 100)
    assert point["sequences"] == pytest.approx((2000 + 200) / 4)
    assert (point["calls"], point["failed"], point["waiting"]) == (50, 0, 7)
    assert (point["batch"], point["batches"]) == (5, 100)


def test_other_labels_are_summed_up(visit: Visit) -> None:
    one, other = ',version="1",method="Encode"', ',version="2",method="POST /v1/embeddings"'
    first = "\n".join(scrape(100, labels=labels) for labels in (one, other))
    last = "\n".join(scrape(200, labels=labels) for labels in (one, other))
    (point,) = points(visit, (first, 0.0), (last, 1.0))
    assert (point["calls"], point["waiting"]) == (200, 14)
    assert point["p50"] == pytest.approx(0.0015)


def test_encoders_are_told_apart_and_calls_to_none_left_out(visit: Visit) -> None:
    first = "\n".join(scrape(0, encoder=name) for name in ("a", 'b\\"\\\\\\n', ""))
    last = "\n".join(scrape(calls, encoder=name) for name, calls in (("a", 10), ('b\\"\\\\\\n', 20), ("", 50)))
    shown = [points(visit, (first, 0.0), (last, 1.0), encoder=name) for name in ("", "a", 'b"\\\n', "c")]
    assert [point["calls"] for (point,) in shown] == [30, 10, 20, 0]


def test_the_last_seconds_count_and_no_others(visit: Visit) -> None:
    scrapes = [(scrape(calls), at) for calls, at in ((0, 0.0), (100, 2.0), (100, 4.0), (100, 6.0), (100, 8.0))]
    found = points(visit, *scrapes)
    assert [point["calls"] for point in found] == [50, 25, pytest.approx(100 / 6), 0]
    assert [point["p50"] is None for point in found] == [False, False, False, True]


def test_a_server_that_was_started_anew_and_a_hidden_tab_leave_gaps(visit: Visit) -> None:
    assert points(visit, (scrape(100), 0.0), (scrape(5), 1.0)) == []
    scrapes = [(scrape(calls), at) for calls, at in ((0, 0.0), (10, 1.0), (5000, 100.0), (5010, 101.0))]
    found = points(visit, *scrapes)
    assert [point.get("calls") for point in found] == [10, None, 10]


def test_old_scrapes_are_forgotten(visit: Visit) -> None:
    found = points(visit, *((scrape(second), float(second)) for second in range(0, 1000, 3)))
    assert len(found) in range(100, 105)


@pytest.mark.parametrize(
    ("buckets", "share", "expected"),
    [
        ([], 0.5, None),
        ([[1, 0], ["Infinity", 0]], 0.5, None),
        ([[1, 10], ["Infinity", 10]], 0.5, 0.5),
        ([[1, 0], [3, 10], ["Infinity", 10]], 0.5, 2),
        # What lies beyond the last edge is only known to lie there.
        ([[1, 1], [3, 1], ["Infinity", 10]], 0.99, 3),
    ],
)
def test_quantiles_are_prometheus_own(visit: Visit, buckets: list[Any], share: float, expected: float | None) -> None:
    code = "module.quantile(argument[0].map(([edge, count]) => [Number(edge), count]), argument[1])"
    assert run(visit, "metrics", code, [buckets, share]) == expected


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        ("seconds", 0, "0 s"), ("seconds", 0.000123456, "123 µs"), ("seconds", 0.0215, "21.5 ms"),
        ("seconds", 12, "12 s"), ("seconds", None, "none"), ("count", 0, "0"), ("count", 1024, "1,024"),
        ("count", 12345, "12.3k"),
        ("count", 2.5, "2.5"), ("digits", -0.86812, "-0.868"), ("roundUp", 0.0021, 0.003), ("roundUp", 476, 500),
        ("roundUp", 1000, 1000), ("roundUp", 8.1, 10),
    ],
)  # fmt: skip
def test_numbers_are_written_for_people(visit: Visit, function: str, value: float | None, text: object) -> None:
    found = run(visit, "numbers", f"module.{function}(argument)", value)
    assert found == (pytest.approx(text) if isinstance(text, int | float) else text)


LOOP = """{
    const state = (window.state = {turns: 0, told: [], status: null, hidden: false});
    Object.defineProperty(document, 'hidden', {get: () => state.hidden, configurable: true});
    state.loop = new module.Loop(async () => {
        state.turns += 1;
        if (state.status !== null) throw Object.assign(new Error('x'), {status: state.status});
    }, 1000, (error) => state.told.push(error?.status ?? 'well'));
    state.loop.start();
}"""


@pytest.fixture
def loop(browser: Browser, visit: Visit) -> Iterator[Visit]:
    """A tab with a loop whose clock stands still."""
    own = Visit(browser)
    own.page.clock.install(time=0)
    own.page.goto(visit.page.url)
    own.page.clock.pause_at(1000)
    run(own, "loop", LOOP)
    yield own
    own.close("error: Failed to load resource: the server responded with a status of 404")


def turns(visit: Visit, seconds: int, **changes: Any) -> int:
    """How often the loop works in so many seconds, after changes of its state."""
    visit.page.evaluate("(changes) => Object.assign(window.state, changes)", changes)
    before: int = visit.page.evaluate("window.state.turns")
    for _ in range(10 * seconds):
        visit.page.clock.run_for(100)
    now: int = visit.page.evaluate("window.state.turns")
    return now - before


def test_the_loop_asks_once_a_second_at_most(loop: Visit) -> None:
    assert turns(loop, 10) in (9, 10, 11)


def test_the_loop_backs_off_while_the_server_is_away_and_comes_back(loop: Visit) -> None:
    turns(loop, 2)
    # After 1, 2, 4, 8, 16, 30, 30 ... seconds.
    assert turns(loop, 120, status=0) in range(6, 9)
    assert turns(loop, 40, status=None) >= 10
    told = loop.page.evaluate("window.state.told")
    assert told.count(0) in range(6, 9)
    assert told[-1] == "well"


@pytest.mark.parametrize("status", [401, 403])
def test_the_loop_ends_where_it_is_refused_until_there_is_another_token(loop: Visit, status: int) -> None:
    assert turns(loop, 60, status=status) == 1
    loop.page.evaluate("window.state.status = null; window.state.loop.start()")
    assert turns(loop, 5) >= 4


def test_the_loop_rests_while_the_tab_is_hidden(loop: Visit) -> None:
    turns(loop, 3)
    loop.page.evaluate("window.state.hidden = true; document.dispatchEvent(new Event('visibilitychange'))")
    assert turns(loop, 60) == 0
    loop.page.evaluate("window.state.hidden = false; document.dispatchEvent(new Event('visibilitychange'))")
    assert turns(loop, 3) >= 3
