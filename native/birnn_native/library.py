"""The compiled kernels, loaded through their plain C interface; ctypes releases the GIL for the whole of each call."""

import ctypes
from functools import cache
from pathlib import Path

POINTER = ctypes.c_void_p


class NativeUnavailableError(Exception):
    """The kernels were not built, or cannot be loaded; says why."""


@cache
def load_library() -> ctypes.CDLL:
    """The shared library beside this file.

    Raises:
        NativeUnavailableError: It is not there, or cannot be loaded here.
    """
    path = Path(__file__).with_name("_kernels.so")
    if not path.is_file():
        raise NativeUnavailableError(
            "the native kernels were not built: install from a wheel, or from source where there is a C++17 compiler"
        )
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise NativeUnavailableError(f"the native kernels cannot be loaded: {error}") from error
    library.birnn_instruction_sets.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    library.birnn_instruction_sets.restype = None
    library.birnn_create.argtypes = [
        ctypes.c_char_p, ctypes.c_int32, ctypes.c_int32, ctypes.c_int32, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64,
        POINTER, POINTER, POINTER, POINTER, ctypes.c_int64, ctypes.c_char_p, ctypes.c_size_t,
    ]  # fmt: skip
    library.birnn_create.restype = POINTER
    library.birnn_destroy.argtypes = [POINTER]
    library.birnn_destroy.restype = None
    library.birnn_bytes.argtypes = [POINTER]
    library.birnn_bytes.restype = ctypes.c_int64
    library.birnn_run.argtypes = [
        POINTER, POINTER, POINTER, ctypes.c_int64, POINTER, ctypes.c_int64, ctypes.c_int32, ctypes.c_int32,
        POINTER, ctypes.c_int64, ctypes.c_char_p, ctypes.c_size_t,
    ]  # fmt: skip
    library.birnn_run.restype = ctypes.c_int32
    return library


@cache
def instruction_sets() -> dict[str, bool]:
    """Instruction sets that were built and run on this processor, the best first, and whether each multiplies bf16.

    Raises:
        NativeUnavailableError: There are no kernels here.
    """
    names = ctypes.create_string_buffer(256)
    load_library().birnn_instruction_sets(names, len(names))
    found = [name.partition("+") for name in names.value.decode("ascii").split(",")]
    return {name: extra == "bf16" for name, _, extra in found}
