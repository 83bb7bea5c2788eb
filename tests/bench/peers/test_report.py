import json
from pathlib import Path
from typing import Any

import pytest

from bench.loads import Load
from bench.markdown import table
from bench.peers.comparison import BARE
from bench.peers.records import Record
from bench.peers.report import rows, write_report
from tests.bench.peers.samples import LONE, record

FACTS: dict[str, Any] = {
    "machine": {"cpu": "a processor", "system": "a system", "started": "now", "commit": "abc"},
    "model": "bigru",
    "file": "some.smi",
    "sequences": 1000,
    "mean_length": 47.6,
    "server_cores": [0, 1],
    "client_cores": [0, 1],
    "commands": ["python -m bench.peers rounds"],
    "versions": {"Triton": ["nvidia-pytriton==0.7.0"]},
}


def measured() -> list[Record]:
    return [
        record("Triton", 500.0, phase="search", settings={"max_batch_size": 64}),
        record("Triton", 400.0, phase="search", settings={"max_batch_size": 32}),
        record("Triton", 500.0, number=1, p99=0.4, settings={"max_batch_size": 64}),
        record("ours", 1500.0, number=1, p99=0.1, facts={"padding": 0.05, "shared": 0.0, "other_cores": 0.25}),
        record("Triton", 600.0, number=2, p99=0.4, settings={"max_batch_size": 64}),
        record("ours", 1500.0, number=2, p99=0.1, facts={"padding": 0.07, "shared": 0.0, "other_cores": 0.75}),
        record("MLServer", None, number=2),
        record("ours", 700.0, load=LONE),
        record(BARE, 1000.0, load=LONE),
        *(record("ours", 100.0 * number, phase="sweep", load=Load("sweep", 1, number)) for number in (1, 2, 4)),
    ]


def test_ours_comes_first_and_the_others_carry_our_ratios() -> None:
    first, second, third = rows(measured())
    assert (first.server, second.server, third.load) == ("ours", "Triton", LONE)
    assert first.ratios == {}
    assert first.facts["padding"] == pytest.approx(0.06)
    assert second.ratios["ours"].throughput == pytest.approx((3.0 + 2.5) / 2)
    assert second.ratios["ours"].p99 == pytest.approx(0.25)


def test_two_of_our_servers_are_each_compared_with_the_others() -> None:
    found = rows([record("ours", 100.0), record("ours --engine native", 300.0), record("Triton", 50.0)])
    (triton,) = (row for row in found if row.server == "Triton")
    assert triton.ratios["ours"].throughput == pytest.approx(2.0)
    assert triton.ratios["ours --engine native"].throughput == pytest.approx(6.0)


def test_the_report_says_what_was_seen_with_which_settings_and_how_to_repeat_it(tmp_path: Path) -> None:
    write_report(tmp_path, measured(), FACTS)
    text = (tmp_path / "report.md").read_text()
    assert "| Triton | 2 | 550 | 17.2 | 10.00 | 400.00 | 2.75x | 1.00x | 0.25x |" in text
    assert "| ours | 2 | 1,500 |" in text
    assert "6.0% | 0.0% |  |  |  | 0.50 |" in text
    assert "`session.run` alone, one thread, single sequences: p50 10.00 ms" in text
    assert "| Triton | max_batch_size 64 |" in text
    assert "python -m bench.peers rounds" in text
    assert "start ours" in text
    assert "nvidia-pytriton==0.7.0" in text
    assert "MLServer, 32 sequences a call, 8 in flight: it broke" in text
    assert "![throughput-p99-batch-1](throughput-p99-batch-1.png)" in text
    assert (tmp_path / "throughput-p99-batch-1.png").read_bytes().startswith(b"\x89PNG")


def test_the_report_for_programs_holds_every_round(tmp_path: Path) -> None:
    write_report(tmp_path, measured(), FACTS)
    report = json.loads((tmp_path / "report.json").read_text())
    (triton,) = (result for result in report["results"] if result["server"] == "Triton")
    assert set(triton["rounds"]) == {"1", "2"}
    assert triton["median"]["sequences_per_second"] == pytest.approx(550)
    assert report["settings"] == {"Triton": {"bulk": {"max_batch_size": 64}}}
    assert [failure["server"] for failure in report["failures"]] == ["MLServer"]


def test_a_report_without_a_search_or_a_sweep_is_whole(tmp_path: Path) -> None:
    write_report(tmp_path, [record("ours", 100.0)], FACTS)
    text = (tmp_path / "report.md").read_text()
    assert "| ours | 1 | 100 |" in text
    assert "The search" not in text
    assert ".png" not in text


def test_a_cell_cannot_end_a_row() -> None:
    assert table(["a"], [["x|y"]]) == "| a |\n| --- |\n| x\\|y |"
