"""All of the CUDA engine but CUDA runs here without a GPU; what needs one is skipped without it."""

import ctypes
import logging
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from birnn_bundle.bundle import Bundle
from birnn_bundle.onnxruntime import ort
from birnn_bundle.precisions import HalfPrecision
from birnn_bundle.ragged import RaggedBatch
from birnn_service.engine import cuda_engine, loading
from birnn_service.engine.cuda_engine import CudaEngine, provider_options
from birnn_service.engine.engine import Output, Precision
from birnn_service.engine.gate import pass_gate
from birnn_service.engine.gpu_memory import GpuMemory, Reservation
from birnn_service.engine.loading import load_engine
from birnn_service.engine.onnx_engine import OnnxEngine
from birnn_service.engine.onnx_session import CPU, CUDA
from birnn_service.engine.pinned import pinned_bytes
from birnn_service.errors import EngineError, StartupError
from tests.service.engine.bundles import small_bundle

MODELS = Path(__file__).parents[3] / "models"
WITHOUT_GPU = CUDA not in ort.get_available_providers()
needs_gpu = pytest.mark.skipif(WITHOUT_GPU, reason="needs an NVIDIA GPU and onnxruntime-gpu")
# What half precision may cost; see the manifest.
HALF = HalfPrecision(tolerance=5e-3, min_cosine=0.9999)


def ordinary(size: int) -> NDArray[np.uint8]:
    """Memory full of junk, so that nothing can rely on zeros."""
    return np.full(size, 0x7F, dtype=np.uint8)


def on_cpu(bundle: Bundle, precision: str = "fp32", **more: Any) -> CudaEngine:
    return CudaEngine(bundle, precision=precision, provider=CPU, allocate=ordinary, **more)  # type: ignore[arg-type]


def allowing(bundle: Bundle, reduced: HalfPrecision | None) -> Bundle:
    manifest = bundle.manifest.model_copy(update={"reduced_precision": reduced, "precisions": {}})
    return replace(bundle, manifest=manifest)


def allowing_half(bundle: Bundle) -> Bundle:
    return allowing(bundle, HALF)


def varied(count: int, vocabulary: int, longest: int, most: int, seed: int = 0) -> list[RaggedBatch]:
    random = np.random.default_rng(seed)
    batches = []
    for _ in range(count):
        lengths = random.integers(1, longest, random.integers(1, most, endpoint=True), endpoint=True)
        batches.append(RaggedBatch.from_lists([random.integers(0, vocabulary, n, dtype=np.int32) for n in lengths]))
    return batches


@pytest.fixture(scope="module")
def smiles() -> Bundle:
    """A shipped encoder, which allows no half precision here."""
    return allowing(Bundle.load(MODELS / "smiles" / "1"), None)


@pytest.fixture(scope="module", params=["final", "mean+max"])
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return small_bundle(tmp_path_factory.mktemp("small"), "bilstm", request.param, layers=2)


def test_rounded_and_filled_batches_give_what_exact_ones_give(small: Bundle) -> None:
    engine, exact = on_cpu(small), OnnxEngine(small)
    for batch in varied(60, small.manifest.vocab_size, 100, 40):
        for output in Output:
            found, expected = engine.run(batch, output), exact.run(batch, output)
            assert found.shape == expected.shape
            assert np.abs(found - expected).max() < 1e-5


def test_batches_beyond_the_cells_of_the_grid_are_done_in_parts(monkeypatch: pytest.MonkeyPatch, small: Bundle) -> None:
    monkeypatch.setattr(cuda_engine, "MAX_CELLS", {Output.POOLED: 256, Output.TOKENS: 256})
    engine, exact = on_cpu(small), OnnxEngine(small)
    # Among them ones of which a single row is larger than the grid.
    for batch in [*varied(30, small.manifest.vocab_size, 60, 70), *varied(5, small.manifest.vocab_size, 200, 3)]:
        for output in Output:
            found, expected = engine.run(batch, output), exact.run(batch, output)
            assert found.shape == expected.shape
            assert np.abs(found - expected).max() < 1e-5


def test_results_stay_as_they_were_when_buffers_are_used_again(small: Bundle) -> None:
    engine = on_cpu(small, slots=1)
    for output in Output:
        batches = varied(20, small.manifest.vocab_size, 30, 8)
        results = [engine.run(batch, output) for batch in batches]
        copies = [result.copy() for result in results]
        for batch in batches[::-1]:
            engine.run(batch, output)
        for result, copy in zip(results, copies, strict=True):
            assert np.array_equal(result, copy)


def test_batches_in_flight_at_the_same_time_do_not_mix(small: Bundle) -> None:
    engine = on_cpu(small)
    batches = varied(100, small.manifest.vocab_size, 60, 16)
    expected = {output: [engine.run(batch, output) for batch in batches] for output in Output}
    with ThreadPoolExecutor(6) as threads:
        for output in Output:
            for found, wanted in zip(threads.map(lambda one: engine.run(one, output), batches), expected[output]):  # noqa: B905, B023
                assert np.array_equal(found, wanted)


