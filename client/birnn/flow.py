"""Sends the requests of one input, several at a time, and returns the replies in order."""

from collections import deque
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

from birnn.chunk import Chunk
from birnn.connection import Connection, UnderWay
from birnn.encode_call import EncodeCall
from birnn.errors import UnknownEncoderError, VersionGoneError
from birnn.request_stream import RequestStream
from birnn.v1 import encoder_pb2 as pb


class Flow:
    """Sends the requests of one input and returns their replies in order. It reads ahead only as far as it sends.

    Args:
        connection: Connection to send the requests over.
        call: Turns sequences into requests.
        sequences: The input.
        in_flight: Maximum number of requests in flight.
        streamed: Whether to send the requests over one stream if the server supports it, instead of in separate calls.
    """

    def __init__(
        self,
        connection: Connection,
        call: EncodeCall,
        sequences: Iterator[Any] | AsyncIterator[Any],
        in_flight: int,
        *,
        streamed: bool,
    ) -> None:
        self._connection = connection
        self._call = call
        self._sequences: Iterator[Any] | AsyncIterator[Any] | None = sequences
        self._in_flight = in_flight
        self._streamed = streamed
        self._stream: RequestStream | None = None
        self._pending: deque[tuple[pb.EncodeRequest, UnderWay]] = deque()

    async def next(self) -> Chunk | None:
        """Return the reply to the next request, or None after the last.

        Raises:
            VersionGoneError: The server stopped serving the version that answered first.
            EncodeError: The request failed.
            TypeError: An item of the input is not a sequence.
        """
        while len(self._pending) < self._in_flight and (request := await self._next_request()) is not None:
            self._pending.append((request, self._send(request)))
        if not self._pending:
            return None
        request, under_way = self._pending[0]
        reply = await self._answer(request, under_way)
        if not self._call.bind(request, reply):
            under_way = self._send(request)
            self._pending[0] = request, under_way
            reply = await self._answer(request, under_way)
        self._pending.popleft()
        return self._call.chunk(request, reply)

    async def _answer(self, request: pb.EncodeRequest, under_way: UnderWay) -> pb.EncodeResponse:
        call = self._call
        try:
            reply: pb.EncodeResponse = await self._connection.answer(
                under_way, partial(self._send, request), call.deadline, call.timeout
            )
        except UnknownEncoderError as error:
            if not call.begun:
                raise
            raise VersionGoneError(
                f"the server stopped serving the version that answered the first part: {error}; repeat the call",
                error.code,
            ) from error
        return reply

    def close(self) -> None:
        """Cancel the requests in flight."""
        for _, under_way in self._pending:
            under_way.cancel()
        if self._stream is not None:
            self._stream.close()

    async def _next_request(self) -> pb.EncodeRequest | None:
        if isinstance(self._sequences, AsyncIterator):
            async for sequence in self._sequences:
                if (request := self._call.add(sequence)) is not None:
                    return request
        elif self._sequences is not None:
            for sequence in self._sequences:
                if (request := self._call.add(sequence)) is not None:
                    return request
        # The iterator is not read again, because some iterators continue after their end.
        self._sequences = None
        return self._call.flush()

    def _send(self, request: pb.EncodeRequest, *, alone: bool = False) -> UnderWay:
        timeout = self._call.remaining()
        if alone or not (self._streamed and self._connection.streams):
            return self._connection.encode(request, timeout)
        if self._stream is None or self._stream.over:
            self._stream = self._connection.stream()
        return self._stream.send(request, timeout)
