"""A port that the front-ends of one server share, and nobody else."""

import socket
from types import TracebackType
from typing import NamedTuple

from birnn_service.transports.socket_address import SocketAddress, bind


class Ports(NamedTuple):
    """Where a server takes calls; no HTTP port where it does not over HTTP."""

    grpc: int
    http: int | None


class SharedPort:
    """A port that processes of this user may listen on with SO_REUSEPORT, once nobody else does.

    With that option alone two servers of one user would share a port and each get half of the calls. So a server first
    takes a lock that goes by the port's number (an abstract Unix socket: it belongs to the port's network namespace,
    and ends with the process), and then looks whether anybody listens there.
    """

    def __init__(self, address: SocketAddress) -> None:
        """Take a port, or a free one where the address has 0.

        Raises:
            StartupError: Somebody else listens there, or the host is not this machine's.
        """
        self._lock = socket.socket(socket.AF_UNIX)
        try:
            family, place = address.resolve()
            # Bound and never listening, it gets no calls, and keeps the port from servers that do not share.
            self._held = bind(family, place, share=True)
            self.number: int = self._held.getsockname()[1]
            self._lock.bind(f"\0birnn-serving/{address.transport}/{self.number}")
            with bind(family, self._held.getsockname(), share=False) as probe:
                probe.listen()
        except OSError as error:
            self.close()
            raise address.refused(str(error.strerror)) from error

    def close(self) -> None:
        """Give the port back."""
        self._lock.close()
        if hasattr(self, "_held"):
            self._held.close()

    def __enter__(self) -> "SharedPort":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
