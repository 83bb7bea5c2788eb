"""The server's certificate, read again when its files change."""

import logging
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import grpc
from cryptography import x509

from birnn_service.errors import StartupError
from birnn_service.settings import Settings

logger = logging.getLogger(__name__)

# Seconds after which files that could not be used are tried again.
RETRY_SECONDS = 1.0

Files = list[bytes]
"""Of the certificate, of its key, and of the authority of callers, where there is one."""


class Certificate:
    """A certificate with its key, and the authority that signs those of callers, where callers must have one.

    Every new connection compares the files with what was read before. That takes a fraction of a handshake's time, and
    no change is missed, however files are replaced. Files that do not go together, such as half of a change, are
    refused, and what was there before goes on. Old connections keep the certificate that they have seen.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None = None) -> None:
        """Read the files.

        Raises:
            StartupError: They cannot be read, or do not go together.
        """
        self._paths = [certificate, key, *([client_ca] if client_ca is not None else [])]
        # Handshakes of gRPC are on threads of its own.
        self._lock = threading.Lock()
        self._refused = ""
        # When files that were tried last are tried again, on `time.monotonic`.
        self._until = 0.0
        try:
            self._used = self._tried = self._read()
            self._use(self._used)
        except (OSError, ValueError) as error:
            raise StartupError(
                f"cannot use the certificate {certificate} with the key {key}: {error}; see --tls-cert, --tls-key and "
                "--tls-client-ca"
            ) from error

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """The one that the settings name; None where they name none.

        Raises:
            StartupError: It cannot be used.
        """
        if settings.tls_cert is None or settings.tls_key is None:
            return None
        return cls(settings.tls_cert, settings.tls_key, settings.tls_client_ca)

    @property
    def current(self) -> ssl.SSLContext:
        """How to shake hands now."""
        with self._lock:
            self._look()
            return self._context

    @property
    def current_for_anyone(self) -> ssl.SSLContext:
        """The same with callers that need no certificate."""
        with self._lock:
            self._look()
            return self._open_context

    @property
    def not_after(self) -> float:
        """When the certificate in use ends, in seconds since the epoch."""
        with self._lock:
            self._look()
            return self._not_after

    def for_http(self) -> ssl.SSLContext:
        """For an HTTP server: every handshake is that of `current`."""
        return _Current.of(lambda: self.current)

    def for_metrics(self) -> ssl.SSLContext:
        """For the HTTP server of probes and metrics, which asks for no client certificates."""
        return _Current.of(lambda: self.current_for_anyone)

    def for_grpc(self) -> grpc.ServerCredentials:
        """For a gRPC server, which asks for changes before every handshake."""
        given = self._grpc

        def changed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal given
            with self._lock:
                self._look()
                if self._grpc is given:
                    return None
                given = self._grpc
                return given

        return grpc.dynamic_ssl_server_credentials(given, changed, require_client_authentication=len(self._paths) > 2)

    def _look(self) -> None:
        """Use what the files hold now, if that is new and good."""
        try:
            files = self._read()
            if files == self._tried and time.monotonic() < self._until:
                return
            # Whatever comes of it: if only this moment is bad, they are tried again.
            self._tried, self._until = files, time.monotonic() + RETRY_SECONDS
            if files != self._used:
                self._use(files)
                self._used = files
                logger.info("new connections get the new certificate in %s", self._names)
            self._refused = ""
        except (OSError, ValueError) as error:
            if str(error) != self._refused:
                self._refused = str(error)
                logger.error("the certificate goes on as it was; what is in %s cannot be used: %s", self._names, error)

    def _use(self, files: Files) -> None:
        """Make of the files what servers need; raises OSError or ValueError, and changes nothing."""
        context, open_context = self._context_of_pair(), self._context_of_pair()
        certificate, key, *authorities = files
        for authority in authorities:
            context.load_verify_locations(cadata=authority.decode("ascii"))
            context.verify_mode = ssl.CERT_REQUIRED
        if self._read() != files:
            raise ValueError("the files change while they are read")
        not_after = x509.load_pem_x509_certificates(certificate)[0].not_valid_after_utc.timestamp()
        self._context, self._open_context, self._not_after = context, open_context, not_after
        self._grpc = grpc.ssl_server_certificate_configuration([(key, certificate)], *authorities)

    def _context_of_pair(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        # Without a password OpenSSL would ask the terminal for that of a key that has one.
        context.load_cert_chain(self._paths[0], self._paths[1], password="")
        return context

    def _read(self) -> Files:
        return [path.read_bytes() for path in self._paths]

    @property
    def _names(self) -> str:
        return ", ".join(map(str, self._paths))


class _Current(ssl.SSLContext):
    """Leaves every handshake to the certificate of that moment."""

    current: Callable[[], ssl.SSLContext]

    @classmethod
    def of(cls, current: Callable[[], ssl.SSLContext]) -> Self:
        """A context whose handshakes are those of the one that `current` gives at that moment."""
        context = cls(ssl.PROTOCOL_TLS_SERVER)
        context.current = current
        return context

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        return self.current().wrap_bio(*arguments, **options)
