# A timeout travels to the server as the deadline of the call, so asyncio.timeout is no substitute.
# ruff: noqa: ASYNC109
"""The client for asyncio code."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import aclosing
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias, overload

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray

from birnn.assembly import Assembly, by_sequence, encodings, token_encodings
from birnn.base_client import LIST_TIMEOUT, BaseClient, token_vectors_of, vectors_of
from birnn.channel import channel_options
from birnn.encode_call import Chunk, EncodeCall, FeatureCall, Output
from birnn.encoder_listing import encoder_info, find_encoder
from birnn.encodings import EncoderInfo, Encodings, TokenEncodings
from birnn.errors import EncodeError, call_error
from birnn.inputs import Features, Input, Item, as_list, checked_timeout, is_single
from birnn.retries import Retries
from birnn.v1 import encoder_pb2 as pb
from birnn.v1.encoder_pb2_grpc import EncoderServiceStub

Call: TypeAlias = grpc.aio.UnaryUnaryCall


class AsyncClient(BaseClient):
    """Encodes sequences with a birnn server; the same as `Client`, for one asyncio event loop.

    It is used in one event loop at a time, and connects anew in the next one, for example of a second `asyncio.run`.
    Cancelling a coroutine cancels its calls.

    Args:
        The same as of `Client`.

    Raises:
        ValueError: The address has no port, or a number is too small.
    """

    def _open(self) -> None:
        # A channel of grpc.aio needs its event loop, which need not run yet when the client is made.
        self._channel: grpc.aio.Channel | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
        # The connection of an event loop that has ended went with it.
        if self._channel is not None and self._loop is asyncio.get_running_loop():
            await self._channel.close()

    async def encode(
        self,
        sequences: Iterable[Item] | Item,
        encoder: str = "smiles",
        version: str | int | None = None,
        *,
        timeout: float | None = None,
        truncate: bool = False,
        on_error: Literal["raise", "nan"] = "raise",
    ) -> NDArray[np.float32]:
        """Encode sequences, one vector each: float32 [n, dimension]; see `Client.encode`."""
        answer = await self._assemble("pooled", sequences, encoder, version, timeout, truncate)
        return vectors_of(answer, on_error, single=is_single(sequences))

    @overload
    async def encode_tokens(  # type: ignore[overload-overlap]
        self,
        sequences: Item,
        encoder: str = ...,
        version: str | int | None = ...,
        *,
        timeout: float | None = ...,
        truncate: bool = ...,
        on_error: Literal["raise", "empty"] = ...,
    ) -> NDArray[np.float32]: ...

    @overload
    async def encode_tokens(
        self,
        sequences: Iterable[Item],
        encoder: str = ...,
        version: str | int | None = ...,
        *,
        timeout: float | None = ...,
        truncate: bool = ...,
        on_error: Literal["raise", "empty"] = ...,
    ) -> list[NDArray[np.float32]]: ...

    async def encode_tokens(
        self,
        sequences: Iterable[Item] | Item,
        encoder: str = "smiles",
        version: str | int | None = None,
        *,
        timeout: float | None = None,
        truncate: bool = False,
        on_error: Literal["raise", "empty"] = "raise",
    ) -> list[NDArray[np.float32]] | NDArray[np.float32]:
        """Encode sequences, one vector a token: float32 [length, token_dimension] each; see `Client.encode_tokens`."""
        answer = await self._assemble("tokens", sequences, encoder, version, timeout, truncate)
        tokens = token_vectors_of(answer, on_error)
        return tokens[0] if is_single(sequences) else tokens

    async def encode_features(
        self,
        features: Iterable[Features] | Features,
        encoder: str,
        version: str | int | None = None,
        *,
        timeout: float | None = None,
        truncate: bool = False,
        on_error: Literal["raise", "nan"] = "raise",
    ) -> NDArray[np.float32]:
        """Encode sequences of float features, one vector each; see `Client.encode_features`."""
        answer = await self._assemble("pooled", features, encoder, version, timeout, truncate, FeatureCall)
        return vectors_of(answer, on_error, single=is_single(features))

    async def encode_feature_tokens(
        self,
        features: Iterable[Features],
        encoder: str,
        version: str | int | None = None,
        *,
        timeout: float | None = None,
        truncate: bool = False,
        on_error: Literal["raise", "empty"] = "raise",
    ) -> list[NDArray[np.float32]]:
        """Encode sequences of float features, one vector a step; see `Client.encode_feature_tokens`."""
        answer = await self._assemble("tokens", features, encoder, version, timeout, truncate, FeatureCall)
        return token_vectors_of(answer, on_error)

    async def call(
        self,
        sequences: Iterable[Item],
        encoder: str = "smiles",
        version: str | int | None = None,
        *,
        timeout: float | None = None,
        truncate: bool = False,
    ) -> Encodings:
        """As `encode`, with all that the server says; see `Client.call`."""
        return (await self._assemble("pooled", sequences, encoder, version, timeout, truncate)).encodings()

    async def call_tokens(
        self,
        sequences: Iterable[Item],
        encoder: str = "smiles",
        version: str | int | None = None,
        *,
        timeout: float | None = None,
        truncate: bool = False,
    ) -> TokenEncodings:
        """As `encode_tokens`, with all that the server says; see `Client.call_tokens`."""
        return (await self._assemble("tokens", sequences, encoder, version, timeout, truncate)).token_encodings()

    async def stream(
        self,
        sequences: Iterable[Item] | AsyncIterable[Item],
        encoder: str = "smiles",
        version: str | int | None = None,
        *,
        timeout: float | None = None,
        truncate: bool = False,
    ) -> AsyncIterator[Encodings]:
        """Encode an input of any length in bounded memory; see `Client.stream`."""
        call = self._call("pooled", encoder, version, truncate, each=timeout)
        async with aclosing(self._chunks(call, sequences)) as chunks:
            async for chunk in chunks:
                yield encodings(chunk)

    async def stream_tokens(
        self,
        sequences: Iterable[Item] | AsyncIterable[Item],
        encoder: str = "smiles",
        version: str | int | None = None,
        *,
        timeout: float | None = None,
        truncate: bool = False,
    ) -> AsyncIterator[TokenEncodings]:
        """As `stream`, one vector a token."""
        call = self._call("tokens", encoder, version, truncate, each=timeout)
        async with aclosing(self._chunks(call, sequences)) as chunks:
            async for chunk in chunks:
                yield token_encodings(chunk, by_sequence(chunk))

    async def encoders(self, *, timeout: float | None = LIST_TIMEOUT) -> list[EncoderInfo]:
        """What the server serves; see `Client.encoders`."""
        stub = self._stub()
        timeout = checked_timeout(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout

        def send() -> Call:
            left = None if deadline is None else deadline - time.monotonic()
            return stub.ListEncoders(pb.ListEncodersRequest(), timeout=left)

        reply = await self._answer(send(), send, deadline, timeout)
        return [encoder_info(encoder) for encoder in reply.encoders]

    async def encoder(
        self,
        name: str = "smiles",
        version: str | int | None = None,
        *,
        timeout: float | None = LIST_TIMEOUT,
    ) -> EncoderInfo:
        """The encoder that answers to this name and version; see `Client.encoder`."""
        return find_encoder(await self.encoders(timeout=timeout), name, version, self.address)

    def _stub(self) -> EncoderServiceStub:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None and not self._loop.is_closed():
                raise RuntimeError("this AsyncClient is used in another event loop that still runs; make one for each")
            self._loop, self._channel = loop, None
        if self._channel is None:
            options = channel_options(self.address)
            if self._credentials is None:
                self._channel = grpc.aio.insecure_channel(self.address, options)
            else:
                self._channel = grpc.aio.secure_channel(self.address, self._credentials, options)
        return EncoderServiceStub(self._channel)

    async def _assemble(
        self,
        output: Output,
        sequences: Input,
        encoder: str,
        version: str | int | None,
        timeout: float | None,
        truncate: bool,
        kind: type[EncodeCall] = EncodeCall,
    ) -> Assembly:
        items = as_list(sequences)
        if not items:
            return Assembly.of_nothing(await self.encoder(encoder, version, timeout=timeout))
        call = self._call(output, encoder, version, truncate, timeout=timeout, kind=kind)
        assembly = Assembly(len(items))
        add = assembly.add_tokens if output == "tokens" else assembly.add_vectors
        async with aclosing(self._chunks(call, items)) as chunks:
            async for chunk in chunks:
                add(chunk)
        return assembly

    async def _chunks(
        self,
        call: EncodeCall,
        sequences: Input | AsyncIterable[Item],
    ) -> AsyncGenerator[Chunk, None]:
        stub = self._stub()
        requests = _requests(call, sequences)
        pending: deque[tuple[pb.EncodeRequest, Call]] = deque()

        def send(request: pb.EncodeRequest) -> Call:
            return stub.Encode(request, timeout=call.remaining())

        try:
            while True:
                while len(pending) < self._in_flight and (request := await anext(requests, None)) is not None:
                    pending.append((request, send(request)))
                if not pending:
                    return
                request, under_way = pending[0]
                reply = await self._answer(under_way, partial(send, request), call.deadline, call.limit)
                pending.popleft()
                yield call.parse(request, reply)
        finally:
            for _, under_way in pending:
                under_way.cancel()

    async def _answer(
        self, under_way: Call, send: Callable[[], Call], deadline: float | None, timeout: float | None
    ) -> Any:
        """The reply to a call, which is sent again where that may help."""
        retries = Retries(self._outage, deadline)
        try:
            while True:
                try:
                    reply = await under_way
                except grpc.RpcError as error:
                    pause = retries.pause(error)
                    if pause is None:
                        raise call_error(error, self.address, timeout) from error
                    await asyncio.sleep(pause)
                    under_way = send()
                else:
                    self._outage.over()
                    return reply
        except grpc.aio.UsageError as error:
            raise EncodeError("the client was closed during the call", grpc.StatusCode.CANCELLED) from error
        except asyncio.CancelledError as error:
            if under_way.cancelled() and not _cancelling():
                raise EncodeError("the client was closed during the call", grpc.StatusCode.CANCELLED) from error
            raise
        finally:
            under_way.cancel()


def _cancelling() -> bool:
    """Whether the running task was asked to stop, rather than the call it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _requests(call: EncodeCall, sequences: Input | AsyncIterable[Item]) -> AsyncGenerator[pb.EncodeRequest, None]:
    if isinstance(sequences, AsyncIterable):
        async for sequence in sequences:
            if (request := call.add(sequence)) is not None:
                yield request
        if (request := call.flush()) is not None:
            yield request
    else:
        for request in call.requests(sequences):
            yield request
