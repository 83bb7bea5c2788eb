"""One end of the socket between a front-end and the engine process."""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import cast

from birnn_service.frontends.messages import Decoder, Message, pack

logger = logging.getLogger(__name__)


class Link(asyncio.Protocol):
    """Sends and receives messages, many of them with one system call."""

    def __init__(self, received: Callable[[Message], None], lost: Callable[[], None]) -> None:
        """Call `received` with every message, and `lost` once the other side is gone or this one closed."""
        self._received = received
        self._lost = lost
        self._decoder = Decoder()
        self._transport: asyncio.Transport | None = None
        self._outgoing: list[bytes] = []

    @classmethod
    async def open(cls, sock: socket.socket, received: Callable[[Message], None], lost: Callable[[], None]) -> "Link":
        """Take over a connected socket."""
        loop = asyncio.get_running_loop()
        _, link = await loop.create_unix_connection(lambda: cls(received, lost), sock=sock)
        return link

    def send(self, message: Message) -> None:
        """Send a message, together with all others of this turn of the event loop; without effect once closed."""
        if self._transport is None:
            return
        if not self._outgoing:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outgoing.append(pack(message))

    def close(self) -> None:
        """Send what is left, and close."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is ours."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        try:
            for message in self._decoder.feed(data):
                self._received(message)
        except ValueError as error:
            logger.error("closing the link between a front-end and the engine process: %s", error)
            if self._transport is not None:
                self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """The other side is gone, or this one has closed."""
        self._transport = None
        self._outgoing.clear()
        self._lost()

    def _flush(self) -> None:
        if self._outgoing and self._transport is not None:
            self._transport.write(b"".join(self._outgoing))
        self._outgoing.clear()