def test_a_failed_run_is_an_engine_error_and_gives_its_slot_back(small: Bundle) -> None:
    engine = on_cpu(small, slots=1)
    for _ in range(3):
        with pytest.raises(EngineError, match=r"2 rows of up to 5 tokens"):
            engine.run(RaggedBatch.from_lists([[10**6] * 5, [1]]), Output.POOLED)
    assert np.isfinite(engine.run(RaggedBatch.from_lists([[1, 2]]), Output.POOLED)).all()


def test_warming_up_runs_every_shape_once_a_slot_the_largest_first(
    monkeypatch: pytest.MonkeyPatch, small: Bundle
) -> None:
    monkeypatch.setattr(cuda_engine, "MAX_CELLS", {Output.POOLED: 1024, Output.TOKENS: 512})
    engine = on_cpu(small)
    shapes: list[tuple[Output, int, int]] = []
    monkeypatch.setattr(engine, "_warm_up", lambda *shape: shapes.append(shape))
    warm, count = engine.warm_up(60)
    assert warm == count == len(set(shapes)) == len(shapes) / engine.info.slots
    assert shapes[0][1] * shapes[0][2] == 1024
    assert {output for output, _, _ in shapes} == set(Output)


def test_warming_up_leaves_the_engine_as_it_was(monkeypatch: pytest.MonkeyPatch, small: Bundle) -> None:
    monkeypatch.setattr(cuda_engine, "MAX_CELLS", {Output.POOLED: 512, Output.TOKENS: 256})
    engine = on_cpu(small)
    before = {output: engine.run(small.golden.batch, output) for output in Output}
    engine.warm_up(60)
    for output in Output:
        assert np.array_equal(engine.run(small.golden.batch, output), before[output])


def test_warming_up_ends_in_time(monkeypatch: pytest.MonkeyPatch, small: Bundle) -> None:
    engine = on_cpu(small)
    monkeypatch.setattr(engine, "_warm_up", lambda *_: time.sleep(0.05))
    warm, count = engine.warm_up(0.2)
    assert 1 <= warm <= 6 < count


def test_a_small_memory_limit_makes_for_small_runs(smiles: Bundle) -> None:
    engine, exact = on_cpu(smiles, gpu_memory=GpuMemory(1000)), OnnxEngine(smiles)
    (batch,) = varied(1, 100, 40, 500, seed=3)
    grid = engine._grids[Output.POOLED]
    assert 1 <= grid.rows_at(40) < len(batch)
    assert np.abs(engine.run(batch, Output.POOLED) - exact.run(batch, Output.POOLED)).max() < 1e-5


def test_the_golden_gate_holds_half_precision_to_what_the_manifest_allows(smiles: Bundle) -> None:
    engine = on_cpu(smiles, "fp16")
    assert engine.info.precision == "float16"
    report = pass_gate(allowing_half(smiles), engine)
    assert smiles.manifest.tolerance < max(report.pooled, report.tokens) < HALF.tolerance
    assert report.cosine > 0.9999
    with pytest.raises(StartupError, match="does not allow float16"):
        pass_gate(smiles, engine)


def test_placement_names_every_recurrent_node(small: Bundle) -> None:
    engine = on_cpu(small)
    for output in Output:
        engine.run(small.golden.batch, output)
    placement = engine.placement()
    assert len(placement) == 4
    assert set(placement.values()) == {CPU}


def test_without_cuda_the_engine_does_not_start(smiles: Bundle) -> None:
    if not WITHOUT_GPU:
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(StartupError, match="onnxruntime"):
        CudaEngine(smiles, allocate=ordinary)


def test_each_session_is_limited_to_its_part_of_what_the_encoder_reserved(
    monkeypatch: pytest.MonkeyPatch, small: Bundle
) -> None:
    limits: list[int] = []

    def options(limit: int) -> dict[str, str]:
        limits.append(limit)
        return {}

    class Memory(GpuMemory):
        granted = 0

        def reserve(self, label: str, least: int, most: int) -> Reservation:
            reservation = super().reserve(label, least, most)
            self.granted = reservation.bytes
            return reservation

    memory = Memory(2000)
    monkeypatch.setattr(cuda_engine, "provider_options", options)
    monkeypatch.setattr(cuda_engine, "CUDA", CPU)
    on_cpu(small, gpu_memory=memory)
    assert len(limits) == 2
    assert limits[0] > limits[1] > 0
    assert sum(limits) < memory.granted


def test_matrices_are_not_multiplied_in_tf32_and_memory_is_capped() -> None:
    options = provider_options(1 << 30)
    assert options["use_tf32"] == "0"
    assert options["gpu_mem_limit"] == str(1 << 30)
    assert all(isinstance(value, str) for value in options.values())


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


