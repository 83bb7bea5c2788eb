"""The connection of `Client`. gRPC's threads wait for the server, and the caller's thread waits for them."""

import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

import grpc

from birnn.channel import channel_options
from birnn.connection import Connection, closed_error
from birnn.metadata import Metadata
from birnn.request_stream import Outcome, RequestStream, StreamedRequest
from birnn.v1 import encoder_pb2 as pb
from birnn.v1.encoder_pb2_grpc import EncoderServiceStub

T = TypeVar("T")

# Python runs signal handlers between two steps of the main thread. A signal just before an endless wait would be
# handled only after the wait, so no wait is longer than this many seconds.
SIGNAL_SECONDS = 0.2


def now(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that blocks instead of suspending, and return its result. It needs no event loop."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("a coroutine of a blocking connection was suspended")


class BlockingConnection(Connection):
    """A connection that blocks its caller. It connects once, and any thread can use it."""

    def __init__(
        self, address: str, credentials: grpc.ChannelCredentials | None, metadata: Metadata, retry_for: float
    ) -> None:
        super().__init__(address, credentials, metadata, retry_for)
        options = channel_options(address)
        if credentials is None:
            self._channel = grpc.insecure_channel(address, options)
        else:
            self._channel = grpc.secure_channel(address, credentials, options)
        self._open_stub = EncoderServiceStub(self._channel)
        self._closed = threading.Event()

    async def close(self) -> None:
        self._closed.set()
        self._channel.close()

    def encode(self, request: pb.EncodeRequest, timeout: float | None) -> grpc.Future:
        return self._stub().Encode.future(request, timeout=timeout, metadata=self._metadata)

    def list_encoders(self, timeout: float | None) -> grpc.Future:
        return self._stub().ListEncoders.future(pb.ListEncodersRequest(), timeout=timeout, metadata=self._metadata)

    def stream(self) -> RequestStream:
        return _BlockingStream(self._stub(), self._metadata)

    def _stub(self) -> EncoderServiceStub:
        if self._closed.is_set():
            raise closed_error()
        return self._open_stub

    async def _reply(self, under_way: Any) -> Any:
        try:
            return under_way.result()
        except (grpc.RpcError, grpc.FutureCancelledError) as error:
            if self._closed.is_set() or isinstance(error, grpc.FutureCancelledError):
                raise closed_error() from error
            raise

    async def _sleep(self, seconds: float) -> None:
        if self._closed.wait(seconds):
            raise closed_error()


class _BlockingRequest(StreamedRequest):
    def __init__(self, number: int, request: pb.EncodeRequest, timeout: float | None) -> None:
        super().__init__(number, request, timeout)
        self._outcome: Future[Outcome] = Future()

    def settle(self, outcome: Outcome) -> None:
        self._outcome.set_result(outcome)

    def result(self) -> pb.EncodeResponse:
        while not self._outcome.done():
            left = self._left()
            if left is not None and left <= 0:
                return self._response(self._late())
            with suppress(TimeoutError):
                self._outcome.result(SIGNAL_SECONDS if left is None else min(left, SIGNAL_SECONDS))
        return self._response(self._outcome.result())


class _BlockingStream(RequestStream):
    """A stream in which gRPC sends the requests and a separate thread receives the responses in the background."""

    _streamed = _BlockingRequest

    def __init__(self, stub: EncoderServiceStub, metadata: Metadata) -> None:
        unsent: SimpleQueue[_BlockingRequest | None] = SimpleQueue()
        super().__init__(unsent)
        messages = (request.message() for request in iter(unsent.get, None))
        self._call = stub.EncodeStream(messages, metadata=metadata)
        threading.Thread(target=self._read, name="birnn stream", daemon=True).start()

    def _read(self) -> None:
        end: Exception | None = None
        try:
            for response in self._call:
                self._answer(response)
        except Exception as error:
            # Whatever went wrong, all waiting callers must get the error.
            end = error
            self._call.cancel()
        self._end(end)
