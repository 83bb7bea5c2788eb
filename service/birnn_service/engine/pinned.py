"""Page-locked memory, which a GPU reads and writes by itself at the full speed of the bus."""

import ctypes
import logging
import weakref

import numpy as np
from numpy.typing import NDArray

from birnn_service.engine.cuda_runtime import cuda_runtime

logger = logging.getLogger(__name__)

# cudaHostAllocDefault of the CUDA runtime.
DEFAULT_FLAGS = 0


def pinned_bytes(size: int) -> NDArray[np.uint8]:
    """Page-locked memory of `size` bytes, freed with the last array that looks into it.

    Where CUDA grants none, this is ordinary memory, and the log says so: copies are slower then, and nothing else.
    (onnxruntime's own page-locked allocator cannot be reached from Python in most releases; the CUDA runtime that it
    has loaded can.)
    """
    try:
        return _page_locked(size)
    except OSError as error:
        logger.warning("copies to and from the GPU go through ordinary memory: %s", error)
        return np.empty(size, dtype=np.uint8)


def _page_locked(size: int) -> NDArray[np.uint8]:
    """Raises OSError without a CUDA runtime, or where it grants no memory."""
    runtime = cuda_runtime()
    address = ctypes.c_void_p()
    status = runtime.cudaHostAlloc(ctypes.byref(address), ctypes.c_size_t(size), ctypes.c_uint(DEFAULT_FLAGS))
    if status != 0 or address.value is None:
        raise OSError(f"cudaHostAlloc gave error {status} for {size >> 10} KiB")
    memory = (ctypes.c_uint8 * size).from_address(address.value)
    # At exit the CUDA context may be gone before; the process's memory goes anyway.
    weakref.finalize(memory, runtime.cudaFreeHost, ctypes.c_void_p(address.value)).atexit = False
    return np.ctypeslib.as_array(memory)
