"""The options that select a server and how to call it. All commands that call a server share them."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import grpc

from birnn.channel import DEFAULT_ADDRESS, checked_address
from birnn.metadata import Metadata, call_metadata
from birnn.tls import Tls


@dataclass(frozen=True, slots=True)
class Server:
    """A server and how to call it. See `birnn.Client`."""

    address: str
    tls: Tls | None
    given_metadata: dict[str, str]
    token: str | None

    @property
    def client_options(self) -> dict[str, Any]:
        """Options for a client, without the address."""
        return {"tls": self.tls, "metadata": self.given_metadata, "token": self.token}

    @property
    def credentials(self) -> grpc.ChannelCredentials | None:
        """Credentials for a channel. None for an unencrypted connection."""
        return None if self.tls is None else self.tls.credentials()

    @property
    def metadata(self) -> Metadata:
        """Metadata for a call, including the token."""
        return call_metadata(self.given_metadata, self.token)

    def check(self) -> None:
        """Check all options.

        Raises:
            ValueError: The address is invalid, the TLS files cannot be used, or the metadata cannot be sent.
        """
        _ = checked_address(self.address), self.credentials, self.metadata


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --address and the options for TLS, metadata and tokens. The command receives them as `server`."""

    @click.option(
        "--address",
        envvar="BIRNN_ADDRESS",
        default=DEFAULT_ADDRESS,
        show_default=True,
        show_envvar=True,
        help="The server, as HOST:PORT.",
    )
    @click.option("--tls", is_flag=True, help="Use TLS, with the certificate authorities of this system.")
    @click.option("--tls-ca", type=_file(), help="Use TLS, with the authorities in this PEM file.")
    @click.option("--tls-cert", type=_file(), help="PEM file of the client certificate; needs --tls-key.")
    @click.option("--tls-key", type=_file(), help="PEM file of the key of --tls-cert.")
    @click.option(
        "--metadata",
        multiple=True,
        metavar="KEY=VALUE",
        callback=_pairs,
        help="Metadata to send with every call; repeatable.",
    )
    @click.option(
        "--token",
        envvar="BIRNN_TOKEN",
        show_envvar=True,
        help="Bearer token to send with every call. Other users can see options; use the variable to hide it.",
    )
    @functools.wraps(command)
    def calling(
        *arguments: Any,
        address: str,
        tls: bool,
        tls_ca: Path | None,
        tls_cert: Path | None,
        tls_key: Path | None,
        metadata: dict[str, str],
        token: str | None,
        **options: Any,
    ) -> Any:
        secure = tls or tls_ca or tls_cert or tls_key
        server = Server(address, Tls(tls_ca, tls_cert, tls_key) if secure else None, metadata, token or None)
        try:
            server.check()
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        return command(*arguments, server=server, **options)

    return calling


def _file() -> click.Path:
    return click.Path(exists=True, dir_okay=False, path_type=Path)


def _pairs(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    if wrong := [text for text in given if "=" not in text]:
        raise click.BadParameter(f"write KEY=VALUE, not {wrong[0]!r}")
    return dict(text.split("=", 1) for text in given)
