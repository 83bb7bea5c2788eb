"""The CUDA runtime that onnxruntime uses, for what onnxruntime's Python interface does not offer."""

import ctypes
import io
import logging
from contextlib import redirect_stdout

from birnn_bundle.onnxruntime import ort

logger = logging.getLogger(__name__)


def preload() -> None:
    """Load CUDA and cuDNN from Python's packages, where they are.

    onnxruntime prints something about each library that is missing. cuFFT always is in the images, as no encoder needs
    it. What is needed fails later by itself, with a reason.
    """
    with redirect_stdout(io.StringIO()) as printed:
        ort.preload_dlls()
    if said := printed.getvalue().strip():
        logger.debug("onnxruntime: %s", said)


def cuda_runtime() -> ctypes.CDLL:
    """The library that onnxruntime was built for; `preload` has loaded it.

    Raises:
        OSError: There is none.
    """
    return ctypes.CDLL(f"libcudart.so.{str(getattr(ort, 'cuda_version', '')).partition('.')[0]}")


def device_memory() -> tuple[int, int]:
    """Bytes of memory of the current GPU that are free, and that it has.

    Raises:
        OSError: There is no CUDA runtime, or it cannot say.
    """
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    status = cuda_runtime().cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total))
    if status != 0:
        raise OSError(f"cudaMemGetInfo gave error {status}")
    return free.value, total.value
