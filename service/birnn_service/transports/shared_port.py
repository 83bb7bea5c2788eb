"""A port that the front-ends of one server share with each other and with no other process."""

import socket
from types import TracebackType
from typing import NamedTuple

from birnn_service.transports.socket_address import SocketAddress, bind


class Ports(NamedTuple):
    """The ports on which a server takes calls; `http` is None if it serves no HTTP."""

    grpc: int
    http: int | None


class SharedPort:
    """A port on which several processes of one server listen, with SO_REUSEPORT.

    With that option alone, two servers of the same user could open the same port, and each would get half of the calls.
    So a server first takes a lock named after the port, and then checks that no process listens there. The lock is an
    abstract Unix socket: it belongs to the same network namespace as the port, and is released when the process ends.
    """

    def __init__(self, address: SocketAddress) -> None:
        """Take the port of an address, or a free one if its port is 0.

        Raises:
            StartupError: Another process listens there, or the host is not an address of this machine.
        """
        self._lock = socket.socket(socket.AF_UNIX)
        try:
            family, place = address.resolve()
            # A socket that is bound and does not listen gets no calls, but keeps the port from other servers.
            self._held = bind(family, place, share=True)
            self.number: int = self._held.getsockname()[1]
            self._lock.bind(f"\0birnn-serving/{address.transport}/{self.number}")
            with bind(family, self._held.getsockname(), share=False) as probe:
                probe.listen()
        except OSError as error:
            self.close()
            raise address.refused(str(error.strerror)) from error

    def close(self) -> None:
        """Release the port."""
        self._lock.close()
        if hasattr(self, "_held"):
            self._held.close()

    def __enter__(self) -> "SharedPort":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
