"""TLS as a client asks for it."""

import ssl
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import grpc


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS, by files in PEM, which are read when a client is made.

    Attributes:
        ca: The authorities that may have signed the server's certificate; by default those that this system trusts.
        cert: The client's own certificate, where the server asks for one.
        key: Its key, without a password.
    """

    ca: str | PathLike[str] | None = None
    cert: str | PathLike[str] | None = None
    key: str | PathLike[str] | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """The same for gRPC.

        Raises:
            ValueError: The files cannot be read, or do not go together.
        """
        # Of files that hold no certificates gRPC would only say that it does not get through.
        context = self.context()
        try:
            ca, cert, key = (
                None if path is None else Path(path).read_bytes() for path in (self.ca, self.cert, self.key)
            )
        except OSError as error:
            raise self._unusable(error) from error
        if ca is None:
            # Those that come with gRPC do not know the authorities of a company.
            trusted = context.get_ca_certs(binary_form=True)
            ca = "".join(map(ssl.DER_cert_to_PEM_cert, trusted)).encode() or None
        return grpc.ssl_channel_credentials(ca, key, cert)

    def context(self) -> ssl.SSLContext:
        """The same for Python's own connections.

        Raises:
            ValueError: The files cannot be read, or do not go together.
        """
        if (self.cert is None) != (self.key is None):
            raise ValueError("a certificate of the client goes together with its key")
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.cert is not None:
                context.load_cert_chain(self.cert, self.key, password="")
        except OSError as error:
            raise self._unusable(error) from error
        return context

    def _unusable(self, error: OSError) -> ValueError:
        names = ", ".join(str(path) for path in (self.ca, self.cert, self.key) if path is not None)
        return ValueError(f"cannot use {names or 'the authorities of this system'} for TLS: {error}")
