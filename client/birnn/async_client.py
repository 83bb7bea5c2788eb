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

from birnn import encode_call
from birnn.assembly import Assembly, by_sequence, encodings, token_encodings
from birnn.channel import DEFAULT_ADDRESS, channel_options, checked_address
from birnn.client import LIST_TIMEOUT
from birnn.encode_call import Chunk, EncodeCall, FeatureCall, Features, Item
from birnn.encodings import EncoderInfo, Encodings, TokenEncodings
from birnn.errors import EncodeError, call_error
from birnn.retries import RETRY_FOR, Outage, Retries
from birnn.v1 import encoder_pb2 as pb
from birnn.v1.encoder_pb2_grpc import EncoderServiceStub

Call: TypeAlias = grpc.aio.UnaryUnaryCall


class AsyncClient:
    """Encodes sequences with a birnn server; the same as `Client`, for one asyncio event loop.

    It is used in one event loop at a time, and connects anew in the next one, for example of a second `asyncio.run`.
    Cancelling a coroutine cancels its calls.

    Args:
        address: HOST:PORT, or any gRPC target: dns:///host:port for all addresses of a name, ipv4:HOST:PORT,HOST:PORT
            for several servers, unix:/path.
        credentials: TLS credentials (`grpc.ssl_channel_credentials(...)`); None for a connection in the clear.
        batch_size: Most sequences in one call for pooled encodings; an eighth of it for per-token ones.
        in_flight: Most calls under way at a time for one input.
        half: Let replies travel as float16: half the bytes, each number rounded to 11 significant bits. Results are
            float32 all the same; a sequence with a number beyond 65,504 fails as OUT_OF_RANGE.
        retry_for: Seconds for which a call is repeated, with back-off, while the server is unavailable; never beyond
            the call's timeout. 0 repeats nothing.

    Raises:
        ValueError: The address has no port, or a number is too small.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        batch_size: int = 512,
        in_flight: int = 4,
        half: bool = False,
        retry_for: float = RETRY_FOR,
    ) -> None:
        if batch_size < 1 or in_flight < 1:
            raise ValueError(f"batch_size and in_flight must be at least 1, not {batch_size} and {in_flight}")
        if not retry_for >= 0:
            raise ValueError(f"retry_for must be at least 0 seconds, not {retry_for}")
        self.address = checked_address(address)
        self._outage = Outage(address, retry_for)
        self._credentials = credentials
        self._batch_size = batch_size
        self._in_flight = in_flight
        self._half = half
        self._channel: grpc.aio.Channel | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __reduce__(self) -> tuple[Callable[..., Self], tuple[()]]:
        """Address and options; the copy has a connection of its own.

        Raises:
            TypeError: The client has credentials, which cannot be pickled.
        """
        if self._credentials is not None:
            raise TypeError("a client with credentials cannot be pickled; make one where it is needed")
        return partial(
            type(self),
            self.address,
            batch_size=self._batch_size,
            in_flight=self._in_flight,
            half=self._half,
            retry_for=self._outage.retry_for,
        ), ()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
        if self._channel is not None:
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
        if on_error == "raise":
            answer.raise_errors()
        vectors = answer.encodings().vectors
        return vectors[0] if encode_call.is_single(sequences) else vectors

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
        if on_error == "raise":
            answer.raise_errors()
        tokens = answer.token_encodings().tokens
        return tokens[0] if encode_call.is_single(sequences) else tokens

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
        if on_error == "raise":
            answer.raise_errors()
        vectors = answer.encodings().vectors
        return vectors[0] if encode_call.is_single(features) else vectors

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
        if on_error == "raise":
            answer.raise_errors()
        return answer.token_encodings().tokens

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
        call = EncodeCall("pooled", encoder, version, truncate, self._batch_size, None, self._half)
        async with aclosing(self._chunks(call, sequences, timeout)) as chunks:
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
        call = EncodeCall("tokens", encoder, version, truncate, self._batch_size, None, self._half)
        async with aclosing(self._chunks(call, sequences, timeout)) as chunks:
            async for chunk in chunks:
                yield token_encodings(chunk, by_sequence(chunk))

    async def encoders(self, *, timeout: float | None = LIST_TIMEOUT) -> list[EncoderInfo]:
        """What the server serves; see `Client.encoders`."""
        stub = self._stub()
        timeout = encode_call.checked_timeout(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout

        def send() -> Call:
            left = None if deadline is None else deadline - time.monotonic()
            return stub.ListEncoders(pb.ListEncodersRequest(), timeout=left)

        reply = await self._answer(send(), send, deadline, timeout)
        return [encode_call.encoder_info(encoder) for encoder in reply.encoders]

    async def encoder(
        self,
        name: str = "smiles",
        version: str | int | None = None,
        *,
        timeout: float | None = LIST_TIMEOUT,
    ) -> EncoderInfo:
        """The encoder that answers to this name and version; see `Client.encoder`."""
        return encode_call.find_encoder(await self.encoders(timeout=timeout), name, version, self.address)

    def _stub(self) -> EncoderServiceStub:
        # A channel of grpc.aio needs its event loop, which need not run yet when the client is made.
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
        output: encode_call.Output,
        sequences: encode_call.Input,
        encoder: str,
        version: str | int | None,
        timeout: float | None,
        truncate: bool,
        kind: type[EncodeCall] = EncodeCall,
    ) -> Assembly:
        items = encode_call.as_list(sequences)
        if not items:
            return Assembly.of_nothing(await self.encoder(encoder, version, timeout=timeout))
        call = kind(output, encoder, version, truncate, self._batch_size, timeout, self._half)
        assembly = Assembly(len(items))
        add = assembly.add_tokens if output == "tokens" else assembly.add_vectors
        async with aclosing(self._chunks(call, items)) as chunks:
            async for chunk in chunks:
                add(chunk)
        return assembly

    async def _chunks(
        self,
        call: EncodeCall,
        sequences: encode_call.Input | AsyncIterable[Item],
        timeout: float | None = None,
    ) -> AsyncGenerator[Chunk, None]:
        stub = self._stub()
        each = encode_call.checked_timeout(timeout)
        requests = _requests(call, sequences)
        pending: deque[tuple[pb.EncodeRequest, Call]] = deque()

        def send(request: pb.EncodeRequest) -> Call:
            return stub.Encode(request, timeout=each if call.timeout is None else call.remaining())

        try:
            while True:
                while len(pending) < self._in_flight and (request := await anext(requests, None)) is not None:
                    pending.append((request, send(request)))
                if not pending:
                    return
                request, under_way = pending[0]
                limit = each if call.timeout is None else call.timeout
                reply = await self._answer(under_way, partial(send, request), call.deadline, limit)
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


async def _requests(
    call: EncodeCall, sequences: encode_call.Input | AsyncIterable[Item]
) -> AsyncGenerator[pb.EncodeRequest, None]:
    if isinstance(sequences, AsyncIterable):
        async for sequence in sequences:
            if (request := call.add(sequence)) is not None:
                yield request
        if (request := call.flush()) is not None:
            yield request
    else:
        for request in call.requests([sequences] if isinstance(sequences, str | bytes) else sequences):
            yield request
