"""All of the CUDA engine but CUDA, without a GPU."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from birnn_bundle.bundle import Bundle
from birnn_bundle.ragged import RaggedBatch
from birnn_service.engine import cuda_engine
from birnn_service.engine.cuda_engine import CudaEngine, provider_options
from birnn_service.engine.engine import Output
from birnn_service.engine.gate import pass_gate
from birnn_service.engine.gpu_memory import GpuMemory, Reservation
from birnn_service.engine.onnx_engine import OnnxEngine
from birnn_service.engine.onnx_session import CPU
from birnn_service.errors import EngineError, StartupError
from tests.service.engine.bundles import small_bundle
from tests.service.engine.cuda_engines import (
    HALF,
    WITHOUT_GPU,
    allowing_half,
    on_cpu,
    ordinary,
    shipped,
    varied,
)


@pytest.fixture(scope="module")
def smiles() -> Bundle:
    return shipped()


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
