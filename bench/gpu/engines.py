"""What the stages run: an engine on the device, and batches for it."""

import time
from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from birnn_bundle.bundle import Bundle
from birnn_bundle.onnxruntime import ort
from birnn_bundle.ragged import RaggedBatch
from birnn_bundle.tokenizer import UNKNOWN_ID
from birnn_service.engine.cuda_engine import CudaEngine
from birnn_service.engine.gate import GateReport, pass_gate
from birnn_service.engine.gpu_memory import GpuMemory
from birnn_service.engine.onnx_session import CPU
from birnn_service.errors import StartupError

Device = Literal["cpu", "cuda"]
Precision = Literal["fp32", "fp16"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")


def open_engine(
    bundle: Bundle, device: Device, precision: Precision, memory: GpuMemory | None = None
) -> tuple[CudaEngine, GateReport]:
    """The engine of a GPU, proven but not warmed up; for a rehearsal the same engine on a CPU.

    Raises:
        StartupError: It cannot serve the bundle.
    """
    if device == "cuda":
        ort.preload_dlls()
        engine = CudaEngine(bundle, precision=precision, gpu_memory=memory)
    else:
        engine = CudaEngine(bundle, precision=precision, gpu_memory=memory, provider=CPU, allocate=_ordinary)
    try:
        return engine, pass_gate(bundle, engine)
    except StartupError:
        engine.close()
        raise


def random_batch(bundle: Bundle, lengths: NDArray[np.int64], seed: int) -> RaggedBatch:
    """Sequences of these lengths, of random tokens."""
    random, manifest = np.random.default_rng(seed), bundle.manifest
    if manifest.features:
        return RaggedBatch.from_features(
            [random.standard_normal((length, manifest.features), dtype=np.float32) for length in lengths]
        )
    return RaggedBatch.from_lists(
        [random.integers(UNKNOWN_ID, manifest.vocab_size, length, dtype=np.int32) for length in lengths]
    )


def mixed_lengths(count: int, longest: int, seed: int) -> NDArray[np.int64]:
    """As many short sequences as long ones, by the logarithm, with both ends among them."""
    random = np.random.default_rng(seed)
    lengths = np.exp(random.uniform(0, np.log(longest + 1), count)).astype(np.int64).clip(1, longest)
    lengths[:2] = 1, longest
    return lengths[random.permutation(count)]


def until(end: float, numbers: int) -> Iterator[int]:
    """0, 1, ... below `numbers`, while there is time."""
    for number in range(numbers):
        if time.monotonic() > end:
            return
        yield number


def _ordinary(size: int) -> NDArray[np.uint8]:
    return np.empty(size, dtype=np.uint8)
