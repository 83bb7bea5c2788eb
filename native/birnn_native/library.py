"""The compiled kernels, loaded through their plain C interface; ctypes releases the GIL for the whole of each call."""

import ctypes
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

Precision = Literal["fp32", "bf16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
"""How products are computed, by their numbers in `include/birnn.h`."""

_TEXT, _POINTER, _SIZE = ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t
_INT32, _INT64 = ctypes.c_int32, ctypes.c_int64
PROTOTYPES: dict[str, tuple[Any, list[Any]]] = {
    "birnn_instruction_sets": (None, [_TEXT, _SIZE]),
    "birnn_gates": (_INT32, [_INT32]),
    "birnn_create": (
        _POINTER,
        [
            *(_TEXT, _INT32, _INT32, _INT32, _POINTER, _INT64, _INT64),
            *(_POINTER, _POINTER, _POINTER, _POINTER, _INT64, _TEXT, _SIZE),
        ],
    ),
    "birnn_destroy": (None, [_POINTER]),
    "birnn_bytes": (_INT64, [_POINTER]),
    "birnn_run": (
        _INT32,
        [_POINTER, _POINTER, _POINTER, _INT64, _POINTER, _INT64, _INT32, _INT32, _POINTER, _INT64, _TEXT, _SIZE],
    ),
}
"""Result and arguments of each function of `include/birnn.h`."""


class NativeUnavailableError(Exception):
    """Compiled code was not built, or cannot be loaded; says why."""


@cache
def load_library() -> ctypes.CDLL:
    """The shared library beside this file.

    Raises:
        NativeUnavailableError: It is not there, or cannot be loaded here.
    """
    what = "the native kernels"
    needs = "install from a wheel, or from source where there is a C++17 compiler"
    return load_shared("_kernels.so", what, f"{what} were not built: {needs}", PROTOTYPES)


def load_shared(file: str, what: str, missing: str, prototypes: Mapping[str, tuple[Any, list[Any]]]) -> ctypes.CDLL:
    """Load a shared library beside this file, and declare its functions.

    Args:
        file: Its name.
        what: What it holds, for messages.
        missing: The message if there is no such file.
        prototypes: Result and arguments of each of its functions.

    Raises:
        NativeUnavailableError: It is not there, or cannot be loaded here.
    """
    path = Path(__file__).with_name(file)
    if not path.is_file():
        raise NativeUnavailableError(missing)
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise NativeUnavailableError(f"{what} cannot be loaded: {error}") from error
    for name, (result, arguments) in prototypes.items():
        function = getattr(library, name, None)
        if function is None:
            raise NativeUnavailableError(
                f"{what} cannot be loaded: the file is of another version ({name} is missing); install again"
            )
        function.restype, function.argtypes = result, arguments
    return library


@cache
def instruction_sets() -> dict[str, tuple[Precision, ...]]:
    """Instruction sets that were built and run on this processor, the best first, and the precisions that each has.

    Raises:
        NativeUnavailableError: There are no kernels here.
    """
    names = ctypes.create_string_buffer(512)
    load_library().birnn_instruction_sets(names, len(names))
    sets = {}
    for described in names.value.decode("ascii").split(","):
        name, *more = described.split("+")
        sets[name] = tuple(precision for precision in PRECISIONS if precision == "fp32" or precision in more)
    return sets


def precisions(instruction_set: str | None = None) -> tuple[Precision, ...]:
    """What the kernels of an instruction set compute in, the fastest first; by default of the best set here.

    Raises:
        NativeUnavailableError: There are no kernels here.
    """
    sets = instruction_sets()
    name = instruction_set or next(iter(sets))
    # Without instructions for them, products of integers take longer than those of floats.
    order: tuple[Precision, ...] = ("fp32", "int8") if name == "portable" else ("int8", "bf16", "fp32")
    return tuple(precision for precision in order if precision in sets[name])
