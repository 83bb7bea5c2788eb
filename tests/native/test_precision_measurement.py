"""Reduced precisions as the kernels compute them, against float64 and float32."""

from pathlib import Path

import numpy as np
import pytest

from birnn_bundle.bundle import Bundle
from birnn_bundle.precisions import MIN_COSINES
from birnn_bundle.quality_set import QualitySet
from birnn_bundle.ragged import RaggedBatch
from birnn_native import precision_measurement
from birnn_native.kernel import Pooling
from birnn_native.library import NativeUnavailableError, precisions
from birnn_native.precision_measurement import Material, Measured, measure_precisions
from birnn_native.recurrent_graph import RecurrentGraph, read_graph
from birnn_service.engine.engine import Output
from birnn_service.engine.stored_graph import stored_graph

try:
    REDUCED_HERE = [precision for precision in precisions() if precision != "fp32"]
except NativeUnavailableError as error:
    pytest.skip(str(error), allow_module_level=True)
if not REDUCED_HERE:
    pytest.skip("the kernels compute in float32 only on this processor", allow_module_level=True)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.load(Path(__file__).parents[2] / "models" / "smiles-small" / "1")


@pytest.fixture(scope="module")
def graph(bundle: Bundle) -> RecurrentGraph:
    return read_graph(stored_graph(bundle, Output.POOLED).complete())


@pytest.fixture(scope="module")
def others(bundle: Bundle) -> RaggedBatch:
    random = np.random.default_rng(0)
    return RaggedBatch.from_lists(
        random.integers(3, bundle.manifest.vocab_size, length) for length in random.integers(1, 60, 75)
    )


@pytest.fixture(scope="module")
def measured(bundle: Bundle, graph: RecurrentGraph, others: RaggedBatch) -> Measured:
    return measure_precisions(graph, Pooling.MEAN_MAX, Material(bundle.golden, others))


def test_what_is_recorded_is_what_the_kernels_give(
    bundle: Bundle, graph: RecurrentGraph, others: RaggedBatch, measured: Measured
) -> None:
    assert set(measured.records) == set(REDUCED_HERE)
    exact = graph.kernel()
    for precision, record in measured.records.items():
        kernel = graph.kernel(precision=precision)  # type: ignore[arg-type]
        golden = bundle.golden
        errors = [
            np.abs(kernel.run(golden.batch.values, golden.batch.offsets, pooling) - expected).max()
            for pooling, expected in ((Pooling.MEAN_MAX, golden.pooled), (Pooling.TOKENS, golden.tokens))
        ]
        assert record.golden is not None
        assert record.golden.sequences == len(golden.batch)
        assert record.golden.max_error == pytest.approx(max(errors), rel=1e-6)
        found, expected = (one.run(others.values, others.offsets, Pooling.MEAN_MAX) for one in (kernel, exact))
        cosines = (found * expected).sum(1) / (np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1))
        assert record.others is not None
        assert record.others.sequences == len(others)
        assert record.others.least_cosine == pytest.approx(cosines.min(), abs=1e-6)
        assert kernel.instruction_set in record.engine
        assert record.min_cosine == MIN_COSINES[precision]


def test_sequences_are_measured_in_parts_which_changes_nothing(
    bundle: Bundle, graph: RecurrentGraph, others: RaggedBatch, measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision_measurement, "CHUNK", 10)
    assert measure_precisions(graph, Pooling.MEAN_MAX, Material(bundle.golden, others)) == measured


def test_a_quality_set_is_explained_by_both(bundle: Bundle, graph: RecurrentGraph, others: RaggedBatch) -> None:
    pytest.importorskip("sklearn")
    quality = QualitySet("t.csv:length", others, others.lengths.astype(np.float64), 0)
    found = measure_precisions(graph, Pooling.MEAN_MAX, Material(bundle.golden, quality=quality))
    for record in found.records.values():
        assert record.others is None
        assert record.quality is not None
        assert (record.quality.data, record.quality.sequences) == ("t.csv:length", len(others))
        assert record.quality.float32 > 0.5
        assert record.quality.reduced == pytest.approx(record.quality.float32, abs=0.05)
        assert record.quality.reduced != record.quality.float32
