"""Where a transport listens."""

import ipaddress
import os
import socket
from dataclasses import dataclass

from birnn_service.errors import StartupError

# Connections that may wait to be accepted. The HTTP server accepts all that wait at once, at some 0.1 ms each.
BACKLOG = 2048


@dataclass(frozen=True, slots=True)
class SocketAddress:
    """Where a transport listens.

    Attributes:
        host: An address of this machine, or a name of one.
        port: 0 for a free one.
        transport: `gRPC`, `HTTP` or `metrics`; the setting of its port is called after it.
    """

    host: str
    port: int
    transport: str

    def __str__(self) -> str:
        return f"{in_address(self.host)}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def refused(self, reason: str) -> StartupError:
        """What to raise where it cannot be had."""
        flag = f"--{self.transport.lower()}-port"
        return StartupError(
            f"cannot listen on {self} for {self.transport}: {reason}; choose another with {flag} or --host"
        )

    def resolve(self) -> tuple[int, object]:
        """Family of the address, and the address as sockets take it; raises OSError."""
        family, _, _, _, address = socket.getaddrinfo(
            self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return family, address

    def check(self) -> None:
        """Fail before encoders are loaded where the port, which opens only after that, cannot be had.

        Raises:
            StartupError: It is taken, not allowed, or the host is not this machine's.
        """
        try:
            with bind(*self.resolve(), share=False):
                pass
        except OSError as error:
            raise self.refused(str(error.strerror)) from error

    def listen(self, *, share: bool = False) -> socket.socket:
        """A socket that listens.

        Args:
            share: Let other processes of this user listen on it, too.

        Raises:
            StartupError: The port is taken, not allowed, or the host is not this machine's.
        """
        try:
            listener = bind(*self.resolve(), share=share)
            listener.listen(BACKLOG)
        except OSError as error:
            raise self.refused(str(error.strerror)) from error
        return listener


def in_address(host: str) -> str:
    """A host as it stands before a port: addresses of IPv6 in brackets, or the port would be a part of them."""
    return f"[{host}]" if ":" in host else host


def bind(family: int, address: object, *, share: bool) -> socket.socket:
    """A bound socket; raises OSError. With `share` other processes of this user can bind one there, too."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            # Connections of a server that has just ended linger, and are no reason not to start.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)  # type: ignore[arg-type]
    except OSError:
        sock.close()
        raise
    return sock
