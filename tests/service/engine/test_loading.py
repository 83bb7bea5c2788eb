import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from birnn_bundle.bundle import Bundle
from birnn_bundle.onnxruntime import ort
from birnn_bundle.precisions import Agreement, HalfPrecision, PrecisionRecord
from birnn_bundle.ragged import RaggedBatch
from birnn_service.engine.engine import Device, Engine, EngineInfo, EngineName, Output
from birnn_service.engine.gate import Ceiling, Limits, fault_of, pass_gate
from birnn_service.engine.loading import load_engine
from birnn_service.engine.onnx_engine import OnnxEngine
from birnn_service.engine.onnx_session import CPU
from birnn_service.errors import EngineError, StartupError
from tests.service.engine.bundles import allowing, small_bundle

MODELS = Path(__file__).parents[3] / "models"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.load(MODELS / "smiles" / "1")


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> Engine:
    return load_engine(bundle, "cpu", engine="onnxruntime").engine


@pytest.mark.parametrize("name", get_args(EngineName))
def test_an_encoder_with_fewer_tokens_than_embedding_columns_is_served(name: EngineName, tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path, embedding_size=48)
    assert bundle.manifest.vocab_size < bundle.manifest.embedding_size
    proven = load_engine(bundle, "cpu", engine=name)
    assert max(proven.report.pooled, proven.report.tokens) <= bundle.manifest.tolerance


@dataclass
class Skewed:
    """A real engine whose answers are changed on the way out, as by a wrong kernel."""

    engine: Engine
    output: Output
    change: float
    batched_only: bool = False
    info: EngineInfo = field(init=False)

    def __post_init__(self) -> None:
        self.info = self.engine.info

    def close(self) -> None:
        pass

    def run(self, batch: RaggedBatch, output: Output, slots: int = 1) -> NDArray[np.float32]:
        values = self.engine.run(batch, output).copy()
        if output is self.output and not (self.batched_only and len(batch) == 1):
            values[0, 7] += self.change
        return values


def test_the_shipped_encoder_passes_the_gate_on_this_cpu(bundle: Bundle) -> None:
    proven = load_engine(bundle, "cpu", engine="onnxruntime")
    assert max(proven.report.pooled, proven.report.tokens) <= bundle.manifest.tolerance
    assert proven.engine.info.device == "cpu"


@pytest.mark.parametrize("output", list(Output))
@pytest.mark.parametrize("change", [1e-3, float("nan"), float("inf")])
def test_wrong_numbers_are_refused_and_named(bundle: Bundle, engine: Engine, output: Output, change: float) -> None:
    with pytest.raises(StartupError, match=rf"smiles/1: {output.value} encodings, batched .* row 0, dimension 7"):
        pass_gate(bundle, Skewed(engine, output, change))


def test_numbers_that_are_wrong_only_in_a_batch_are_refused(bundle: Bundle, engine: Engine) -> None:
    with pytest.raises(StartupError, match="batched"):
        pass_gate(bundle, Skewed(engine, Output.POOLED, 1e-3, batched_only=True))


