from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from birnn_loadtest.arrivals import GAPS, Gaps, Process, Rate, Trace, TraceError

rates = st.floats(0.5, 2000)


def arrivals(process: Process, warmup: float, seconds: float, seed: int = 0) -> NDArray[np.float64]:
    return np.concatenate([np.empty(0), *process.blocks(warmup, seconds, seed)])


@given(
    start=rates,
    end=rates,
    gaps=st.sampled_from(GAPS),
    burstiness=st.floats(0.1, 50),
    warmup=st.floats(0, 2),
    seconds=st.floats(0.01, 3),
    seed=st.integers(0, 1000),
)
def test_arrivals_ascend_within_the_test_and_repeat_with_the_seed(
    start: float, end: float, gaps: Gaps, burstiness: float, warmup: float, seconds: float, seed: int
) -> None:
    process = Process(Rate(start, end), gaps, burstiness)
    times = arrivals(process, warmup, seconds, seed)
    assert np.all(np.diff(times) >= 0)
    assert np.all((times >= 0) & (times < warmup + seconds))
    np.testing.assert_array_equal(times, arrivals(process, warmup, seconds, seed))


def test_a_longer_test_begins_with_the_same_arrivals() -> None:
    process = Process(Rate(700, 700))
    short, long = arrivals(process, 0, 3), arrivals(process, 0, 30)
    np.testing.assert_array_equal(long[: len(short)], short)


def test_another_seed_gives_other_arrivals() -> None:
    process = Process(Rate(100, 100))
    assert not np.array_equal(arrivals(process, 0, 1, 0)[:10], arrivals(process, 0, 1, 1)[:10])


@pytest.mark.parametrize(
    ("gaps", "burstiness", "variation"), [("poisson", 1.0, 1.0), ("constant", 1.0, 0.0), ("gamma", 4.0, 4.0)]
)
def test_gaps_vary_as_asked_for_at_the_same_rate(gaps: Gaps, burstiness: float, variation: float) -> None:
    times = arrivals(Process(Rate(1000, 1000), gaps, burstiness), 0, 200)
    found = np.diff(times)
    assert len(times) == pytest.approx(200_000, rel=0.02)
    assert found.var() / found.mean() ** 2 == pytest.approx(variation, rel=0.05, abs=1e-6)


def test_a_ramp_begins_after_the_warm_up_and_goes_from_rate_to_rate() -> None:
    times = arrivals(Process(Rate(100, 300), "constant"), 5, 10)
    counts, _ = np.histogram(times, np.arange(0, 16))
    assert counts[:5].tolist() == [100] * 5 or abs(counts[:5].sum() - 500) <= 1
    # In second k of the ramp the rate is 100 + 20 (k + 1/2).
    np.testing.assert_allclose(counts[5:], 110 + 20 * np.arange(10), atol=1)


def test_a_ramp_falls_as_well() -> None:
    counts, _ = np.histogram(arrivals(Process(Rate(300, 100), "constant"), 0, 10), np.arange(0, 11))
    np.testing.assert_allclose(counts, 290 - 20 * np.arange(10), atol=1)


@pytest.mark.parametrize(("text", "rate"), [("50", Rate(50, 50)), ("10..200", Rate(10, 200)), ("1e3", Rate(1e3, 1e3))])
def test_rates_are_read(text: str, rate: Rate) -> None:
    assert Rate.read(text) == rate


@pytest.mark.parametrize("text", ["", "0", "-1", "5..", "..5", "0..5", "nan", "inf", "5x", "1..2..3"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write calls per second above 0"):
        Rate.read(text)


def test_a_trace_keeps_its_own_times(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("encoder,seconds,batch\nsmiles,12.5,1\ntext,10,3\nsmiles,11,2\n")
    trace = Trace.read(path, speed=2.0)
    assert trace.times.tolist() == [0.0, 0.5, 1.25]
    assert trace.encoders == ["text", "smiles", "smiles"]
    assert trace.batches is not None
    assert trace.batches.tolist() == [3, 2, 1]
    assert 1.25 < trace.seconds < 1.26


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time\n1\n", "names its columns: seconds"),
        ("seconds\n", "holds no call"),
        ("seconds\n1\nx\n", "line 3: seconds must be a number"),
        ("seconds\nnan\n", "line 2"),
        ("seconds,batch\n1,0\n", "from 1 to 16384"),
        ("seconds,batch\n1\n", "line 2"),
    ],
)
def test_a_trace_that_cannot_be_read_says_where(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(TraceError, match=message):
        Trace.read(path)
