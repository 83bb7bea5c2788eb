"""`native/include/birnn.h` is what the library exports, and what Python calls."""

import ctypes
import re
from pathlib import Path

import pytest

from birnn_bundle import cells
from birnn_native.kernel import Pooling
from birnn_native.library import PROTOTYPES, NativeUnavailableError, load_library

HEADER = Path(__file__).parents[2] / "native" / "include" / "birnn.h"
TYPES = {
    "void": None,
    "int32_t": ctypes.c_int32,
    "int64_t": ctypes.c_int64,
    "size_t": ctypes.c_size_t,
    "char *": ctypes.c_char_p,
    "float *": ctypes.c_void_p,
    "float * *": ctypes.c_void_p,
    "int32_t *": ctypes.c_void_p,
    "int64_t *": ctypes.c_void_p,
    "birnn_encoder *": ctypes.c_void_p,
}


def header() -> str:
    return re.sub(r"/\*.*?\*/", "", HEADER.read_text(encoding="utf-8"), flags=re.DOTALL)


def enumeration(name: str) -> dict[str, int]:
    (body,) = re.findall(rf"enum {name} {{(.*?)}}", header(), flags=re.DOTALL)
    return {key: int(value) for key, value in re.findall(r"BIRNN_(\w+) = (\d+)", body)}


def ctype(declared: str) -> object:
    """The type of ctypes that a C type, or a parameter with its name, is passed as."""
    words = re.findall(r"\w+|\*", declared.replace("const", ""))
    return TYPES[" ".join(word for position, word in enumerate(words) if position == 0 or word == "*")]


def functions() -> dict[str, tuple[object, list[object]]]:
    found = re.findall(r"BIRNN_PUBLIC ([^(]+?)(\w+)\(([^)]*)\);", header())
    return {name: (ctype(result), [ctype(one) for one in given.split(",")]) for result, name, given in found}


def test_python_calls_each_function_as_it_is_declared() -> None:
    assert functions() == PROTOTYPES


def test_cells_have_the_numbers_of_the_table() -> None:
    assert enumeration("birnn_cell") == {
        name: value.kernel
        for name, value in vars(cells).items()
        if isinstance(value, cells.Cell) and value.kernel is not None
    }


def test_poolings_have_the_numbers_of_python() -> None:
    assert enumeration("birnn_pooling") == {pooling.name: pooling.value for pooling in Pooling}


def test_the_library_knows_the_gates_of_the_table_and_no_other_cell() -> None:
    try:
        library = load_library()
    except NativeUnavailableError as error:
        pytest.skip(str(error))
    gates = {cell.kernel: len(cell.gates) for cell in cells.CELLS if cell.kernel is not None}
    assert {number: library.birnn_gates(number) for number in gates} == gates
    assert not any(library.birnn_gates(number) for number in (-(1 << 31), -1, max(gates) + 1, (1 << 31) - 1))
