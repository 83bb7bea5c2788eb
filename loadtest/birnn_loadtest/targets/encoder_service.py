"""Our own protocol over gRPC: a call for each request, or streams of them."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray

from birnn import AsyncClient, EncodeError
from birnn.async_connection import AsyncStream
from birnn.cli.server_options import Server
from birnn.errors import call_error
from birnn.v1 import encoder_pb2 as pb
from birnn.v1.encoder_pb2_grpc import EncoderServiceStub
from birnn_loadtest.schedule import Part
from birnn_loadtest.targets.open_inference import server_metadata
from birnn_loadtest.targets.streams import Streams
from birnn_loadtest.targets.target import CallError, GrpcTarget, Reply, Served, TensorNames


class UnaryTarget(GrpcTarget):
    """Calls of Encode."""

    def __init__(self, server: Server, connections: int | None, timeout: float, names: TensorNames) -> None:
        super().__init__(server, connections, timeout, names)
        self._versions: dict[tuple[str, str | None], str] = {}
        self._stubs: Any = None

    async def open(self, parts: Sequence[Part]) -> list[Served]:
        """Connect; versions are those that answer now, for the whole test."""
        served = []
        async with AsyncClient(self._server.address, **self._server.client_options) as client:
            for part in parts:
                info = await client.encoder(part.encoder, part.version, timeout=self._timeout)
                self._versions[part.encoder, part.version] = info.version
                text = (
                    f"{info.architecture}, {info.dimension} floats, {info.engine} on {info.device} in {info.precision}"
                )
                served.append(Served(info.name, info.version, text))
        await self._connect()
        self._stubs = self._in_turn(EncoderServiceStub)
        return served

    async def server(self) -> str | None:
        """Where it speaks the Open Inference Protocol, too."""
        try:
            return await server_metadata(self._channels[0], self._server.metadata, self._timeout)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return None
            raise call_error(error, self._server.address, self._timeout) from error

    async def call(self, part: Part, sequences: Sequence[bytes], timeout: float) -> Reply:  # noqa: ASYNC109
        """Encode sequences in a call of their own."""
        stub = next(self._stubs)
        try:
            reply = await stub.Encode(self._request(part, sequences), timeout=timeout, metadata=self._server.metadata)
        except grpc.aio.AioRpcError as error:
            raise CallError.of(error) from error
        return _reply(reply)

    def _request(self, part: Part, sequences: Sequence[bytes]) -> pb.EncodeRequest:
        version = self._versions[part.encoder, part.version]
        return pb.EncodeRequest(encoder=part.encoder.partition("@")[0], version=version, sequences=sequences)


class StreamTarget(UnaryTarget):
    """Requests over EncodeStream, a stream for each connection; one that ends is opened again."""

    def __init__(self, server: Server, connections: int | None, timeout: float, names: TensorNames) -> None:
        super().__init__(server, connections, timeout, names)
        self._streams: Streams[AsyncStream] = Streams([], self._stream)

    async def open(self, parts: Sequence[Part]) -> list[Served]:
        """Connect and open the streams."""
        served = await super().open(parts)
        self._streams = Streams(self._channels, self._stream)
        return served

    async def close(self) -> None:
        """End all streams and connections."""
        self._streams.close()
        await super().close()

    async def call(self, part: Part, sequences: Sequence[bytes], timeout: float) -> Reply:  # noqa: ASYNC109
        """Encode sequences by a request on one of the streams."""
        streamed: Any = self._streams.next().send(self._request(part, sequences), timeout)
        try:
            reply: pb.EncodeResponse = await streamed
        except grpc.RpcError as error:
            raise CallError.of(error) from error
        except EncodeError as error:
            raise CallError(error.code.name if error.code else "UNKNOWN", str(error)) from error
        return _reply(reply)

    def _stream(self, channel: grpc.aio.Channel) -> AsyncStream:
        return AsyncStream(EncoderServiceStub(channel), self._server.metadata)


def _reply(reply: pb.EncodeResponse) -> Reply:
    return Reply(len(reply.errors), partial(_vectors, reply))


def _vectors(reply: pb.EncodeResponse) -> NDArray[np.float32]:
    return np.frombuffer(reply.embeddings, "<f4").reshape(tuple(reply.shape))
