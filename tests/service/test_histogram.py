import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from birnn_service.histogram import ArrayHistogram

BOUNDS = (0.5, 1.0, 2.0, 8.0)


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
