"""Calls over HTTP/1.1 as bytes, with as little as can be around them: what is measured is the server."""

import asyncio
import json
import struct
from collections.abc import Sequence

LINE_LIMIT = 1 << 20


def infer_message(model: str, sequences: Sequence[str]) -> bytes:
    """Open Inference over HTTP, tensors in binary, as tritonclient sends them."""
    encoded = [sequence.encode() for sequence in sequences]
    raw = b"".join(struct.pack("<I", len(sequence)) + sequence for sequence in encoded)
    text = {
        "name": "text",
        "datatype": "BYTES",
        "shape": [len(encoded), 1],
        "parameters": {"binary_data_size": len(raw)},
    }
    wanted = {"name": "embedding", "parameters": {"binary_data": True}}
    head = json.dumps({"inputs": [text], "outputs": [wanted]}).encode()
    return _post(f"/v2/models/{model}/infer", head + raw, f"Inference-Header-Content-Length: {len(head)}")


def embeddings_message(model: str, sequences: Sequence[str]) -> bytes:
    """OpenAI's embeddings, in base64, as its clients ask for them."""
    body = {"model": model, "input": list(sequences), "encoding_format": "base64"}
    return _post("/v1/embeddings", json.dumps(body).encode(), "Content-Type: application/json")


def _post(path: str, body: bytes, header: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}", header, "", ""]
    return "\r\n".join(lines).encode() + body


class HttpConnection:
    """One connection, one call at a time."""

    def __init__(self, address: str) -> None:
        """Connect to HOST:PORT at the first call."""
        self._host, _, self._port = address.rpartition(":")
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __call__(self, message: bytes) -> bytes:
        """Send a request and wait for its reply's body.

        Raises:
            RuntimeError: The reply is no 200.
        """
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, int(self._port), limit=LINE_LIMIT)
        reader, writer = self._streams
        writer.write(message)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
        if not head.startswith(b"http/1.1 200"):
            raise RuntimeError(body.decode(errors="replace"))
        return body

    async def close(self) -> None:
        """Close it."""
        if self._streams is not None:
            self._streams[1].close()
