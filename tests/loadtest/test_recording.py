import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birnn_loadtest.recording import HISTOGRAM_EDGES, NOT_SENT, CallRecord, Recording, Spread


def call(intended: float, finished: float, sent: float | None = None, code: str = "OK", errors: int = 0) -> CallRecord:
    return CallRecord(intended, intended if sent is None else sent, finished, code, sequences=4, item_errors=errors)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=300))
def test_percentiles_occurred_ascend_and_cover_their_share(values: list[float]) -> None:
    spread = Spread.of(np.array(values))
    assert spread is not None
    found = list(spread.percentiles.values())
    assert found == sorted(found)
    assert set(found) <= set(values)
    assert spread.maximum == max(values)
    for name, value in spread.percentiles.items():
        assert np.mean(np.array(values) <= value) >= float(name[1:]) / 100 - 1e-9


def test_a_stall_shows_in_full_though_calls_were_held_back() -> None:
    # A call is due every 10 ms and takes 1 ms, but the server stalls from 0.5 s to 1.5 s; the generator, held back by
    # it, sends the calls due meanwhile only when it is over.
    recording = Recording()
    for intended in np.arange(0, 2, 0.01).tolist():
        sent = 1.5 if 0.5 <= intended < 1.5 else intended
        recording.calls.append(call(intended, sent + 0.001, sent))
    figures = recording.figures(0, 2)
    assert figures.latency is not None
    assert figures.service_time is not None
    assert figures.service_time.maximum == pytest.approx(0.001)
    assert figures.latency.maximum == pytest.approx(1.001)
    assert figures.latency.percentiles["p90"] == pytest.approx(0.8, abs=0.02)
    assert figures.generator_was_late


def test_calls_due_in_the_warm_up_or_after_the_end_do_not_count() -> None:
    recording = Recording([call(0.5, 5.0), call(1.0, 1.1), call(2.9, 3.1), call(3.0, 9.0)])
    figures = recording.figures(1, 2)
    assert figures.calls == 2
    assert figures.offered_calls == 1
    assert figures.offered_sequences == 4
    assert figures.latency is not None
    assert figures.latency.maximum == pytest.approx(0.2)


def test_answers_after_the_end_lower_the_achieved_rate() -> None:
    recording = Recording([call(0.1 * number, 4.0) for number in range(20)])
    figures = recording.figures(0, 2)
    assert (figures.offered_calls, figures.achieved_calls, figures.achieved_sequences) == (10, 5, 20)


def test_failures_are_counted_by_code_and_kept_apart() -> None:
    recording = Recording(
        [
            call(0.0, 0.1, errors=3),
            call(0.1, 5.1, code="DEADLINE_EXCEEDED"),
            call(0.2, 0.2, code=NOT_SENT),
            call(0.3, 0.5, code="RESOURCE_EXHAUSTED"),
        ]
    )
    figures = recording.figures(0, 1)
    assert figures.codes == {"OK": 1, "DEADLINE_EXCEEDED": 1, NOT_SENT: 1, "RESOURCE_EXHAUSTED": 1}
    assert figures.succeeded == 1
    assert figures.item_errors == 3
    assert figures.latency is not None
    assert (figures.latency.count, figures.latency.maximum) == (1, 0.1)
    assert figures.latency_all is not None
    assert (figures.latency_all.count, figures.latency_all.maximum) == (3, 5.0)
    assert figures.generator_was_late


@given(st.lists(st.floats(1e-4, 100), max_size=100))
def test_the_histogram_counts_every_answered_call_once(latencies: list[float]) -> None:
    figures = Recording([call(0, latency) for latency in latencies]).figures(0, 1)
    assert figures.histogram.sum() == len(latencies)
    edges = HISTOGRAM_EDGES
    for latency in latencies:
        assert figures.histogram[np.searchsorted(edges, latency, side="right") - 1] > 0


def test_a_test_without_calls_has_no_figures() -> None:
    figures = Recording().figures(0, 1)
    assert (figures.latency, figures.lag, figures.codes, figures.achieved_calls) == (None, None, {}, 0)
    assert not figures.generator_was_late
