"""The connection of `AsyncClient`. gRPC runs in the caller's event loop."""

import asyncio
from collections.abc import AsyncIterator, Generator
from typing import Any

import grpc
import grpc.aio

from birnn.channel import channel_options
from birnn.connection import Connection, closed_error
from birnn.metadata import Metadata
from birnn.request_stream import Outcome, RequestStream, StreamedRequest
from birnn.v1 import encoder_pb2 as pb
from birnn.v1.encoder_pb2_grpc import EncoderServiceStub


def open_channel(address: str, credentials: grpc.ChannelCredentials | None, *, shared: bool = True) -> grpc.aio.Channel:
    """Open a channel in the running event loop. See `channel_options` for the arguments."""
    options = channel_options(address, shared)
    if credentials is None:
        return grpc.aio.insecure_channel(address, options)
    return grpc.aio.secure_channel(address, credentials, options)


class AsyncConnection(Connection):
    """A connection for asyncio. It connects anew in each event loop, and works in one event loop at a time."""

    def __init__(
        self, address: str, credentials: grpc.ChannelCredentials | None, metadata: Metadata, retry_for: float
    ) -> None:
        super().__init__(address, credentials, metadata, retry_for)
        # A grpc.aio channel belongs to an event loop, and none may be running yet when the client is created.
        self._channel: grpc.aio.Channel | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def close(self) -> None:
        # If the event loop of a connection has ended, so has the connection.
        if self._channel is not None and self._loop is asyncio.get_running_loop():
            self._closed = True
            await self._channel.close()

    def encode(self, request: pb.EncodeRequest, timeout: float | None) -> grpc.aio.UnaryUnaryCall:
        return self._stub().Encode(request, timeout=timeout, metadata=self._metadata)

    def list_encoders(self, timeout: float | None) -> grpc.aio.UnaryUnaryCall:
        return self._stub().ListEncoders(pb.ListEncodersRequest(), timeout=timeout, metadata=self._metadata)

    def stream(self) -> RequestStream:
        return AsyncStream(self._stub(), self._metadata)

    def _stub(self) -> EncoderServiceStub:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None and not self._loop.is_closed():
                raise RuntimeError("this AsyncClient is used in another event loop that still runs; make one for each")
            self._loop, self._channel, self._closed = loop, None, False
        if self._closed:
            raise closed_error()
        if self._channel is None:
            self._channel = open_channel(self.address, self._credentials)
        return EncoderServiceStub(self._channel)

    async def _reply(self, under_way: Any) -> Any:
        try:
            return await under_way
        except (grpc.aio.UsageError, asyncio.CancelledError) as error:
            # The running task may have been cancelled, instead of the call that it waits for.
            task = asyncio.current_task()
            if self._closed and not (task is not None and task.cancelling()):
                raise closed_error() from error
            raise

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _AsyncRequest(StreamedRequest):
    def __init__(self, number: int, request: pb.EncodeRequest, timeout: float | None) -> None:
        super().__init__(number, request, timeout)
        self._outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def settle(self, outcome: Outcome) -> None:
        # If a waiting task is cancelled, the future that it waits for is cancelled, too.
        if not self._outcome.done():
            self._outcome.set_result(outcome)

    def __await__(self) -> Generator[Any, None, pb.EncodeResponse]:
        return self._result().__await__()

    async def _result(self) -> pb.EncodeResponse:
        try:
            async with asyncio.timeout(self._left()):
                outcome = await self._outcome
        except TimeoutError:
            outcome = self._late()
        return self._response(outcome)


class AsyncStream(RequestStream):
    """A stream in which gRPC sends the requests and a separate task receives the responses in the background."""

    _streamed = _AsyncRequest

    def __init__(self, stub: EncoderServiceStub, metadata: Metadata) -> None:
        unsent: asyncio.Queue[_AsyncRequest | None] = asyncio.Queue()
        super().__init__(unsent)
        self._call = stub.EncodeStream(_messages(unsent), metadata=metadata)
        self._reader = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        end: Exception | None = None
        try:
            async for response in self._call:
                self._answer(response)
        except Exception as error:
            # Whatever went wrong, all waiting callers must get the error.
            end = error
            self._call.cancel()
        except asyncio.CancelledError:
            # The channel was closed, or no one is waiting any more.
            end = closed_error()
        self._end(end)


async def _messages(unsent: "asyncio.Queue[_AsyncRequest | None]") -> AsyncIterator[pb.EncodeStreamRequest]:
    while (request := await unsent.get()) is not None:
        yield request.message()
