"""The gRPC port that the front-ends of one server share, and nobody else's."""

import socket
from types import TracebackType

from birnn_service.errors import StartupError
from birnn_service.settings import Settings
from birnn_service.transports.grpc_server import cannot_listen


class SharedPort:
    """A port that processes of this user may listen on with SO_REUSEPORT, once nobody else does.

    With that option alone two servers of one user would share a port and each get half of the calls. So a server first
    takes a lock that goes by the port's number (an abstract Unix socket: it belongs to the port's network namespace,
    and ends with the process), and then looks whether anybody listens there.
    """

    def __init__(self, settings: Settings) -> None:
        """Take the port that the settings name, or a free one where that is 0.

        Raises:
            StartupError: Somebody else listens there, or the address is not this machine's.
        """
        self._lock = socket.socket(socket.AF_UNIX)
        try:
            family, _, _, _, address = socket.getaddrinfo(
                settings.host, settings.grpc_port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            # Bound and never listening, it gets no calls, and keeps the port from servers that do not share.
            self._held = _bind(family, address, share=True)
            self.number: int = self._held.getsockname()[1]
            self._lock.bind(f"\0birnn-serving/grpc/{self.number}")
            with _bind(family, self._held.getsockname(), share=False) as probe:
                probe.listen()
        except OSError as error:
            self.close()
            raise StartupError(cannot_listen(settings, str(error.strerror))) from error

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


def _bind(family: int, address: object, *, share: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Connections of a server that has just ended linger, and are no reason not to start.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(share))
        sock.bind(address)  # type: ignore[arg-type]
    except OSError:
        sock.close()
        raise
    return sock
