"""A connection that has not shaken hands yet: until it has, it is a connection like others, with the same bounds.

Servers of asyncio and uvloop tell their protocols of a connection only once it has shaken hands. So callers who never
do would not count, and could take all of a server's file descriptors. Hence connections are accepted in the clear and
counted, and their sockets are opened once more to shake hands.
"""

import asyncio
import math
import socket
import ssl
from collections.abc import Callable
from typing import Any, cast

from birnn_service.transports.caller import caller_of
from birnn_service.transports.http_connections import Connections


class Accepted(asyncio.Protocol):
    """A connection in the clear, which hands its socket over at once."""

    def __init__(self, connections: Connections, tls: ssl.SSLContext, make: Callable[[], asyncio.Protocol]) -> None:
        """Shake hands by `tls`, and go on with what `make` makes."""
        self._connections = connections
        self._tls = tls
        self._make = make

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        plain = cast(asyncio.Transport, transport)
        try:
            copy = plain.get_extra_info("socket").dup()
        except OSError:  # there is no descriptor left
            return
        finally:
            # Before anything is read. The connection stays: it has another descriptor.
            plain.abort()
        Handshake(self._connections, self._make, caller_of(peer_of(plain))).begin(copy, self._tls)


class Handshake(asyncio.Protocol):
    """The beginning of a connection, up to the end of its TLS handshake."""

    def __init__(self, connections: Connections, make: Callable[[], asyncio.Protocol], caller: str) -> None:
        self._all = connections
        self._make = make
        self.caller = caller
        self.until = math.inf
        self._task: asyncio.Task[Any] | None = None

    def begin(self, accepted: socket.socket, tls: ssl.SSLContext) -> None:
        """Shake hands on a socket, if there is room for another connection."""
        loop, seconds = asyncio.get_running_loop(), self._all.limits.head_seconds
        if not self._all.admit(self):
            self._all.forget(self)
            accepted.close()
            return
        self.until = loop.time() + seconds

        async def shake() -> None:
            # What bounds it is `until`: it may end sooner, to make room for others.
            await loop.connect_accepted_socket(lambda: self, accepted, ssl=tls, ssl_handshake_timeout=2 * seconds)

        def ended(task: "asyncio.Task[None]") -> None:
            if task.cancelled() or task.exception() is not None:
                # It failed, or was cut short, perhaps before it began. What strangers send is no concern of ours.
                self._all.forget(self)
                accepted.close()

        self._task = loop.create_task(shake())
        self._task.add_done_callback(ended)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hands have been shaken."""
        self._all.forget(self)
        connection = self._make()
        cast(asyncio.Transport, transport).set_protocol(connection)
        connection.connection_made(transport)

    def abort(self) -> None:
        """End it at once."""
        if self._task is not None:
            self._task.cancel()

    def expire(self) -> None:
        """It has taken too long."""
        self.until = math.inf
        self.abort()


def peer_of(transport: asyncio.BaseTransport) -> str:
    """The other side of a connection, as gRPC names it."""
    name: Any = transport.get_extra_info("peername")
    host, port = name[:2] if isinstance(name, tuple) else ("", 0)
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}" if host else "unix:"
