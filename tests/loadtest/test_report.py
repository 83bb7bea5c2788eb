"""The page of a load test, read with a parser of HTML."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from birnn.cli.main import main
from birnn_loadtest.report.compare_page import Comparison
from birnn_loadtest.report.page import report
from birnn_loadtest.report.saved_run import SavedRun
from tests.client.fake_service import FakeService
from tests.loadtest.saved_runs import recording, saved, server_split, written

HOSTILE = "</style><script>alert(1)</script>\"'><img src=x onerror=alert(2)>&lt;\x1b[2J\u202e\ud800{url(http://evil)}"
VOID = {"meta", "br", "img"}


class Reader(HTMLParser):
    """Tags with their attributes, and text by the tag it stands in; fails where tags do not match."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.setdefault(self._open[-1] if self._open else "", []).append(data)


def page(**given: Any) -> Reader:
    return Reader(report(SavedRun("run", saved(**given))))


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["loadtest", *map(str, arguments)])


def full(name: str = "smiles") -> dict[str, Any]:
    return saved(recording(failing=0.05), server_split(), steps=5, name=name)


def test_a_whole_result_has_all_charts_each_with_words_and_a_table() -> None:
    read = Reader(report(SavedRun("run", full())))
    assert read.text["h2"] == [
        "Latency against throughput", "Percentile spectrum", "Latency over time", "Where the time of a call went",
        "Batch sizes", "Machine and settings",
    ]  # fmt: skip
    charts = [attributes for tag, attributes in read.tags if tag == "svg" and "role" in attributes]
    assert len(charts) == 6, "failures have a chart of their own"
    ids = {attributes.get("id") for _, attributes in read.tags}
    assert all(set((chart["aria-labelledby"] or "").split()) <= ids for chart in charts)
    assert len(read.text["desc"]) == 6
    assert sum(tag == "table" for tag, _ in read.tags) == 6
    assert "SLO 50 ms" in read.text["text"]
    shapes = {
        (attributes.get("class") or "").split()[0]
        for tag, attributes in read.tags
        if tag == "path"
        if "class" in attributes
    }
    assert shapes >= {"disc", "cross", "triangle"}
    assert read.text["td"].count("does not count: late generator") == 1


def test_each_objective_of_latency_has_a_chart_with_its_line() -> None:
    data = full()
    data["search"]["limits"].insert(0, {"metric": "p50", "limit": 0.007})
    read = Reader(report(SavedRun("run", data)))
    titles = [title for title in read.text["title"] if "against answered calls" in title]
    assert titles == [f"{metric} latency against answered calls per second" for metric in ("p50", "p99")]
    assert {"SLO 7 ms", "SLO 50 ms"} <= set(read.text["text"])


def test_what_is_missing_is_left_out_with_a_reason() -> None:
    read = page()
    reasons = [text for text in read.text["p"] if text.startswith("Left out")]
    assert len(reasons) == 3
    assert any("--slo" in text for text in reasons)
    assert sum("--metrics" in text for text in reasons) == 2
    split = server_split()
    del split.stages["queue"]
    split.missing.append("birnn_queue_seconds")
    split.batches = None
    reasons = [text for text in page(split=split).text["p"] if text.startswith("Left out")]
    assert "Left out: not measured: birnn_queue_seconds." in reasons
    assert "Left out: the server does not tell them." in reasons


def test_a_run_without_answers_has_a_page() -> None:
    read = page(what=recording(failing=1.1))
    assert "–" in read.text["b"]
    assert any("8,000 × UNAVAILABLE: the server is away" in text for text in read.text["p"])
    assert page(what=recording(seconds=1, rate=0)).text["h1"] == ["Load test of smiles"]


def test_stages_add_up_and_what_is_not_known_is_its_own_part() -> None:
    read = page(split=server_split())
    parts = [attributes for tag, attributes in read.tags if tag == "rect" and "part-" in (attributes["class"] or "")]
    stages = [part for part in parts if part["y"] == "62"]
    assert ["unknown" in (part["class"] or "") for part in stages] == [False, True, False, False, False, True]
    text = " ".join(read.text["text"])
    for label in ("tokenize 0.20", "queue 0.30", "compute 0.50", "rest 1.00", "lag 0.10"):
        assert label in text
    widths = [float(part["width"] or 0) for part in stages[2:]]
    assert widths[0] / widths[3] == pytest.approx(0.2, rel=0.05)


def test_batches_are_counted_by_size() -> None:
    read = page(split=server_split())
    place = read.text["th"].index("sequences")
    assert read.text["th"][place : place + 6] == ["sequences", "batches", "share", "1", "2", "3–4"]


@pytest.mark.parametrize("make", [
    lambda: report(SavedRun("run", full(HOSTILE))),
    lambda: Comparison([SavedRun(HOSTILE, full()), SavedRun("two", full(HOSTILE))]).html(),
])  # fmt: skip
def test_no_text_of_a_run_becomes_markup(make: Callable[[], str]) -> None:
    text = make()
    # It can be written, and shows what would not be seen.
    text.encode()
    read = Reader(text)
    assert not {tag for tag, _ in read.tags} & {"script", "img", "iframe", "object", "link", "base", "form", "a"}
    names = {name for _, attributes in read.tags for name in attributes}
    assert not {name for name in names if name.startswith("on")} | names & {"href", "src", "style", "xlink:href"}
    everything = " ".join(part for parts in read.text.values() for part in parts)
    assert "<script>alert(1)</script>" in everything
    assert not set(everything) & {"\x1b", "\u202e", "\ud800"}


