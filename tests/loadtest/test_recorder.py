from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
from hypothesis import given
from hypothesis import strategies as st

from birnn_loadtest.histogram_log import write_log
from birnn_loadtest.recorder import MOST_CLASSES, MOST_CODES, NOT_SENT_LATE, OTHER, Recorder, Recording

calls = st.lists(
    st.tuples(
        st.floats(0, 20),
        st.floats(1e-5, 30),
        st.sampled_from(["OK", "OK", "UNAVAILABLE", NOT_SENT_LATE]),
        st.integers(1, 9),
    ),
    max_size=60,
)


def recorded(calls: list[tuple[float, float, str, int]], warmup: float = 1.0, seconds: float = 12.0) -> Recording:
    recorder = Recorder(warmup, seconds)
    for due, took, code, sequences in calls:
        recorder.record("smiles x 1", due, due, due + took, code, sequences)
    return recorder.finished(0.5)


@given(calls=calls, cut=st.integers(0, 60))
def test_merged_recordings_are_that_of_all_calls(calls: list[tuple[float, float, str, int]], cut: int) -> None:
    merged, whole = Recording.merged([recorded(calls[:cut]), recorded(calls[cut:])]), recorded(calls)
    assert merged.codes == whole.codes
    assert (merged.calls, merged.failed, merged.sequences_due) == (whole.calls, whole.failed, whole.sequences_due)
    assert merged.last == whole.last
    assert set(merged.intervals) == set(whole.intervals)
    for number, packed in merged.intervals.items():
        one, other = packed.unpacked(), whole.intervals[number].unpacked()
        assert (one.calls, one.failed, one.sequences) == (other.calls, other.failed, other.sequences)
        np.testing.assert_array_equal(one.latency.counts, other.latency.counts)
    for name in ("latency", "latency_all", "service_time", "lag"):
        np.testing.assert_array_equal(getattr(merged, name).counts, getattr(whole, name).counts)
    assert merged.cpu == [0.5, 0.5]


@given(calls=calls)
def test_intervals_add_up_to_the_whole(calls: list[tuple[float, float, str, int]]) -> None:
    recording = recorded(calls)
    measured = [call for call in calls if 1.0 <= call[0] < 13.0]
    assert recording.calls == len(measured)
    for most in (1, 5, 100):
        windows = recording.windows(most)
        assert len(windows) <= most
        assert sum(window.calls for window in windows) == recording.calls
        assert sum(window.latency.count for window in windows) == recording.latency.count
    assert recording.failed == sum(call[2] != "OK" for call in measured)


def test_calls_count_for_the_second_in_which_they_were_due() -> None:
    recording = recorded([(0.5, 9.0, "OK", 1), (1.5, 8.0, "OK", 1), (3.9, 0.1, "OK", 1), (13.0, 0.1, "OK", 1)])
    assert {number: packed.calls for number, packed in recording.intervals.items()} == {0: 1, 2: 1}
    assert recording.intervals[0].unpacked().latency.maximum == pytest.approx(8.0, rel=1e-3)


def test_late_answers_lengthen_the_time_that_rates_are_taken_over() -> None:
    assert recorded([(1.5, 20.0, "OK", 1)]).took == pytest.approx(20.5)
    assert recorded([(1.5, 0.1, "OK", 1)]).took == 12.0


def test_old_intervals_are_packed_and_opened_again() -> None:
    recorder = Recorder(0, 1000)
    for second in (*range(100), *range(100)):
        recorder.record("a", second, second, second + 0.1, "OK", 1)
    recording = recorder.finished(0)
    assert [recording.intervals[number].calls for number in range(100)] == [2] * 100


def test_the_number_of_intervals_codes_and_classes_is_bounded() -> None:
    recorder = Recorder(0, 100_000)
    for number in range(200):
        recorder.record(f"class {number}", number * 500, number * 500, number * 500 + 1, "OK", 1)
        recorder.record("a", number * 500, number * 500, number * 500 + 1, f"CODE {number}", 1)
        recorder.note(f"CODE {number}", "x" * 1000)
    recording = recorder.finished(0)
    assert max(recording.intervals) < 3600
    assert len(recording.codes) <= MOST_CODES + 1
    assert recording.codes[OTHER] == 200 - (MOST_CODES - 1)
    assert len(recording.classes) <= MOST_CLASSES + 1
    assert len(recording.messages) <= MOST_CODES
    assert recording.calls == 400


def test_continued_recordings_are_one_longer_test() -> None:
    one, other = recorded([(1.5, 0.1, "OK", 1)]), recorded([(1.5, 0.2, "OK", 1), (5.0, 20.0, "OK", 1)])
    both = one.continued(other)
    assert (both.seconds, both.calls) == (24.0, 3)
    assert both.took == pytest.approx(12.0 + 24.0)
    assert sorted(both.intervals) == [0, 1, 5]


def test_the_log_is_read_by_others(tmp_path: Path) -> None:
    recording = recorded(
        [(1.2, 0.010, "OK", 1), (1.4, 0.030, "OK", 1), (3.5, 0.020, "OK", 1), (4.5, 1, "UNAVAILABLE", 1)]
    )
    path = tmp_path / "run.hlog"
    path.write_text(write_log(recording, datetime(2026, 1, 2, tzinfo=UTC)))
    reader = HistogramLogReader(str(path), HdrHistogram(1, 3_600_000_000, 3))
    read = []
    while (interval := reader.get_next_interval_histogram()) is not None:
        read.append((interval.get_start_time_stamp() / 1000, interval.get_total_count(), interval.get_max_value()))
    start = datetime(2026, 1, 2, tzinfo=UTC).timestamp() + 1.0
    assert [(moment - start, count) for moment, count, _ in read] == [(0, 2), (2, 1), (3, 0)]
    assert read[0][2] == pytest.approx(30_000, rel=1e-3)
    reader.input_file.close()
