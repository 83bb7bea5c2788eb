"""What the C headers of the native code declare, as ctypes has it."""

import ctypes
import re
from pathlib import Path

INCLUDE = Path(__file__).parents[2] / "native" / "include"
POINTERS = [
    *("float *", "float * *", "int32_t *", "int64_t *", "birnn_encoder *"),
    *("birnn_front *", "birnn_front_event *", "birnn_front_settings *"),
]
TYPES = {
    "void": None,
    "int32_t": ctypes.c_int32,
    "int64_t": ctypes.c_int64,
    "size_t": ctypes.c_size_t,
    "char *": ctypes.c_char_p,
    **dict.fromkeys(POINTERS, ctypes.c_void_p),
}


def header(name: str) -> str:
    """Text of a header without its comments."""
    return re.sub(r"/\*.*?\*/", "", (INCLUDE / name).read_text(encoding="utf-8"), flags=re.DOTALL)


def enumeration(text: str, name: str) -> dict[str, int]:
    """Names, without their prefix, and numbers of an enumeration."""
    (body,) = re.findall(rf"enum {name} {{(.*?)}}", text, flags=re.DOTALL)
    return {key: int(value) for key, value in re.findall(r"BIRNN_(\w+) = (\d+)", body)}


def functions(text: str, mark: str) -> dict[str, tuple[object, list[object]]]:
    """Result and arguments of each function that is declared with `mark`."""
    found = re.findall(rf"{mark} ([^(]+?)(\w+)\(([^)]*)\);", text)
    return {name: (_ctype(result), [_ctype(one) for one in given.split(",")]) for result, name, given in found}


def _ctype(declared: str) -> object:
    """The type of ctypes that a C type, or a parameter with its name, is passed as."""
    words = re.findall(r"\w+|\*", declared.replace("const", ""))
    return TYPES[" ".join(word for position, word in enumerate(words) if position == 0 or word == "*")]
