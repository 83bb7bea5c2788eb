"""Calls of the native gRPC front end: what their metadata says."""

import asyncio

import pytest

from birnn_service.transports.native_call import NativeCall


class FakeCarrier:
    """Notes orders, and carries none out."""

    request_seconds = 60.0
    most_bytes = 1 << 20

    def __init__(self) -> None:
        self.trailers: list[bytes] = []

    def unpacking(self, caller: str) -> asyncio.Lock:
        """A lock for nobody else."""
        return asyncio.Lock()

    def order(self, id_: int, order: int, status: int = 0, message: bytes = b"", trailers: bytes = b"") -> None:
        """Note the trailers."""
        self.trailers.append(trailers)


@pytest.mark.parametrize(
    ("metadata", "request_id"),
    [
        (b"", ""),
        (b"x-request-id\0a\0", "a"),
        (b"x-request-id\0a\0x-request-id\0b\0", "a"),
        (b"x-request-id\0\0", ""),
        # What only looks like one must not end the reading of what else has come.
        (b"note\0x-request-id\0", ""),
        (b"x-request-id-2\0a\0", ""),
        (b"note\0x-request-id\0x-request-id\0a\0", "a"),
    ],
)
def test_request_id(metadata: bytes, request_id: str) -> None:
    """A call has the first request id that it names, and its trailers repeat that."""
    carrier = FakeCarrier()
    call = NativeCall(carrier, 1 << 32 | 1, "ipv4:127.0.0.1", -1, metadata)
    assert call.request_id == request_id
    call.end()
    assert carrier.trailers == [f"x-request-id\0{request_id}\0".encode() if request_id else b""]
