"""Replies that are being sent: callers who do not take theirs lose their connection.

HTTP/2 lets a reader stop its sender for as long as it likes, and the reply takes memory until then. gRPC for asyncio
cannot cancel a call whose reply is on its way. So its connection is ended instead, and with it the caller's other calls
on it.
"""

import asyncio
import logging
import os
import socket
from contextlib import suppress
from pathlib import Path

import grpc

from birnn_service.transports.caller import address_of, read_address

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
DESCRIPTORS = Path("/proc/self/fd")


class Departures:
    """Knows since when each reply has been on its way, and ends the connections of those that take too long."""

    def __init__(self, seconds: float) -> None:
        """Watch; a reply may take `seconds`."""
        self._seconds = seconds
        # When each call's reply was ready, the earliest first, and whose it is: a call that has ended has no peer any
        # more, and gRPC crashes where it is asked for one.
        self._since: dict[grpc.aio.ServicerContext, tuple[float, str]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, context: grpc.aio.ServicerContext, peer: str) -> None:
        """The reply of a call is ready, and gRPC begins to send it."""
        loop = asyncio.get_running_loop()
        self._since[context] = loop.time(), peer
        if self._timer is None:
            self._timer = loop.call_later(min(LOOK_SECONDS, self._seconds), self._look)

    def end(self, context: grpc.aio.ServicerContext) -> None:
        """The call has ended, whether it had a reply or not."""
        self._since.pop(context, None)

    def _look(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        for context, (since, peer) in list(self._since.items()):
            if loop.time() - since < self._seconds:
                break
            del self._since[context]
            outcome = "its connection was ended" if end_connection(peer) else "its connection was not found"
            logger.warning(
                "%s has not taken a reply within %g s (--max-reply-seconds): %s",
                peer,
                self._seconds,
                outcome,
            )
        if self._since:
            self._timer = loop.call_later(min(LOOK_SECONDS, self._seconds), self._look)


def end_connection(peer: str) -> bool:
    """End the TCP connection of this process to a peer, as gRPC names it.

    Returns:
        Whether there was one; never without /proc, that is, elsewhere than on Linux.
    """
    wanted = address_of(peer)
    if not DESCRIPTORS.is_dir() or wanted is None:
        return False
    for name in os.listdir(DESCRIPTORS):
        # Descriptors may be closed meanwhile, and most are no connected sockets.
        with suppress(OSError), _socket_of(int(name)) as connection:
            if connection.family in (socket.AF_INET, socket.AF_INET6):
                host, port, *_ = connection.getpeername()
                if (read_address(host), port) == wanted:
                    connection.shutdown(socket.SHUT_RDWR)
                    return True
    return False


def _socket_of(descriptor: int) -> socket.socket:
    """A socket of its own for the connection behind a descriptor."""
    copy = os.dup(descriptor)
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise
