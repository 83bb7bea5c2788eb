"""The CUDA engine on a GPU; skipped without one."""

import subprocess
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from birnn_bundle.bundle import Bundle
from birnn_service.engine.cuda_engine import CudaEngine
from birnn_service.engine.engine import Output
from birnn_service.engine.loading import load_engine
from birnn_service.engine.onnx_engine import OnnxEngine
from birnn_service.engine.onnx_session import CUDA
from tests.service.engine.cuda_engines import allowing_half, needs_gpu, shipped, varied


@pytest.fixture(scope="module")
def smiles() -> Bundle:
    return shipped()


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
