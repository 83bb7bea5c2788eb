"""Certificates for tests, by the `openssl` command."""

import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def openssl(*arguments: str | Path) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class Pair:
    """Files of a certificate and its key."""

    cert: Path
    key: Path


class Authority:
    """Signs certificates."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._own = Pair(folder / f"{name}.pem", folder / f"{name}.key")
        openssl("req", "-x509", *CURVE, "-keyout", self._own.key, "-out", self._own.cert, "-subj", f"/CN={name}")
        self.cert = self._own.cert

    def issue(self, name: str, subject: str | None = None, names: str = "DNS:localhost,IP:127.0.0.1") -> Pair:
        """A certificate, in files of that name; its common name, too, unless `subject` says other.

        Its alternative names are this machine's, or others; or there are none.
        """
        pair, request = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key"), self._folder / f"{name}.csr"
        subject = f"/CN={name}" if subject is None else subject
        alternative = ("-addext", f"subjectAltName={names}") if names else ()
        openssl("req", "-utf8", *CURVE, "-keyout", pair.key, "-out", request, "-subj", subject, *alternative)
        signing = ("-CA", self._own.cert, "-CAkey", self._own.key, "-copy_extensions", "copy")
        openssl("x509", "-req", "-in", request, "-out", pair.cert, *signing)
        return pair


class Mount:
    """A folder like those of Kubernetes' secrets: all of its files change at once."""

    def __init__(self, folder: Path, pair: Pair) -> None:
        self._folder = folder
        self._swaps = 0
        folder.mkdir()
        self.swap(pair)
        self.pair = Pair(folder / "tls.crt", folder / "tls.key")
        for path in (self.pair.cert, self.pair.key):
            path.symlink_to(Path("..data") / path.name)

    def swap(self, pair: Pair) -> None:
        """Put another pair in place of what is there."""
        self._swaps += 1
        data = self._folder / f"..{self._swaps}"
        data.mkdir()
        (data / "tls.crt").write_bytes(pair.cert.read_bytes())
        (data / "tls.key").write_bytes(pair.key.read_bytes())
        link = self._folder / "..data_tmp"
        link.symlink_to(data.name)
        os.replace(link, self._folder / "..data")


@contextmanager
def connected(port: int, ca: Path) -> Iterator[ssl.SSLSocket]:
    """A connection with TLS."""
    context = ssl.create_default_context(cafile=ca)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=60) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        yield secure


def shown(port: int, ca: Path) -> bytes:
    """The certificate that a server shows to a new connection."""
    with connected(port, ca) as connection:
        certificate = connection.getpeercert(binary_form=True)
    assert certificate is not None
    return certificate


def held(pair: Pair) -> bytes:
    """The certificate in a file, as `shown` gives it."""
    return ssl.PEM_cert_to_DER_cert(pair.cert.read_text())
