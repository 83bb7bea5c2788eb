"""Methods whose messages are protobuf's: how requests are read, and replies written without copies of the numbers.

A serialized message is the fields that it holds, in any order, so the large one is put before what protobuf wrote of
the others (protobuf.dev/programming-guides/encoding).
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray

from birnn_bundle.quoting import shown
from birnn_service.call import Call, Feed, Method
from birnn_service.errors import InvalidRequestError
from birnn_service.protocols.wire import Limit, check_counts
from birnn_service.token_file import Right, Rights

# Largest reply, in bytes, that is put together on the event loop: switching threads would cost more.
INLINE_BYTES = 1 << 20
Before = Callable[[int], bytes]
"""What stands before a message within another one, by its size in bytes."""
M = TypeVar("M", bound=Message)
NO_LIMITS: Mapping[int, Limit] = MappingProxyType({})


def method(
    name: str,
    kind: type[Message],
    answer: Callable[[Any, Call], Awaitable[bytes]],
    limits: Mapping[int, Limit] = NO_LIMITS,
    encoder: Callable[[Any], tuple[str, str]] | None = None,
    right: Rights | None = Right.ENCODE,
) -> Method:
    """A method.

    Args:
        name: Its name.
        kind: Type of its requests.
        answer: Answers one; see `Method`.
        limits: How many elements a request may hold, by field number; other fields occur once.
        encoder: Which encoder a request is for; see `Method`.
        right: What it asks for; see `Method`.
    """
    return Method(name, partial(read_message, name, kind, limits=limits), answer, encoder, right)


def simple(
    name: str, kind: type[Message], answer: Callable[[Any], Message], right: Rights | None = Right.ENCODE
) -> Method:
    """A method that answers at once, whatever the server is doing."""

    async def serialized(request: Message, call: Call) -> bytes:
        return answer(request).SerializeToString()

    return method(name, kind, serialized, right=right)


def feed(
    name: str, kind: type[Message], replies: Callable[[Any], AsyncIterator[Message]], right: Rights | None
) -> Feed:
    """A method whose replies do not end by themselves."""

    async def serialized(request: Message) -> AsyncIterator[bytes]:
        async for reply in replies(request):
            yield reply.SerializeToString()

    return Feed(name, partial(read_message, name, kind), serialized, right)


def read_message(name: str, kind: type[M], message: bytes, limits: Mapping[int, Limit] = NO_LIMITS) -> M:
    """Read a message of a method.

    Raises:
        InvalidRequestError: It holds too many elements, or is of another kind.
    """
    check_counts(message, limits)
    try:
        return kind.FromString(message)
    except DecodeError as error:
        raise InvalidRequestError(f"the request is no {name} message: {shown(str(error), 200)}") from error


async def with_numbers(field: int, numbers: NDArray[Any], others: Message, before: Before | None = None) -> bytes:
    """A serialized message, copied once.

    Args:
        field: Number of a `bytes` field that is to hold `numbers`.
        numbers: An array, little-endian.
        others: The message without that field.
        before: Where the message is itself a field of another one, what is put before it.
    """
    head, rest = head_of(field, numbers.nbytes), others.SerializeToString()
    parts: list[Any] = [head, np.ascontiguousarray(numbers), rest]
    if before is not None:
        parts.insert(0, before(len(head) + numbers.nbytes + len(rest)))
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
