from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from birnn_bundle.bundle import Bundle
from birnn_bundle.ragged import RaggedBatch
from birnn_service.engine import onnx_engine
from birnn_service.engine.engine import Output
from birnn_service.engine.onnx_engine import OnnxEngine
from birnn_service.errors import EngineError

MODELS = Path(__file__).parents[3] / "models"


@pytest.fixture(autouse=True)
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_engine, "available_cores", lambda: 2)


def batches(count: int, vocabulary: int, longest: int) -> list[RaggedBatch]:
    random = np.random.default_rng(count)
    return [
        RaggedBatch.from_lists(
            [
                random.integers(0, vocabulary, random.integers(1, longest, endpoint=True), dtype=np.int32)
                for _ in range(rows)
            ]
        )
        for rows in random.choice([1, 2, 3, 8, 32], count, p=[0.5, 0.2, 0.1, 0.1, 0.1])
    ]


@pytest.mark.parametrize("name", ["smiles", "text"])
def test_shipped_encoders_give_the_same_bits_on_one_core_and_on_two(name: str) -> None:
    bundle = Bundle.load(MODELS / name / "1")
    engine = OnnxEngine(bundle)
    for batch in batches(100, bundle.manifest.vocab_size, 120):
        for output in Output:
            assert np.array_equal(engine.run(batch, output, 2), engine.run(batch, output, 1))


@pytest.fixture(scope="module")
def smiles() -> OnnxEngine:
    return OnnxEngine(Bundle.load(MODELS / "smiles" / "1"), slots=2)


@given(st.lists(st.lists(st.integers(3, 40), min_size=1, max_size=60), min_size=1, max_size=12), st.data())
@settings(max_examples=40, deadline=None)
def test_alone_on_two_cores_a_sequence_gives_what_it_gives_in_a_batch_on_one(
    smiles: OnnxEngine, rows: list[list[int]], data: st.DataObject
) -> None:
    batch = RaggedBatch.from_lists(rows)
    row = data.draw(st.integers(0, len(rows) - 1))
    alone = smiles.run(RaggedBatch.from_lists([rows[row]]), Output.POOLED, smiles.info.run_slots)
    assert np.abs(smiles.run(batch, Output.POOLED)[row] - alone[0]).max() < 1e-5


def test_a_failure_on_two_cores_is_an_engine_error_too(smiles: OnnxEngine) -> None:
    with pytest.raises(EngineError, match=r"shape \(20, 1\)"):
        smiles.run(RaggedBatch.from_lists([[10**6] * 20]), Output.POOLED, 2)
    assert np.isfinite(smiles.run(RaggedBatch.from_lists([[5] * 20]), Output.POOLED, 2)).all()


@pytest.mark.parametrize(("slots", "cores", "run_slots"), [(1, 2, 1), (2, 1, 1), (2, 2, 2), (8, 4, 2)])
def test_a_run_uses_a_second_core_only_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, slots: int, cores: int, run_slots: int
) -> None:
    monkeypatch.setattr(onnx_engine, "available_cores", lambda: cores)
    info = OnnxEngine(Bundle.load(MODELS / "smiles" / "1"), slots=slots).info
    assert (info.slots, info.run_slots) == (slots, run_slots)
