import json
import sys
from pathlib import Path

import click
import numpy as np
import pytest

from bench.loads import Load
from bench.peers.perf_analyzer import PerfAnalyzer, pool, read_profile, write_input

# Stands in for the program: writes what perf_analyzer exports, for the data that it was given.
PROGRAM = """#!{python}
import json, sys, time
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
data = json.load(open(options["--input-data"]))["data"]
with open({log!r}, "a") as log:
    log.write(json.dumps([options["-p"], [entry["text"][0] for entry in data]]) + "\\n")
if int(options["-p"]) < {shortest}:
    sys.exit("No valid requests recorded within time interval. Please use a larger time window.")
start = time.time_ns()
calls = [{{"timestamp": start + n * 10**8, "response_timestamps": [start + n * 10**8 + 5 * 10**7]}} for n in range(50)]
with open(options["--profile-export-file"], "x") as file:
    json.dump({{"experiments": [{{"requests": calls}}]}}, file)
"""


def stand_in(folder: Path, shortest: int = 0) -> tuple[PerfAnalyzer, Path]:
    log, program = folder / "log", folder / "perf_analyzer"
    program.write_text(PROGRAM.format(python=sys.executable, log=str(log), shortest=shortest))
    program.chmod(0o755)
    return PerfAnalyzer(program, folder, "of our own"), log


def test_every_caller_is_a_program_with_sequences_of_its_own(tmp_path: Path) -> None:
    analyzer, log = stand_in(tmp_path)
    sequences = [f"C{number}" for number in range(20)]
    load = Load("", 2, 4)
    sample = analyzer.run(load, "m", "host:1", sequences, window=0.3, prefix=[], scratch=tmp_path / "scratch")
    held = [json.loads(line)[1] for line in log.read_text().splitlines()]
    assert len(held) == 4
    assert sorted(sequence for mine in held for sequence in mine) == sorted(sequences)
    # Each of four callers sends ten calls a second.
    assert sample.calls_per_second == pytest.approx(40, rel=0.1)
    assert sample.sequences_per_second == pytest.approx(2 * sample.calls_per_second)
    assert sample.p50 == pytest.approx(0.05, rel=1e-4)


def test_a_caller_without_an_answer_in_a_window_gets_longer_ones(tmp_path: Path) -> None:
    analyzer, log = stand_in(tmp_path, shortest=600)
    analyzer.run(Load("", 1, 1), "m", "host:1", ["C"], window=0.3, prefix=[], scratch=tmp_path / "scratch")
    assert [json.loads(line)[0] for line in log.read_text().splitlines()] == ["300", "600"]


def test_a_program_that_fails_whatever_the_window_fails_the_measurement_with_its_last_line(tmp_path: Path) -> None:
    analyzer, _ = stand_in(tmp_path, shortest=10_000)
    with pytest.raises(click.ClickException, match="larger time window"):
        analyzer.run(Load("", 1, 1), "m", "host:1", ["C"], window=0.3, prefix=[], scratch=tmp_path / "scratch")


def test_the_input_file_holds_one_string_an_entry(tmp_path: Path) -> None:
    write_input(tmp_path / "data.json", ["CCO", "Cl\\C=C/Cl"])
    assert json.loads((tmp_path / "data.json").read_text()) == {"data": [{"text": ["CCO"]}, {"text": ["Cl\\C=C/Cl"]}]}


def test_a_profile_is_read_in_seconds_and_calls_without_an_answer_are_left_out(tmp_path: Path) -> None:
    requests = [
        {"timestamp": 1_000_000_000, "response_timestamps": [1_250_000_000]},
        {"timestamp": 2_000_000_000, "response_timestamps": []},
    ]
    (tmp_path / "profile.json").write_text(json.dumps({"experiments": [{"requests": requests}]}))
    np.testing.assert_allclose(read_profile(tmp_path / "profile.json"), [[1.0, 1.25]])


def test_an_empty_profile_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "profile.json").write_text(json.dumps({"experiments": [{"requests": []}]}))
    with pytest.raises(click.ClickException, match="recorded no call"):
        read_profile(tmp_path / "profile.json")


def test_only_the_time_in_which_all_callers_ran_counts() -> None:
    early = np.array([[0.0, 0.5], [0.5, 1.5], [1.5, 2.5]])
    late = np.array([[1.0, 1.2], [1.2, 1.8], [1.8, 3.0]])
    sample = pool([early, late], 1, warmup=0.0)
    # From 1.0 to 2.5: answers at 1.2, 1.5, 1.8 and 2.5, of which the one at 1.5 was sent before.
    assert sample.seconds == pytest.approx(1.5)
    assert sample.calls_per_second == pytest.approx(4 / 1.5)
    assert sample.calls == 3


def test_a_time_together_that_is_too_short_is_no_measurement() -> None:
    callers = [np.array([[0.0, 1.0]]), np.array([[0.5, 1.0]])]
    assert pool(callers, 1, warmup=0.0, least=0.4).seconds == pytest.approx(0.5)
    with pytest.raises(click.ClickException, match=r"ran together for 0\.5 s only"):
        pool(callers, 1, warmup=0.0, least=0.6)


def test_callers_that_never_ran_together_are_no_measurement() -> None:
    with pytest.raises(click.ClickException, match=r"ran together for 0\.0 s only"):
        pool([np.array([[0.0, 1.0]]), np.array([[2.0, 3.0]])], 1, warmup=0.0)
