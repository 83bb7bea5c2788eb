"""Receiving and unpacking the body of a request, within bounds."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

from birnn_service.transports.http_connection import Connection
from birnn_service.transports.http_message import Grow, HttpRequestError

# Largest body, packed and unpacked, that is unpacked on the event loop: switching threads would cost more.
INLINE_BYTES, INLINE_UNPACKED = 1 << 14, 1 << 18
# So much at a time, so that other threads have their turn.
PIECE_BYTES = 1 << 18


async def read_body(
    connection: Connection,
    receive: Callable[[], Awaitable[Any]],
    size: int | None,
    encoding: str,
    most: int,
    grow: Grow,
    caller: str,
) -> bytes:
    """The body of a request.

    Args:
        connection: Where it comes from.
        receive: ASGI's, which gives the next part.
        size: What the request says of it.
        encoding: How it is packed: `gzip` or `identity`.
        most: Most bytes of it, packed and unpacked.
        grow: Asked before the body takes more memory.
        caller: Whose it is. Large bodies of one caller are unpacked one at a time: a hundred of them, of a few KiB each
            as they came, would keep the threads from everyone else for seconds.

    Raises:
        HttpRequestError: It is too large, did not arrive, or is packed in another way.
    """
    if encoding not in ("", "identity", "gzip", "x-gzip"):
        raise HttpRequestError(415, "the request's Content-Encoding may be gzip or left out")
    if size is not None and size > most:
        raise _too_large(most)
    pieces: list[bytes] = []
    total, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise HttpRequestError(400, "the connection ended within the request")
        piece, more = message["body"], message["more_body"]
        if more and connection.fault is not None:
            raise HttpRequestError(*connection.fault)
        total += len(piece)
        if total > most:
            raise _too_large(most)
        grow(len(piece))
        pieces.append(piece)
    body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    if not encoding.endswith("gzip"):
        return body
    unpacked = await unpack(body, most, connection.unpacking(caller))
    grow(len(unpacked))
    return unpacked


async def unpack(packed: bytes, most: int, turn: asyncio.Lock) -> bytes:
    """What a gzip file holds, at most `most` bytes; large ones are unpacked on a thread, when it is their `turn`.

    Messages of errors name no header: gRPC and HTTP have different ones.

    Raises:
        HttpRequestError: It holds more, or is no such file.
    """
    try:
        if len(packed) <= INLINE_BYTES:
            return _unpack(packed, min(most, INLINE_UNPACKED))
    except HttpRequestError as error:
        if error.status != 413 or most <= INLINE_UNPACKED:
            raise
    async with turn:
        return await asyncio.to_thread(_unpack, packed, most)


def _unpack(packed: bytes, most: int) -> bytes:
    reader = zlib.decompressobj(wbits=31)
    pieces: list[bytes] = []
    total = 0
    try:
        for start in range(0, len(packed), INLINE_BYTES):
            piece, data = b"", packed[start : start + INLINE_BYTES]
            while data or len(piece) == PIECE_BYTES:
                piece = reader.decompress(data, PIECE_BYTES)
                data = reader.unconsumed_tail
                pieces.append(piece)
                total += len(piece)
                if total > most:
                    raise _too_large(most)
                if reader.unused_data:
                    break
    except zlib.error as error:
        raise HttpRequestError(400, "the request is said to be gzip and is not") from error
    if not reader.eof or reader.unused_data:
        raise HttpRequestError(400, "the request is not one whole gzip file")
    return b"".join(pieces)


def _too_large(most: int) -> HttpRequestError:
    return HttpRequestError(
        413, f"this server accepts requests of at most {most >> 20} MiB (--max-message-mib), unpacked; split it"
    )
