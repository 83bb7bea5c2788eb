"""`native/include/birnn_front.h` is what Python writes and reads."""

import ctypes
import re
from pathlib import Path

import pytest

from birnn_native import front
from birnn_native.front import COMMAND, EVENT, INLINE_BYTES, PROTOTYPES, News, Order

HEADER = Path(__file__).parents[2] / "native" / "include" / "birnn_front.h"
TYPES = {
    "void": None,
    "int32_t": ctypes.c_int32,
    "int64_t": ctypes.c_int64,
    "size_t": ctypes.c_size_t,
    "char *": ctypes.c_char_p,
}
FORMATS = {"uint64_t": "Q", "uint32_t": "I", "int32_t": "i", "int64_t": "q", "double": "d"}


def header() -> str:
    return re.sub(r"/\*.*?\*/", "", HEADER.read_text(encoding="utf-8"), flags=re.DOTALL)


def ctype(declared: str) -> object:
    """The type of ctypes that a C type, or a parameter with its name, is passed as."""
    words = re.findall(r"\w+|\*", declared.replace("const", ""))
    name = " ".join(word for position, word in enumerate(words) if position == 0 or word == "*")
    return TYPES.get(name, ctypes.c_void_p)


def layout(name: str) -> str:
    """Fields of a struct, as `struct` writes them."""
    (body,) = re.findall(rf"typedef struct {name} {{(.*?)}}", header(), flags=re.DOTALL)
    fields = re.findall(r"(\w+) ([\w, ]+);", body)
    return "=" + "".join(FORMATS[kind] * len(names.split(",")) for kind, names in fields)


@pytest.mark.parametrize("kind", [News, Order])
def test_python_has_the_numbers_of_the_header(kind: type) -> None:
    (body,) = re.findall(rf"enum birnn_front_{kind.__name__.lower()} {{(.*?)}}", header(), flags=re.DOTALL)
    declared = {name: int(value) for name, value in re.findall(r"BIRNN_(\w+) = (\d+)", body)}
    assert {name: value for name, value in vars(kind).items() if name.isupper()} == declared


def test_python_has_the_layouts_of_the_header() -> None:
    assert layout("birnn_front_event") == EVENT.format
    assert layout("birnn_front_command") == COMMAND.format
    assert f"#define BIRNN_FRONT_INLINE {INLINE_BYTES}\n" in header()
    (body,) = re.findall(r"typedef struct birnn_front_settings {(.*?)}", header(), flags=re.DOTALL)
    assert re.findall(r"(\w+);", body) == [field[0] for field in front._Settings._fields_]


def test_python_calls_each_function_as_it_is_declared() -> None:
    found = re.findall(r"BIRNN_FRONT_PUBLIC ([^(]+?)(\w+)\(([^)]*)\);", header())
    declared = {name: (ctype(result), given.split(",")) for result, name, given in found}
    assert declared.keys() == PROTOTYPES.keys()
    for name, (result, arguments) in PROTOTYPES.items():
        wanted, given = declared[name]
        # What is returned as text would end at its first NUL.
        assert result == (ctypes.c_void_p if name == "birnn_front_bytes" else wanted)
        assert arguments == [ctype(one) for one in given]
