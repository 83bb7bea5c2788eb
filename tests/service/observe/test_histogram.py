import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.exposition import choose_encoder

from birnn_service.observe.histogram import ArrayHistogram

BOUNDS = (0.5, 1.0, 2.0, 8.0)
open_metrics, _ = choose_encoder("application/openmetrics-text; version=1.0.0")


@given(st.lists(st.lists(st.integers(0, 10), min_size=1, max_size=20)))
def test_it_is_scraped_as_the_librarys_own_would_be(observed: list[list[int]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    arrays = ArrayHistogram("length", "Tokens.", ("encoder",), BOUNDS, ours)
    single = Histogram("length", "Tokens.", ("encoder",), buckets=BOUNDS, registry=theirs)
    for values in observed:
        arrays.labels("smiles").observe_all(np.array(values))
        for value in values:
            single.labels("smiles").observe(value)
    assert generate_latest(ours) == b"\n".join(
        line for line in generate_latest(theirs).split(b"\n") if b"_created" not in line
    )


def test_a_name_cannot_be_taken_twice() -> None:
    registry = CollectorRegistry()
    ArrayHistogram("length", "Tokens.", (), BOUNDS, registry)
    with pytest.raises(ValueError, match="Duplicated"):
        ArrayHistogram("length", "Tokens.", (), BOUNDS, registry)


def test_the_number_of_labels_is_checked() -> None:
    histogram = ArrayHistogram("length", "Tokens.", ("encoder",), BOUNDS, CollectorRegistry())
    with pytest.raises(ValueError, match="encoder"):
        histogram.labels("smiles", "pooled")


def test_exemplars_are_those_of_the_librarys_own() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    arrays = ArrayHistogram("seconds", "Time.", ("encoder",), BOUNDS, ours).labels("smiles")
    single = Histogram("seconds", "Time.", ("encoder",), buckets=BOUNDS, registry=theirs).labels("smiles")
    for value, trace in ((0.7, "a" * 32), (0.9, ""), (0.8, "b" * 32), (9.0, "c" * 32)):
        arrays.observe(value, trace)
        single.observe(value, {"trace_id": trace} if trace else None)
    timestamp = re.compile(rb"\d{9,}\.\d+|\d\.\d+e\+09")
    assert timestamp.sub(b"WHEN", open_metrics(ours)) == b"\n".join(
        line for line in timestamp.sub(b"WHEN", open_metrics(theirs)).split(b"\n") if b"_created" not in line
    )
    assert b"#" not in generate_latest(ours).split(b"\n", 2)[2]


def test_of_fewer_buckets_each_has_its_latest_exemplar() -> None:
    series = ArrayHistogram("seconds", "Time.", (), BOUNDS, CollectorRegistry()).labels()
    for value, trace in ((0.7, "a"), (0.1, "b"), (1.5, "c"), (9.0, "d")):
        series.observe(value, trace)
    buckets, total = series.cumulative((1.0, 8.0))
    assert [bucket[:2] for bucket in buckets] == [("1.0", 2.0), ("8.0", 3.0), ("+Inf", 4.0)]
    assert [bucket[2].labels["trace_id"] for bucket in buckets if len(bucket) == 3] == ["b", "c", "d"]
    assert total == pytest.approx(11.3)


@given(st.lists(st.integers(0, 10)), st.lists(st.integers(0, 10)))
def test_what_is_taken_and_added_elsewhere_is_counted_once(first: list[int], second: list[int]) -> None:
    histogram = ArrayHistogram("length", "Tokens.", ("process",), BOUNDS, CollectorRegistry())
    one, other, all_ = (histogram.labels(name) for name in ("one", "other", "all"))
    for values in (first, second):
        for value in values:
            one.observe(value)
            all_.observe(value)
        other.add(one.take())
    assert other.cumulative() == all_.cumulative()
    assert not any(one.take().buckets)
