"""`native/include/birnn.h` is what the library exports, and what Python calls."""

import pytest

from birnn_bundle import cells
from birnn_native.kernel import Pooling
from birnn_native.library import PROTOTYPES, NativeUnavailableError, load_library
from tests.native.headers import enumeration, functions, header

HEADER = header("birnn.h")


def test_python_calls_each_function_as_it_is_declared() -> None:
    assert functions(HEADER, "BIRNN_PUBLIC") == PROTOTYPES


def test_cells_have_the_numbers_of_the_table() -> None:
    assert enumeration(HEADER, "birnn_cell") == {
        name: value.kernel
        for name, value in vars(cells).items()
        if isinstance(value, cells.Cell) and value.kernel is not None
    }


def test_poolings_have_the_numbers_of_python() -> None:
    assert enumeration(HEADER, "birnn_pooling") == {pooling.name: pooling.value for pooling in Pooling}


def test_the_library_knows_the_gates_of_the_table_and_no_other_cell() -> None:
    try:
        library = load_library()
    except NativeUnavailableError as error:
        pytest.skip(str(error))
    gates = {cell.kernel: len(cell.gates) for cell in cells.CELLS if cell.kernel is not None}
    assert {number: library.birnn_gates(number) for number in gates} == gates
    assert not any(library.birnn_gates(number) for number in (-(1 << 31), -1, max(gates) + 1, (1 << 31) - 1))
