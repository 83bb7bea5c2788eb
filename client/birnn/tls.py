"""The TLS settings of a client."""

import ssl
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import grpc


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS settings. The files are in PEM format and are read when a client is created.

    Attributes:
        ca: File with the certificate authorities to trust. By default, the authorities that this system trusts.
        cert: File with the client's certificate, if the server asks for one.
        key: File with the private key of `cert`, without a password.
    """

    ca: str | PathLike[str] | None = None
    cert: str | PathLike[str] | None = None
    key: str | PathLike[str] | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Return the settings as gRPC credentials.

        Raises:
            ValueError: The files cannot be read, or they do not match.
        """
        # For a file without certificates, gRPC would only report that it cannot connect.
        context = self.context()
        try:
            ca, cert, key = (
                None if path is None else Path(path).read_bytes() for path in (self.ca, self.cert, self.key)
            )
        except OSError as error:
            raise self._unusable(error) from error
        if ca is None:
            # The authorities that come with gRPC do not include those of a company.
            trusted = context.get_ca_certs(binary_form=True)
            ca = "".join(map(ssl.DER_cert_to_PEM_cert, trusted)).encode() or None
        return grpc.ssl_channel_credentials(ca, key, cert)

    def context(self) -> ssl.SSLContext:
        """Return the settings as an `ssl.SSLContext`, for connections made without gRPC.

        Raises:
            ValueError: The files cannot be read, or they do not match.
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