class Runtime:
    """Stands in for the CUDA runtime: page-locked memory is ordinary memory, and what is freed is remembered."""

    def __init__(self, status: int = 0) -> None:
        self.status = status
        self.memory: dict[int, ctypes.Array[ctypes.c_char]] = {}
        self.freed: list[int] = []

    def cudaHostAlloc(self, address: object, size: ctypes.c_size_t, flags: ctypes.c_uint) -> int:  # noqa: N802
        if self.status == 0:
            block = ctypes.create_string_buffer(size.value)
            self.memory[ctypes.addressof(block)] = block
            address._obj.value = ctypes.addressof(block)  # type: ignore[attr-defined]
        return self.status

    def cudaFreeHost(self, address: ctypes.c_void_p) -> int:  # noqa: N802
        assert address.value is not None
        self.freed.append(address.value)
        return 0


def test_page_locked_memory_lives_as_long_as_an_array_that_looks_into_it(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime()
    monkeypatch.setattr("birnn_service.engine.pinned.ctypes.CDLL", lambda _: runtime)
    memory = pinned_bytes(4096)
    assert memory.shape == (4096,)
    view = memory.view(np.float32)[10:20]
    view[:] = 3
    del memory
    assert runtime.freed == []
    assert (view == 3).all()
    del view
    assert runtime.freed == list(runtime.memory)


@pytest.mark.parametrize("cdll", [lambda _: Runtime(status=2), None], ids=["refused", "no runtime"])
def test_without_page_locked_memory_it_is_ordinary_memory_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, cdll: Callable[[str], Runtime] | None
) -> None:
    if cdll is None and not WITHOUT_GPU:
        pytest.skip("there is a CUDA runtime here")
    if cdll is not None:
        monkeypatch.setattr("birnn_service.engine.pinned.ctypes.CDLL", cdll)
    with caplog.at_level(logging.WARNING):
        memory = pinned_bytes(100)
    memory[:] = 1
    assert "ordinary memory" in caplog.text


@pytest.fixture(scope="module")
def gpu(smiles: Bundle) -> CudaEngine:
    engine = load_engine(smiles, "cuda").engine
    assert isinstance(engine, CudaEngine)
    return engine


@pytest.fixture(scope="module")
def gpu_half(smiles: Bundle) -> CudaEngine:
    engine = load_engine(allowing_half(smiles), "cuda", precision="fp16").engine
    assert isinstance(engine, CudaEngine)
    return engine


@pytest.mark.gpu
@needs_gpu
def test_cuda_passes_the_gate_and_agrees_with_the_cpu(smiles: Bundle, gpu: CudaEngine) -> None:
    assert (gpu.info.device, gpu.info.precision) == ("cuda:0", "float32")
    exact = OnnxEngine(smiles)
    for batch in [smiles.golden.batch, *varied(20, 130, 300, 300)]:
        for output in Output:
            assert np.abs(gpu.run(batch, output) - exact.run(batch, output)).max() < 1e-5


@pytest.mark.gpu
@needs_gpu
def test_cuda_in_half_precision_has_a_cosine_of_four_nines_to_float32(smiles: Bundle, gpu_half: CudaEngine) -> None:
    assert gpu_half.info.precision == "float16"
    exact = OnnxEngine(smiles)
    for batch in [smiles.golden.batch, *varied(20, 130, 300, 300)]:
        for output in Output:
            found, expected = gpu_half.run(batch, output), exact.run(batch, output)
            norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
            assert ((found * expected).sum(axis=1) / norms).min() >= 0.9999


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_recurrent_nodes_of_both_graphs_run_on_cuda(smiles: Bundle, precision: str) -> None:
    engine = CudaEngine(smiles, precision=precision)  # type: ignore[arg-type]
    for output in Output:
        engine.run(smiles.golden.batch, output)
    placement = engine.placement()
    assert {node.partition(":")[0] for node in placement} == {"pooled", "tokens"}
    assert set(placement.values()) == {CUDA}


@pytest.mark.gpu
@needs_gpu
def test_two_batches_in_flight_on_cuda_give_what_each_gives_by_itself(gpu: CudaEngine) -> None:
    batches = varied(200, 130, 120, 256)
    expected = [gpu.run(batch, Output.POOLED) for batch in batches]
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda batch: gpu.run(batch, Output.POOLED), batches))
    for one, other in zip(found, expected, strict=True):
        assert np.abs(one - other).max() < 1e-6


@pytest.mark.gpu
@needs_gpu
def test_memory_of_the_gpu_is_flat_over_two_thousand_varied_shapes(gpu: CudaEngine) -> None:
    # `gpu` has been warmed up.
    before = gpu_memory_mib()
    for batch in varied(2000, 130, 1024, 512, seed=7):
        gpu.run(batch, Output.POOLED)
    assert gpu_memory_mib() <= before * 1.03


def gpu_memory_mib() -> int:
    """Memory in use on the first GPU."""
    command = ["nvidia-smi", "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
