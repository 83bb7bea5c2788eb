"""The page of a load test: one HTML file that asks for nothing else and runs no script."""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from importlib import resources
from xml.etree.ElementTree import Element

from birnn_loadtest.histogram import Histogram, needed
from birnn_loadtest.report.axis import number_text
from birnn_loadtest.report.elements import Child, element, markup, table
from birnn_loadtest.report.figure import share_text, time_text
from birnn_loadtest.report.latency_charts import against_throughput, over_time, spectrum
from birnn_loadtest.report.saved_run import SavedRun, histogram
from birnn_loadtest.report.server_charts import batches, stages

FOOTER = (
    "Written by birnn loadtest. Latency counts from the moment a call was due, so it includes how late the generator "
    "was (its lag). A dash stands where there are too few calls to tell."
)
# Settings that are times.
SECONDS = ("duration", "warmup", "timeout", "goodput")


def report(run: SavedRun) -> str:
    """The page of one result."""
    data = run.data
    encoders = ", ".join(served["encoder"] for served in data["encoders"]) or ", ".join(data["settings"]["encoders"])
    server = data["server"] or "A server that does not say what it is"
    figures = [against_throughput([run]), spectrum(_spectra(run)), over_time(run), stages(run), batches(run)]
    return page(
        f"Load test of {encoders}",
        f"{server} at {data['settings']['address']}, {data['started']}",
        [*_notices(run), _tiles(run), *(figure.section() for figure in figures if figure.charts)],
        [*(figure.section() for figure in figures if not figure.charts), *settings_tables([run])],
    )


def page(title: str, subtitle: str, first: Sequence[Element], last: Sequence[Element]) -> str:
    """A whole page from its sections."""
    style = resources.files("birnn_loadtest.report").joinpath("page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    sheet = element("style")
    # As it is: escapes of `element` would change its digest.
    sheet.text = style
    head = element(
        "head",
        element("meta", charset="utf-8"),
        # ElementTree writes attributes in the order in which they are given.
        Element("meta", {"http-equiv": "Content-Security-Policy", "content": policy}),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        sheet,
    )
    header = element("header", element("h1", title), element("p", subtitle, class_="muted"))
    footer = element("footer", FOOTER)
    body = element("body", _hatch(), header, element("main", *first, *last), footer)
    return f"<!doctype html>\n{markup(element('html', head, body, lang='en'))}\n"


def settings_tables(runs: Sequence[SavedRun]) -> Iterator[Element]:
    """What was asked for, and where it ran: a column for each run."""
    rows: dict[str, list[str]] = {}
    for place, run in enumerate(runs):
        client, settings = run.data["client"], run.data["settings"]
        facts = {
            "server": run.data["server"] or "–",
            **{f"encoder {served['encoder']}": _served(served) for served in run.data["encoders"]},
            "generator's machine": f"{client['processor']}, {client['cores']} cores, {client['system']}",
            "generator's software": ", ".join(f"{name} {version}" for name, version in client["versions"].items())
            + f", Python {client['python']}, {client['event_loop']}",
            "generator's CPU": ", ".join(map(share_text, run.run["generator_cpu"])) + " of a core, by process",
            **{name.replace("_", " "): _value(value, name in SECONDS) for name, value in settings.items()},
        }  # fmt: skip
        for name, value in facts.items():
            rows.setdefault(name, ["–"] * len(runs))[place] = value
    names = [run.name for run in runs] if len(runs) > 1 else ["value"]
    made = table(("setting", *names), ((name, *values) for name, values in rows.items()))
    made.set("class", "table facts")
    yield element("section", element("h2", "Machine and settings"), made)


def _served(served: dict[str, str]) -> str:
    version = f"version {served['version']}: " if served["version"] else ""
    return f"{version}{served['text']}"


def _value(value: object, seconds: bool) -> str:
    match value:
        case float() | int() if seconds:
            return time_text(value)
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(map(str, value)) or "–"
        case float():
            return f"{value:g}"
    return str(value)


def _spectra(run: SavedRun) -> list[tuple[str, Histogram]]:
    found = [("latency", run.latency)]
    # Calls that failed without being sent took no time.
    if histogram(run.run["latency_all"]).count > run.latency.count:
        found.append(("with failed", histogram(run.run["latency_all"])))
    if run.data["settings"]["in_flight"] is None:
        found.append(("lag", histogram(run.run["lag"])))
    return found


def _tiles(run: SavedRun) -> Element:
    measured, latency = run.run, run.latency
    search = run.data["search"]
    tiles: list[tuple[str, str]] = []
    if search is not None:
        objectives = ", ".join(search["objectives"])
        rate = (search["capacity"] or {}).get("rate")
        tiles.append((number_text(rate) if rate else "none", f"calls/s of capacity for {objectives}"))
    for percent in (50.0, 99.0):
        value = latency.supported(percent)
        what = f"p{percent:g} latency" if value else f"p{percent:g} needs {needed(percent):,} calls"
        tiles.append((time_text(value), what))
    answered, offered = measured["achieved"], measured["offered"]
    told = f"calls/s answered of {number_text(offered['calls'])} due"
    if answered["sequences"] != answered["calls"]:
        told += f"; {number_text(answered['sequences'])} sequences/s"
    tiles.append((number_text(answered["calls"]), told))
    failed = measured["failed"] / measured["calls"] if measured["calls"] else None
    tiles.append((share_text(failed), f"of {measured['calls']:,} calls failed"))
    if (good := measured["goodput"]) is not None:
        tiles.append((share_text(good["share"]), f"within {time_text(run.data['settings']['goodput'])} (goodput)"))
    if (check := run.data["check"]) is not None:
        tiles.append((f"{check['compared'] - check['wrong']} of {check['compared']}", "vectors checked are right"))
    return element("div", *(element("div", element("b", big), element("span", small), class_="tile")
                            for big, small in tiles), class_="tiles")  # fmt: skip


def _notices(run: SavedRun) -> Iterator[Element]:
    measured, search = run.run, run.data["search"]
    for failure in run.data["failures"]:
        yield _notice(f"Failed: {failure}", "failed")
    if run.data["interrupted"]:
        yield _notice("Ended early: what follows is of the calls until then.")
    if search is not None and search["capacity"] is not None:
        yield _notice(
            f"Capacity: {search['capacity']['words']}. Figures below are of the last step, unless they say otherwise."
        )
    if run.data["settings"]["in_flight"] is not None:
        yield _notice("A closed loop: callers that wait for their replies hide how long others would have waited.")
    elif measured["generator_late"]:
        yield _notice(f"The latency is partly the generator's: {measured['generator_late']}.")
    for code, count in measured["codes"].items():
        if code != "OK":
            said = f": {measured['messages'][code]}" if code in measured["messages"] else ""
            yield _notice(f"{count:,} × {code}{said}", "failed")
    for problem in (run.data["server_metrics"] or {}).get("problems", ()):
        yield _notice(f"Metrics of the server: {problem}")


def _notice(text: Child, kind: str = "") -> Element:
    return element("p", text, class_=f"notice {kind}".strip())


def _hatch() -> Element:
    """The pattern of what is not known; charts refer to it."""
    pattern = element(
        "pattern", element("path", d="M0 6L6 0"), id="hatch", width=6, height=6, patternUnits="userSpaceOnUse"
    )
    return element("svg", element("defs", pattern), class_="defs", width=0, height=0, aria_hidden="true")