def test_a_page_asks_for_nothing() -> None:
    text = report(SavedRun("run", full()))
    policy = next(attributes["content"] for tag, attributes in Reader(text).tags if "http-equiv" in attributes)
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert not re.findall(r"https?://|@import|url\((?!#hatch\))", text)


def test_the_command_draws_the_page_that_a_saved_run_has(service: FakeService, tmp_path: Path) -> None:
    molecules, out, html = tmp_path / "molecules.smi", tmp_path / "this run.json", tmp_path / "run.html"
    molecules.write_text("CCO\n")
    options = ["--rate", 100, "--duration", 2, "--warmup", 0, "--out", out, "--html", html]
    result = invoke("--address", service.address, "--file", molecules, *options)
    assert result.exit_code == 0, result.output
    assert invoke("report", out, "-o", tmp_path / "saved.html").exit_code == 0
    # The numbers of charts go on counting.
    pages = [re.sub(r"(title|desc)-\d+", r"\1", path.read_text()) for path in (html, tmp_path / "saved.html")]
    assert pages[0] == pages[1]
    assert Reader(pages[0]).text["h1"] == ["Load test of smiles"]


def test_compare_says_what_is_beyond_noise(tmp_path: Path) -> None:
    one = written(tmp_path, name="one")
    two = written(tmp_path, lambda: saved(recording(scale=0.008, seed=1)), "two")
    result = invoke("compare", one, two, "-o", tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    lines = {line.split()[0]: line for line in result.stdout.splitlines() if line}
    assert lines["p50"].endswith("higher")
    assert lines["failed"].endswith("within noise")
    assert "bootstrap" in result.stdout
    read = Reader((tmp_path / "page.html").read_text())
    assert "two against one" in read.text["h2"]
    assert any(text.startswith("Beyond noise: mean higher, p50 higher") for text in read.text["p"])


def test_compare_says_what_makes_runs_differ(tmp_path: Path) -> None:
    def other() -> dict[str, Any]:
        data = saved(recording(seconds=5), steps=3)
        data["settings"]["batches"] = ["32"]
        data["client"]["processor"] = "another"
        data["search"]["capacity"]["rate"] = 250.0
        return data

    search = written(tmp_path, lambda: saved(steps=3), "search")
    result = invoke("compare", search, written(tmp_path, other, "other"), written(tmp_path, name="search-2"))
    assert "other differs from search in machine, batches" in result.stdout
    assert "other has 5 windows" in result.stdout
    assert "capacity of other against search: 100 to 250 calls/s (+150.0%), beyond the resolution" in result.stdout
    assert "unknown" in result.stdout


def test_files_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    result = invoke("compare", *(written(folder) for folder in folders))
    assert "run (2) against run (1)" in result.stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ('{"schema_version": 2, "run": NaN}', "NaN is not a number"),
        ("[]", "it has none for schema_version, which must be 2"),
        ('{"schema_version": 1}', "it has 1 for schema_version"),
        ('{"schema_version": 2}', "is missing"),
        (json.dumps(saved() | {"run": []}), "is not a whole result"),
        (json.dumps(saved()).replace("HISTF", "AAAAA"), "is not a whole result"),
    ],
)
def test_what_is_no_result_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text)
    for arguments in (["report", path, "-o", tmp_path / "page.html"], ["compare", path, written(tmp_path)]):
        result = invoke(*arguments)
        assert result.exit_code == 3, result.output
        assert "broken" in result.stderr
        assert message in result.stderr
    assert not (tmp_path / "page.html").exists()


def test_wrong_usage_is_explained(tmp_path: Path) -> None:
    run = written(tmp_path)
    for arguments, message in (
        (["report", run], "Missing option '-o'"),
        (["report", run, "-o", run], "are the same file"),
        (["compare", run], "takes 2 to 6 results, and got 1"),
        (["compare", *[run] * 7], "takes 2 to 6 results, and got 7"),
        (["compare", run, run, "-o", run], "are the same file"),
        (["--rate", "1", "--file", run, "compare"], "comes before all options"),
        (["draw"], "Missing option '--file'"),
        ([], "Missing option '--file'"),
    ):
        result = invoke(*arguments)
        assert result.exit_code == 2, result.output
        assert message in result.stderr
    assert invoke("report", tmp_path / "none.json", "-o", tmp_path / "page.html").exit_code == 3
    assert "cannot write" in invoke("report", run, "-o", tmp_path / "none" / "page.html").stderr


def test_help_shows_the_load_test_and_its_commands() -> None:
    shown = invoke("--help").output
    assert "--slo OBJECTIVE" in shown
    assert "compare" in shown
    assert invoke("report", "--help").output.startswith("Usage: main loadtest report [OPTIONS] RUN")
