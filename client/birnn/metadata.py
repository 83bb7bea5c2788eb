"""What every call of a client carries beside its request."""

import re
from collections.abc import Mapping
from typing import TypeAlias

Metadata: TypeAlias = tuple[tuple[str, str], ...]

_KEY = re.compile(r"(?!grpc-)[0-9a-z_.-]+(?<!-bin)")
_VALUE = re.compile(r"[ -~]*")


def call_metadata(metadata: Mapping[str, str] | None, token: str | None) -> Metadata:
    """Metadata as gRPC takes it, with a bearer token.

    Raises:
        ValueError: gRPC cannot send it.
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
