"""Which of the two gRPC transports a server takes calls with, and why."""

import logging

from birnn_native.front import load_front
from birnn_native.library import NativeUnavailableError
from birnn_service.endpoint import Endpoint
from birnn_service.errors import StartupError
from birnn_service.settings import Settings
from birnn_service.transports.certificate import Certificate
from birnn_service.transports.grpc_server import GrpcServer, Services
from birnn_service.transports.native_server import NativeServer

logger = logging.getLogger(__name__)


class GrpcTransport:
    """Takes calls with grpcio's server or with the native front end, as the settings say."""

    def __init__(self, endpoint: Endpoint, services: Services, settings: Settings, *, share_port: bool = False) -> None:
        """Prepare to take calls to `services`; see the servers.

        Raises:
            StartupError: The settings ask for the native front end, and it was not built.
        """
        native, reason = takes_native(settings)
        logger.info("gRPC calls are taken by %s: %s", "the native front end" if native else "grpcio", reason)
        kind = NativeServer if native else GrpcServer
        self._server: GrpcServer | NativeServer = kind(
            endpoint, services, settings.grpc_address, settings, share_port=share_port
        )

    async def listen(self, certificate: Certificate | None) -> int:
        """Begin to take calls.

        Returns:
            The port.

        Raises:
            StartupError: It is taken, the address is not this machine's, or the certificate cannot be used.
        """
        if isinstance(self._server, NativeServer):
            return await self._server.listen()
        return await self._server.listen(None if certificate is None else certificate.for_grpc())

    def refused_connections(self) -> int:
        """How many connections were closed at once, because there were too many; grpcio has no such limit."""
        return self._server.refused_connections if isinstance(self._server, NativeServer) else 0

    async def leave(self) -> None:
        """Tell clients to turn elsewhere. Only the native front end can: grpcio's server has no way to but `close`."""
        if isinstance(self._server, NativeServer):
            await self._server.leave()

    async def close(self) -> None:
        """Close the port and all connections; see the servers."""
        await self._server.close()


def takes_native(settings: Settings) -> tuple[bool, str]:
    """Whether the native front end takes the calls, and why.

    Raises:
        StartupError: The settings ask for it, and it was not built.
    """
    if settings.transport == "grpcio":
        return False, "--transport grpcio"
    try:
        load_front()
    except NativeUnavailableError as error:
        if settings.transport == "native":
            raise StartupError(f"--transport native cannot be had: {error}") from error
        return False, str(error)
    if settings.tls_cert is not None:
        return False, "the native front end has no TLS, and --tls-cert asks for it"
    return True, f"--transport {settings.transport}"
