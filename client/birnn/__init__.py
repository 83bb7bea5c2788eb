"""Client of birnn-serving: strings in, encodings out.

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
)

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
    "TokenEncodings",
    "UnknownEncoderError",
]
