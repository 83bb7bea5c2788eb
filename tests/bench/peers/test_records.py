from pathlib import Path

import pytest

from bench.peers.records import Records, best_settings, medians, ratios
from tests.bench.peers.samples import LONE, record, sample


def test_what_was_measured_is_read_back_and_added_to(tmp_path: Path) -> None:
    first, second = record("ours", 100.0, facts={"padding": 0.05}), record("Triton", None, number=2)
    Records(tmp_path).add(first)
    Records(tmp_path).add(second)
    records = Records(tmp_path)
    assert records.all() == [first, second]
    assert records.next_round() == 3


def test_a_new_folder_begins_with_round_one_whatever_was_searched(tmp_path: Path) -> None:
    records = Records(tmp_path / "new")
    records.add(record("Triton", 10.0, number=7, phase="search"))
    assert records.next_round() == 1


def test_the_best_settings_are_those_with_the_most_sequences_for_each_load() -> None:
    found = best_settings(
        [
            record("Triton", 100.0, phase="search", settings={"delay": 0}),
            record("Triton", 200.0, phase="search", settings={"delay": 1000}),
            record("Triton", None, phase="search", settings={"delay": 5000}),
            record("Triton", 90.0, phase="search", settings={"delay": 0}, load=LONE),
            record("Triton", 30.0, phase="search", settings={"delay": 1000}, load=LONE),
            record("Triton", 999.0, settings={"delay": 7}),
        ]
    )
    assert found == {"Triton": {"bulk": {"delay": 1000}, "lone": {"delay": 0}}}


def test_medians_are_taken_figure_by_figure() -> None:
    middle = medians([sample(100, p50=0.3), sample(300, p50=0.1), sample(200, p50=0.2)])
    assert middle is not None
    assert middle.sequences_per_second == 200
    assert middle.p50 == 0.2
    assert middle.calls == 300
    assert medians([]) is None


def test_ratios_are_taken_within_rounds_before_their_median() -> None:
    # The machine was twice as fast in the second round: the ratio is 2 all the same.
    found = ratios(
        {1: sample(200, p99=0.1), 2: sample(400, p99=0.05)}, {1: sample(100, p99=0.2), 2: sample(200, p99=0.1)}
    )
    assert found is not None
    assert found.throughput == pytest.approx(2.0)
    assert found.p99 == pytest.approx(0.5)
    assert found.rounds == 2


def test_rounds_that_only_one_server_has_do_not_compare() -> None:
    found = ratios({1: sample(200), 2: sample(900)}, {1: sample(100), 3: sample(1)})
    assert found is not None
    assert found.rounds == 1
    assert found.throughput == pytest.approx(2.0)
    assert ratios({1: sample(1)}, {2: sample(1)}) is None
