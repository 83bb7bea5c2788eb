"""Replies as bytes, written without the copies that protobuf would make of the numbers.

A serialized message is the fields that it holds, in any order, so the large one is put before what protobuf wrote of
the others (protobuf.dev/programming-guides/encoding).
"""

import asyncio
from typing import Any

import numpy as np
from google.protobuf.message import Message
from numpy.typing import NDArray

# Up to so many bytes a reply is put together on the event loop: a thread's hop would cost more.
INLINE_BYTES = 1 << 20


async def with_numbers(field: int, numbers: NDArray[Any], others: Message) -> bytes:
    """A serialized message.

    Args:
        field: Number of a `bytes` field that is to hold `numbers`.
        numbers: An array, little-endian.
        others: The message without that field.
    """
    parts: list[Any] = [head_of(field, numbers.nbytes), np.ascontiguousarray(numbers), others.SerializeToString()]
    if numbers.nbytes <= INLINE_BYTES:
        return b"".join(parts)
    return await asyncio.to_thread(b"".join, parts)


def head_of(field: int, size: int) -> bytes:
    """What stands before the `size` bytes of a field of bytes, or of a message, within a message."""
    return _varint(field << 3 | 2) + _varint(size)


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)
