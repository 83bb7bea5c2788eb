"""How a client reaches its server, and calls it again where that may help; only waiting differs between the clients."""

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
    """A call, or a request of a stream, that has been sent."""

    def cancel(self) -> Any:
        """Give it up."""


class Connection(ABC):
    """A connection to one address, made when it is first needed.

    What waits is a coroutine. Those of a connection that blocks end without ever being suspended; see `now`.

    Args:
        address: HOST:PORT, or any gRPC target.
        credentials: Of gRPC; None for a connection in the clear.
        metadata: Sent with every call.
        retry_for: Seconds for which a call is repeated while the server is unavailable.

    Attributes:
        address: As above.
        streams: Whether the server has EncodeStream, as far as is known.
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
        """End the connection; calls under way are cancelled."""

    @abstractmethod
    def encode(self, request: pb.EncodeRequest, timeout: float | None) -> UnderWay:
        """Begin a call of Encode."""

    @abstractmethod
    def list_encoders(self, timeout: float | None) -> UnderWay:
        """Begin a call of ListEncoders."""

    @abstractmethod
    def stream(self) -> RequestStream:
        """Begin a call of EncodeStream."""

    @abstractmethod
    async def _reply(self, under_way: Any) -> Any:
        """Wait for the reply to a call or request.

        Raises:
            grpc.RpcError: It failed.
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
        """The reply to a call or request, which is sent again where that may help.

        Args:
            under_way: What was sent.
            send: Sends it again; with `alone=True` not over a stream.
            deadline: When the reply must have come, by time.monotonic(); None for no limit.
            timeout: The seconds that the caller allowed, for messages.

        Raises:
            EncodeError: It failed for good.
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
        """Whether only a call of its own tells what the server makes of a request.

        Either the server has no EncodeStream, and is not asked for it again, or gRPC lost why a stream ended.
        """
        if not isinstance(under_way, StreamedRequest):
            return False
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            self.streams = False
        return not self.streams or is_lost(error)


def closed_error() -> EncodeError:
    """For what was under way, or comes, after a client was closed."""
    return EncodeError("the client was closed", grpc.StatusCode.CANCELLED)
