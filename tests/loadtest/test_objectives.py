import pytest
from hypothesis import given
from hypothesis import strategies as st

from birnn_loadtest.check import Check
from birnn_loadtest.durations import duration, read_duration, read_share
from birnn_loadtest.objectives import Objective, Threshold
from birnn_loadtest.recorder import Recorder, Recording


def recorded(latencies: list[float], failed: int = 0) -> Recording:
    recorder = Recorder(0, 10)
    for latency in latencies:
        recorder.record("a", 1.0, 1.0, 1.0 + latency, "OK", 2, item_errors=1)
    for _ in range(failed):
        recorder.record("a", 1.0, 1.0, 1.0, "UNAVAILABLE", 2)
    return recorder.finished(0.1)


@pytest.mark.parametrize(
    ("text", "objective", "allowed", "calls"),
    [
        ("p99=20ms", Objective("p99", 0.02), 0.01, 299),
        ("p99.9 = 1.5s", Objective("p99.9", 1.5), 0.001, 2995),
        ("errors=0.1%", Objective("errors", 0.001), 0.001, 2995),
        ("errors=0.05", Objective("errors", 0.05), 0.05, 59),
    ],
)
def test_objectives_are_read(text: str, objective: Objective, allowed: float, calls: int) -> None:
    assert Objective.read(text) == objective
    assert objective.allowed == pytest.approx(allowed)
    assert objective.needed == calls
    assert Objective.read(str(objective)) == objective


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("p99", "write p99=20ms"),
        ("p99=20", "write a number and a unit"),
        ("p99=0ms", "above 0"),
        ("p0=1ms", "write p99=20ms"),
        ("p100=1ms", "write p99=20ms"),
        ("latency=1ms", "write p99=20ms"),
        ("errors=0%", "can never be shown"),
        ("errors=2ms", "write 0.1%"),
        ("errors=101%", "between 0 and 1"),
        ("p99>20ms", "write p99=20ms"),
    ],
)
def test_what_is_no_objective_is_explained(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Objective.read(text)


def test_calls_that_failed_miss_every_limit() -> None:
    (window,) = recorded([0.01] * 90 + [0.5] * 5, failed=5).windows(1)
    assert Objective.read("p99=20ms").missed(window) == 10
    assert Objective.read("errors=1%").missed(window) == 5


@pytest.mark.parametrize(
    ("text", "value", "failed"),
    [
        ("p50>5ms", "10ms", True),
        ("p50>20ms", "10ms", False),
        ("p99>20ms", "unknown: 100 calls ended OK, 299 are needed", True),
        ("errors>10%", "20%", True),
        ("errors>=20%", "20%", True),
        ("errors>20%", "20%", False),
        ("goodput<70%", "72%", False),
        ("calls<100", "10", True),
        ("sequences<=20", "20", True),
        ("sequence-errors>50%", "50%", False),
        ("wrong>0", "1", True),
        ("max>400ms", "500ms", True),
        ("mean>1s", "59ms", False),
        ("lag>1s", "1us", False),
    ],
)
def test_thresholds_are_judged(text: str, value: str, failed: bool) -> None:
    recording = recorded([0.01] * 90 + [0.5] * 10, failed=25)
    judgment = Threshold.read(text).judge(recording, Check(compared=3, wrong=1), goodput=0.05)
    assert (judgment.value, judgment.failed) == (value, failed)


def test_a_threshold_of_what_is_not_known_fails() -> None:
    judgment = Threshold.read("mean>1s").judge(recorded([], failed=3), None, None)
    assert judgment.failed
    assert "no call ended OK" in judgment.value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("p99=50ms", "write METRIC>LIMIT"),
        ("speed>1", "there are: p50"),
        ("errors>x", "write 0.1%"),
        ("calls<-1", "not a number"),
    ],
)
def test_what_is_no_threshold_is_explained(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Threshold.read(text)


@given(st.floats(1e-6, 1e3))
def test_durations_are_read_as_they_are_written(seconds: float) -> None:
    assert read_duration(duration(seconds)) == pytest.approx(seconds, rel=6e-3)


@pytest.mark.parametrize(("text", "seconds"), [("250us", 250e-6), ("20 ms", 0.02), (".5s", 0.5), ("2min", 120.0)])
def test_durations_have_units(text: str, seconds: float) -> None:
    assert read_duration(text) == pytest.approx(seconds)


def test_shares_are_percent_or_fractions() -> None:
    assert read_share("0.1%") == pytest.approx(read_share("0.001"))