def test_a_bundle_cannot_grant_itself_more_than_the_server_s_ceiling(
    bundle: Bundle, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    generous = replace(bundle, manifest=bundle.manifest.model_copy(update={"tolerance": 0.05}))
    wrong = Skewed(engine, Output.POOLED, 5e-3)
    with pytest.raises(StartupError, match=r"disagree .* \(tolerance 0\.001\)"):
        pass_gate(generous, wrong)
    assert "smiles/1 allows itself errors of 0.05; this server allows 0.001 (--max-tolerance)" in caplog.text
    assert pass_gate(generous, wrong, Ceiling(max_tolerance=0.05)).limits.tolerance == 0.05
    # A ceiling grants nothing by itself.
    with pytest.raises(StartupError, match=r"\(tolerance 1e-05\)"):
        pass_gate(bundle, wrong, Ceiling(max_tolerance=0.05))


def test_nor_a_lesser_cosine_in_half_precision(
    bundle: Bundle, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    reduced = HalfPrecision(tolerance=0.1, min_cosine=0.99)
    generous = allowing(bundle, reduced)
    wrong = Skewed(engine, Output.TOKENS, 0.09)
    wrong.info = replace(wrong.info, precision="bfloat16")
    assert pass_gate(generous, wrong, Ceiling(min_cosine=0.99)).cosine < 0.9999
    with pytest.raises(StartupError, match=r"a tokens encoding has a cosine of .*, 0\.9999 at least expected"):
        pass_gate(generous, wrong)
    assert "allows itself a cosine of 0.99 in bfloat16; this server allows 0.9999 (--min-cosine)" in caplog.text


def recording(bundle: Bundle, **records: PrecisionRecord) -> Bundle:
    update = {"reduced_precision": None, "precisions": records}
    return replace(bundle, manifest=bundle.manifest.model_copy(update=update))


def test_each_reduced_precision_is_held_to_its_own_record_and_ceiling(bundle: Bundle, engine: Engine) -> None:
    wrong = Skewed(engine, Output.TOKENS, 0.2)
    wrong.info = replace(wrong.info, precision="int8")
    record = PrecisionRecord(tolerance=0.1, min_cosine=0.95, engine="native 1")
    with pytest.raises(StartupError, match=r"does not allow int8, which was not measured"):
        pass_gate(recording(bundle, bf16=record), wrong)
    with pytest.raises(StartupError, match=r"tolerance 0\.1\)"):
        pass_gate(recording(bundle, int8=record), wrong)
    # Single values may be off by as much as the record says, and the direction is what counts.
    wrong.change = 0.09
    found = pass_gate(recording(bundle, int8=record), wrong, Ceiling(min_cosine=0.95))
    assert 0.99 < found.cosine < 0.9999
    assert found.limits == Limits(0.1, 0.95)
    for ceiling, least in ((None, 0.999), (Ceiling(min_cosine=0.9999), 0.9999)):
        if found.cosine >= least:
            assert pass_gate(recording(bundle, int8=record), wrong, ceiling).limits.min_cosine == least
        else:
            with pytest.raises(StartupError, match=rf"{least:g} at least expected"):
                pass_gate(recording(bundle, int8=record), wrong, ceiling)
    wrong.info = replace(wrong.info, precision="bfloat16")
    with pytest.raises(StartupError, match=r"0\.9999 at least expected"):
        pass_gate(recording(bundle, bf16=record), wrong)


def test_a_precision_that_was_found_too_far_off_is_refused_before_it_runs(bundle: Bundle, engine: Engine) -> None:
    golden = Agreement(
        sequences=12, max_error=0.01, least_cosine=0.998, least_token_cosine=1.0, least_centered_cosine=0.9
    )
    refused = recording(bundle, int8=PrecisionRecord(tolerance=0.1, min_cosine=0.999, engine="native 1", golden=golden))
    exact = Skewed(engine, Output.TOKENS, 0.0)
    exact.info = replace(exact.info, precision="int8")
    with pytest.raises(StartupError, match=r"does not allow int8: least cosine 0\.998000 on golden sequences"):
        pass_gate(refused, exact)


def test_float32_is_held_to_the_cosine_too_but_for_vectors_that_are_nearly_zero() -> None:
    limits = Limits(1e-3, 0.9999, least_norm=1e-2)
    expected = np.full((1, 4), 1e-2)
    turned = (expected + np.array([5e-4, -5e-4, 5e-4, -5e-4])).astype(np.float32)
    assert fault_of(limits, turned, expected) == "a cosine of 0.998752, 0.9999 at least allowed"
    assert fault_of(limits, (expected * 1e-2).astype(np.float32) + np.float32(1e-6), expected * 1e-2) is None
    assert fault_of(limits, np.full((1, 4), np.nan, np.float32), expected) == "off by nan, 0.001 at most allowed"


def test_recurrent_nodes_are_seen_to_run_on_the_provider_asked_for(bundle: Bundle) -> None:
    engine = OnnxEngine(bundle)
    for output in Output:
        engine.run(bundle.golden.batch, output)
    placement = engine.placement()
    assert {node.partition(":")[0] for node in placement} == {"pooled", "tokens"}
    assert set(placement.values()) == {CPU}


@given(st.lists(st.lists(st.integers(3, 40), min_size=1, max_size=60), min_size=1, max_size=12), st.data())
@settings(max_examples=40, deadline=None)
def test_neighbors_and_padding_never_change_an_answer(
    engine: Engine, rows: list[list[int]], data: st.DataObject
) -> None:
    batch = RaggedBatch.from_lists(rows)
    row = data.draw(st.integers(0, len(rows) - 1))
    alone = RaggedBatch.from_lists([rows[row]])
    pooled = engine.run(batch, Output.POOLED)[row]
    assert np.abs(pooled - engine.run(alone, Output.POOLED)[0]).max() < 1e-5
    tokens = engine.run(batch, Output.TOKENS)[batch.offsets[row] : batch.offsets[row + 1]]
    assert np.abs(tokens - engine.run(alone, Output.TOKENS)).max() < 1e-5


def test_a_run_that_fails_is_an_engine_error_that_names_the_shape(engine: Engine) -> None:
    with pytest.raises(EngineError, match=r"shape \(2, 1\)"):
        engine.run(RaggedBatch.from_lists([[10**6, 1]]), Output.POOLED)


def test_a_graph_that_cannot_be_read_is_a_startup_error(bundle: Bundle) -> None:
    broken = replace(bundle, files={**bundle.files, "pooled.onnx": b"not a graph"})
    with pytest.raises(StartupError, match=r"smiles/1, pooled\.onnx: cannot read the graph"):
        load_engine(broken, "cpu")


@pytest.mark.skipif(
    "CUDAExecutionProvider" in ort.get_available_providers(), reason="this onnxruntime has CUDA: nothing to refuse"
)
def test_cuda_asked_for_where_there_is_none_is_an_error_and_auto_says_what_it_took(bundle: Bundle) -> None:
    with pytest.raises(StartupError, match="no CUDA in this onnxruntime"):
        load_engine(bundle, "cuda")
    assert load_engine(bundle).choice == "this onnxruntime has no CUDA"


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"linear_before_reset": False}, "GRU, reset before the product"),
        ({"nonlinearity": "relu"}, "GRU, relu"),
        ({"gate_activation": "hard_sigmoid"}, "GRU, hard_sigmoid gates"),
    ],
)
@pytest.mark.parametrize("device", ["cuda", "auto"])
def test_a_cell_that_cuda_has_no_kernel_for_is_served_on_a_cpu_only_and_says_so(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, device: Device, changes: dict[str, str], name: str
) -> None:
    manifest = bundle.manifest.model_copy(update=changes)
    resetting = replace(bundle, manifest=manifest)
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", CPU])
    monkeypatch.setattr(ort, "preload_dlls", lambda: None)
    message = rf"smiles/1: its cell \({name}\) runs on CPUs only"
    if device == "cuda":
        with pytest.raises(StartupError, match=message):
            load_engine(resetting, device)
    else:
        # The shipped graphs under it are ordinary ones, so they pass the gate.
        proven = load_engine(resetting, device)
        assert proven.engine.info.device == "cpu"
        assert re.search(message, proven.choice)
