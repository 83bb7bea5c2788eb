"""`native/include/birnn_front.h` is what Python writes and reads."""

import ctypes
import re

import pytest

from birnn_native import front
from birnn_native.front import COMMAND, EVENT, INLINE_BYTES, PROTOTYPES, News, Order
from tests.native.headers import enumeration, functions, header

HEADER = header("birnn_front.h")
FORMATS = {"uint64_t": "Q", "uint32_t": "I", "int32_t": "i", "int64_t": "q", "double": "d"}


def layout(name: str) -> str:
    """Fields of a struct, as `struct` writes them."""
    (body,) = re.findall(rf"typedef struct {name} {{(.*?)}}", HEADER, flags=re.DOTALL)
    fields = re.findall(r"(\w+) ([\w, ]+);", body)
    return "=" + "".join(FORMATS[kind] * len(names.split(",")) for kind, names in fields)


@pytest.mark.parametrize("kind", [News, Order])
def test_python_has_the_numbers_of_the_header(kind: type) -> None:
    declared = enumeration(HEADER, f"birnn_front_{kind.__name__.lower()}")
    assert {name: value for name, value in vars(kind).items() if name.isupper()} == declared


def test_python_has_the_layouts_of_the_header() -> None:
    assert layout("birnn_front_event") == EVENT.format
    assert layout("birnn_front_command") == COMMAND.format
    assert f"#define BIRNN_FRONT_INLINE {INLINE_BYTES}\n" in HEADER
    (body,) = re.findall(r"typedef struct birnn_front_settings {(.*?)}", HEADER, flags=re.DOTALL)
    assert re.findall(r"(\w+);", body) == [field[0] for field in front._Settings._fields_]


def test_python_calls_each_function_as_it_is_declared() -> None:
    declared = functions(HEADER, "BIRNN_FRONT_PUBLIC")
    # What is returned as text would end at its first NUL.
    declared["birnn_front_bytes"] = ctypes.c_void_p, declared["birnn_front_bytes"][1]
    assert declared == PROTOTYPES
