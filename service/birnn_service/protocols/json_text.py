"""JSON of bounded cost: values are counted before objects are made of them, and numbers are written from arrays.

16 MiB of JSON can hold five million strings or eight million numbers, which take a second and a gigabyte to read.
"""

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from birnn_service.errors import InvalidRequestError

# Text this short is read as it is: whatever it holds takes half a millisecond.
SMALL_BYTES = 1 << 16
# Largest array, in bytes, that is written as JSON on the event loop: switching threads would take as long.
SMALL_ARRAY_BYTES = 1 << 16
# Size of a float32 as JSON text, as a multiple of its four bytes.
JSON_COST = 3
# Text is looked at, and numbers are written, in pieces of this size, so that other threads have their turn.
PIECE_BYTES, PIECE_NUMBERS = 1 << 16, 1 << 14
# Matches up to 1,024 pieces of a string, plain or escaped, at a time.
_PIECES = re.compile(rb'(?:[^"\\]{1,4096}+|\\.){0,1024}+', re.DOTALL)


async def read_json(text: bytes, most: int) -> Any:
    """What a text holds; long ones are read on a thread.

    Args:
        text: UTF-8.
        most: Most values, about: the elements of all arrays and the members of all objects.

    Raises:
        InvalidRequestError: It holds more, or is no JSON.
    """
    if len(text) <= SMALL_BYTES:
        return parse_json(text, most)
    return await asyncio.to_thread(parse_json, text, most)


def parse_json(text: bytes, most: int) -> Any:
    """What a text holds; see `read_json`."""
    # Most texts hold few enough, even with what their strings hold.
    if len(text) > SMALL_BYTES and _count(text, 0, len(text), most) > most:
        count_values(text, most)
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidRequestError(f"the request is no JSON: {str(error)[:200]}") from error


def count_values(text: bytes, most: int) -> int:
    """Commas and opening brackets outside of strings: no less than half of the values that a reader makes objects of.

    It counts the same in whatever is no JSON, which is left to the reader.

    Raises:
        InvalidRequestError: There are more than `most`.
    """
    count = position = 0
    while position < len(text):
        quote = text.find(b'"', position)
        end = quote if quote >= 0 else len(text)
        count += _count(text, position, end, most)
        if count > most:
            raise InvalidRequestError(
                f"the request holds more than {most} values, more than --max-sequences needs; split it"
            )
        position = _end_of_string(text, end + 1)
    return count


def _count(text: bytes, start: int, end: int, most: int) -> int:
    """Commas and opening brackets within a part of a text; where there are more than `most`, some number above."""
    count = 0
    for piece in range(start, end, PIECE_BYTES):
        stop = min(end, piece + PIECE_BYTES)
        count += text.count(b",", piece, stop) + text.count(b"[", piece, stop) + text.count(b"{", piece, stop)
        if count > most:
            break
    return count


def _end_of_string(text: bytes, start: int) -> int:
    """Where the string ends whose content begins at `start`: behind its closing quote."""
    end = text.find(b'"', start)
    if end < 0:
        return len(text)
    if text[end - 1 : end] != b"\\" or end == start:
        return end + 1
    position = start
    while position < len(text) and text[position] != ord('"'):
        match = _PIECES.match(text, position)
        if match is None or match.end() == position:  # ends within an escape
            return len(text)
        position = match.end()
    return position + 1


def write_json(value: Any) -> bytes:
    """A value as JSON."""
    return orjson.dumps(value)


def write_vector(vector: NDArray[Any]) -> bytes:
    """A short array as JSON; each number as short as reads back the same, NaN as null."""
    return orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY)


def write_numbers(numbers: NDArray[Any]) -> Iterator[bytes]:
    """An array as one flat JSON array, in pieces; numbers as in `write_vector`."""
    flat = np.ascontiguousarray(numbers).reshape(-1)
    yield b"["
    for start in range(0, len(flat), PIECE_NUMBERS):
        if start:
            yield b","
        yield write_vector(flat[start : start + PIECE_NUMBERS])[1:-1]
    yield b"]"
