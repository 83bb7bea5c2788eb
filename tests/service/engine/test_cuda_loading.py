"""Everything that loading does with CUDA, on a CPU."""

from functools import partial

import pytest

from birnn_bundle.bundle import Bundle
from birnn_bundle.onnxruntime import ort
from birnn_bundle.precisions import HalfPrecision
from birnn_service.engine import cuda_engine, loading
from birnn_service.engine.cuda_engine import CudaEngine
from birnn_service.engine.engine import Precision
from birnn_service.engine.gpu_memory import GpuMemory
from birnn_service.engine.onnx_session import CPU, CUDA
from birnn_service.errors import EngineError, StartupError
from tests.service.engine.bundles import allowing
from tests.service.engine.cuda_engines import allowing_half, ordinary, shipped


@pytest.fixture(scope="module")
def smiles() -> Bundle:
    return shipped()


@pytest.fixture
def cuda_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let everything that loading does with CUDA happen, on a CPU."""
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(ort, "preload_dlls", lambda: None)
    monkeypatch.setattr(loading, "CudaEngine", partial(CudaEngine, provider=CPU, allocate=ordinary))
    # What is asked of onnxruntime, and where its nodes are then expected.
    monkeypatch.setattr(loading, "CUDA", CPU)
    monkeypatch.setattr(loading, "WARM_UP_SECONDS", 0.1)


@pytest.mark.usefixtures("cuda_on_a_cpu")
def test_an_engine_that_is_not_taken_leaves_its_memory_to_the_next_one(smiles: Bundle) -> None:
    memory = GpuMemory(4000)
    strict = allowing(smiles, HalfPrecision(tolerance=1e-5, min_cosine=0.9999))
    # Its half precision is tried first, and does not pass the gate.
    proven = loading.load_engine(strict, "cuda", precision="auto", gpu_memory=memory)
    assert proven.engine.info.precision == "float32"
    taken = reserved(memory)
    assert len(taken) == 1
    for wrong in ("placement", "warm_up"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(CudaEngine, wrong, failing)
            with pytest.raises(StartupError, match="out of luck"):
                loading.load_engine(smiles, "cuda", gpu_memory=memory)
        assert reserved(memory) == taken
    proven.engine.close()
    proven.engine.close()
    assert reserved(memory) == []


def failing(*_: object) -> None:
    raise EngineError("out of luck")


def reserved(memory: GpuMemory) -> list[int]:
    return list(memory._reservations.values())


@pytest.mark.usefixtures("cuda_on_a_cpu")
def test_a_graph_that_cannot_be_loaded_keeps_no_memory(smiles: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = GpuMemory(4000)
    monkeypatch.setattr(cuda_engine, "open_session", failing)
    with pytest.raises(EngineError, match="out of luck"):
        loading.load_engine(smiles, "cuda", gpu_memory=memory)
    assert reserved(memory) == []


@pytest.mark.parametrize(
    ("precision", "allowed", "found"),
    [
        ("fp32", True, "float32"),
        ("fp16", True, "float16"),
        ("auto", True, "float16"),
        ("auto", False, "float32"),
    ],
)
@pytest.mark.usefixtures("cuda_on_a_cpu")
def test_precision_is_what_was_asked_for_or_the_best_that_is_allowed(
    smiles: Bundle, precision: Precision, allowed: bool, found: str
) -> None:
    bundle = allowing_half(smiles) if allowed else smiles
    engine = loading.load_engine(bundle, "cuda", precision=precision).engine
    assert isinstance(engine, CudaEngine)
    assert engine.info.precision == found


@pytest.mark.usefixtures("cuda_on_a_cpu")
def test_half_precision_that_is_not_allowed_is_refused_and_one_that_fails_the_gate_not_taken(smiles: Bundle) -> None:
    with pytest.raises(StartupError, match="does not allow float16"):
        loading.load_engine(smiles, "cuda", precision="fp16")
    strict = HalfPrecision(tolerance=1e-5, min_cosine=0.9999)
    proven = loading.load_engine(allowing(smiles, strict), "cuda", precision="auto")
    assert proven.engine.info.precision == "float32"
    assert "disagree with the golden ones" in proven.choice


@pytest.mark.usefixtures("cuda_on_a_cpu")
def test_nodes_that_ran_elsewhere_are_refused(monkeypatch: pytest.MonkeyPatch, smiles: Bundle) -> None:
    monkeypatch.setattr(CudaEngine, "placement", lambda _: {"pooled:1": "ElsewhereExecutionProvider"})
    with pytest.raises(StartupError, match=r"ran \{'pooled:1': 'ElsewhereExecutionProvider'\}"):
        loading.load_engine(smiles, "cuda")
