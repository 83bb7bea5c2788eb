import numpy as np
import pytest

from bench.loads import Load, Sample


def test_throughput_counts_answers_and_latency_only_calls_that_were_sent_within_too() -> None:
    calls = np.array([[0.0, 1.5], [1.0, 1.2], [1.2, 1.6], [1.9, 2.5]])
    sample = Sample.of(calls, 32, 1.0, 2.0)
    assert sample.calls == 2
    assert sample.calls_per_second == pytest.approx(3.0)
    assert sample.sequences_per_second == pytest.approx(96.0)
    assert sample.p50 == pytest.approx(0.2)
    assert sample.p99 == pytest.approx(0.4)


def test_a_time_without_a_whole_call_is_an_error_and_not_a_rate_of_zero() -> None:
    with pytest.raises(ValueError, match="measure longer"):
        Sample.of(np.array([[0.0, 3.0]]), 1, 1.0, 2.0)


def test_a_sample_survives_json() -> None:
    import json
    from dataclasses import asdict

    sample = Sample.of(np.array([[1.0, 1.5]]), 1, 1.0, 2.0)
    assert Sample.from_json(json.dumps(asdict(sample))) == sample


def test_a_load_reads_as_a_sentence() -> None:
    assert str(Load("bulk", 32, 8)) == "32 sequences a call, 8 in flight"
    assert str(Load("lone", 1, 1)) == "1 sequence a call, 1 in flight"
