"""The gRPC metadata that a client sends with every call."""

import re
from collections.abc import Mapping
from typing import TypeAlias

Metadata: TypeAlias = tuple[tuple[str, str], ...]

_KEY = re.compile(r"(?!grpc-)[0-9a-z_.-]+(?<!-bin)")
_VALUE = re.compile(r"[ -~]*")


def call_metadata(metadata: Mapping[str, str] | None, token: str | None) -> Metadata:
    """Return the metadata in gRPC's form, including the bearer token.

    Args:
        metadata: Values by key.
        token: The bearer token. None for none.

    Raises:
        ValueError: gRPC cannot send a key, a value or the token.
    """
    pairs = tuple((key.lower(), value) for key, value in (metadata or {}).items())
    for key, value in pairs:
        if not _KEY.fullmatch(key) or not _VALUE.fullmatch(value):
            raise ValueError(
                f"metadata {key!r} cannot be sent: a key has letters, digits, '_', '-' and '.', does not begin with "
                "'grpc-' or end with '-bin', and its value is printable ASCII"
            )
    if token is None:
        return pairs
    if not token or not _VALUE.fullmatch(token) or " " in token:
        raise ValueError("a token is printable ASCII without spaces")
    return (*pairs, ("authorization", f"Bearer {token}"))
