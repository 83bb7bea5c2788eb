"""Sends calls to a server and repeats them if that may help. The two clients differ only in how they wait."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

import grpc

from birnn.errors import EncodeError, call_error, is_lost
from birnn.metadata import Metadata
from birnn.request_stream import RequestStream, StreamedRequest
from birnn.retries import Outage, Retries
from birnn.v1 import encoder_pb2 as pb


class UnderWay(Protocol):
    """A call, or a request on a stream, that is in flight."""

    def cancel(self) -> Any:
        """Cancel it."""


class Connection(ABC):
    """A connection to one address. It is opened on first use.

    Methods that wait are coroutines. The coroutines of a blocking connection finish without ever being suspended. See
    `now`.

    Args:
        address: HOST:PORT, or any gRPC target.
        credentials: gRPC credentials. None for an unencrypted connection.
        metadata: Metadata to send with every call.
        retry_for: Seconds for which a call is repeated while the server is unavailable.

    Attributes:
        address: The address.
        streams: Whether the server has EncodeStream. True until the server says otherwise.
    """

    def __init__(
        self, address: str, credentials: grpc.ChannelCredentials | None, metadata: Metadata, retry_for: float
    ) -> None:
        self.address = address
        self._credentials = credentials
        self._metadata = metadata
        self._outage = Outage(address, retry_for)
        self.streams = True

    @abstractmethod
    async def close(self) -> None:
        """Close the connection and cancel the calls in flight."""

    @abstractmethod
    def encode(self, request: pb.EncodeRequest, timeout: float | None) -> UnderWay:
        """Start an Encode call."""

    @abstractmethod
    def list_encoders(self, timeout: float | None) -> UnderWay:
        """Start a ListEncoders call."""

    @abstractmethod
    def stream(self) -> RequestStream:
        """Start an EncodeStream call."""

    @abstractmethod
    async def _reply(self, under_way: Any) -> Any:
        """Wait for the reply to a call or request.

        Raises:
            grpc.RpcError: The call or request failed.
            EncodeError: The connection was closed.
        """

    @abstractmethod
    async def _sleep(self, seconds: float) -> None:
        """Wait.

        Raises:
            EncodeError: The connection was closed.
        """

    async def answer(
        self, under_way: UnderWay, send: Callable[..., UnderWay], deadline: float | None, timeout: float | None
    ) -> Any:
        """Return the reply to a call or request. Repeats it if that may help.

        Args:
            under_way: The call or request in flight.
            send: Sends it again. With `alone=True`, it is sent as a separate call and not over a stream.
            deadline: Deadline for the reply, by time.monotonic(). None for no limit.
            timeout: The caller's timeout in seconds, for error messages.

        Raises:
            EncodeError: The call failed, and so did its retries.
        """
        retries = Retries(self._outage, deadline)
        try:
            while True:
                try:
                    reply = await self._reply(under_way)
                except grpc.RpcError as error:
                    if self._hides_behind_stream(under_way, error):
                        under_way = send(alone=True)
                        continue
                    pause = retries.pause(error)
                    if pause is None:
                        raise call_error(error, self.address, timeout) from error
                    await self._sleep(pause)
                    under_way = send()
                else:
                    self._outage.over()
                    return reply
        finally:
            under_way.cancel()

    def _hides_behind_stream(self, under_way: UnderWay, error: grpc.RpcError) -> bool:
        """Return whether the request must be sent as a separate call to learn its outcome.

        That is so if the server has no EncodeStream, which the client then does not try again, or if gRPC lost the
        reason why a stream ended.
        """
        if not isinstance(under_way, StreamedRequest):
            return False
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            self.streams = False
        return not self.streams or is_lost(error)


def closed_error() -> EncodeError:
    """Return the error for calls that are in flight when a client is closed, or that are made later."""
    return EncodeError("the client was closed", grpc.StatusCode.CANCELLED)
