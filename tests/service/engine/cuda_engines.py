"""CUDA engines that run on a CPU, and bundles that allow them half precision."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from birnn_bundle.bundle import Bundle
from birnn_bundle.onnxruntime import ort
from birnn_bundle.precisions import HalfPrecision
from birnn_bundle.ragged import RaggedBatch
from birnn_service.engine.cuda_engine import CudaEngine
from birnn_service.engine.onnx_session import CPU, CUDA
from tests.service.engine.bundles import allowing

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


def allowing_half(bundle: Bundle) -> Bundle:
    return allowing(bundle, HALF)


def varied(count: int, vocabulary: int, longest: int, most: int, seed: int = 0) -> list[RaggedBatch]:
    random = np.random.default_rng(seed)
    batches = []
    for _ in range(count):
        lengths = random.integers(1, longest, random.integers(1, most, endpoint=True), endpoint=True)
        batches.append(RaggedBatch.from_lists([random.integers(0, vocabulary, n, dtype=np.int32) for n in lengths]))
    return batches


def shipped() -> Bundle:
    """A shipped encoder, which allows no half precision here."""
    return allowing(Bundle.load(MODELS / "smiles" / "1"), None)
