"""Python client for a birnn server. It encodes sequences as vectors.

with birnn.Client("127.0.0.1:8001") as client:
    vectors = client.encode(["CCO", "c1ccccc1"], encoder="smiles")  # float32 [2, dimension]
"""

from birnn.async_client import AsyncClient
from birnn.client import Client
from birnn.encodings import EncoderInfo, Encodings, ItemError, ItemErrorCode, ItemNotice, Timings, TokenEncodings
from birnn.errors import (
    DeadlineError,
    EncodeError,
    InconsistentReplyError,
    InvalidRequestError,
    OverloadedError,
    SequenceError,
    ServerUnavailableError,
    ServerUnreachableError,
    UnknownEncoderError,
    VersionGoneError,
)
from birnn.tls import Tls

__all__ = [
    "AsyncClient",
    "Client",
    "DeadlineError",
    "EncodeError",
    "EncoderInfo",
    "Encodings",
    "InconsistentReplyError",
    "InvalidRequestError",
    "ItemError",
    "ItemErrorCode",
    "ItemNotice",
    "OverloadedError",
    "SequenceError",
    "ServerUnavailableError",
    "ServerUnreachableError",
    "Timings",
    "Tls",
    "TokenEncodings",
    "UnknownEncoderError",
    "VersionGoneError",
    "__version__",
]


def __getattr__(name: str) -> str:
    # Looked up on first access, because the lookup takes longer than the rest of the import.
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("birnn-serving")
        except PackageNotFoundError:
            return "0+unknown"
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
