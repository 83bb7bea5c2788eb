"""ModelStreamInfer of the Open Inference Protocol: an extension of Triton's, which we speak, too."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence

import grpc
import grpc.aio

from birnn.cli.server_options import Server
from birnn.metadata import Metadata
from birnn.openinference import inference_pb2 as pb
from birnn.openinference.inference_pb2_grpc import GRPCInferenceServiceStub
from birnn_loadtest.schedule import Part
from birnn_loadtest.targets.open_inference import InferTarget
from birnn_loadtest.targets.streams import Streams
from birnn_loadtest.targets.target import CallError, Reply, Served, TensorNames


class InferStreamTarget(InferTarget):
    """Requests over ModelStreamInfer, a stream for each connection; one that ends is opened again."""

    def __init__(self, server: Server, connections: int | None, timeout: float, names: TensorNames) -> None:
        super().__init__(server, connections, timeout, names)
        self._streams: Streams[InferStream] = Streams([], self._stream)

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
        stream = self._streams.next()
        request = self._request(part, sequences)
        # Servers that read this parameter do not compute requests that are too late.
        request.parameters["timeout"].int64_param = max(1, round(timeout * 1e6))
        try:
            async with asyncio.timeout(timeout):
                return self._reply(part, await stream.send(request))
        except TimeoutError as error:
            raise CallError(grpc.StatusCode.DEADLINE_EXCEEDED.name, f"no reply within {timeout:g} s") from error

    def _stream(self, channel: grpc.aio.Channel) -> "InferStream":
        return InferStream(GRPCInferenceServiceStub(channel), self._server.metadata)


class InferStream:
    """The requests under way over one call of ModelStreamInfer; replies are told apart by the ids of their requests.

    Args:
        stub: Of the connection.
        metadata: Sent with the call.
    """

    def __init__(self, stub: GRPCInferenceServiceStub, metadata: Metadata) -> None:
        self._numbers = itertools.count(1)
        self._waiting: dict[str, asyncio.Future[pb.ModelInferResponse]] = {}
        # It holds no more than there are requests under way.
        self._unsent: asyncio.Queue[pb.ModelInferRequest] = asyncio.Queue()
        self._call = stub.ModelStreamInfer(self._messages(), metadata=metadata)
        self._reader = asyncio.get_running_loop().create_task(self._read())

    @property
    def over(self) -> bool:
        """Whether the stream has ended."""
        return self._reader.done()

    def close(self) -> None:
        """Cancel the call; requests under way fail."""
        self._call.cancel()

    async def send(self, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        """The reply to a request, which gets an id of its own.

        Raises:
            CallError: The request failed, or the stream.
        """
        request.id = str(next(self._numbers))
        reply: asyncio.Future[pb.ModelInferResponse] = asyncio.get_running_loop().create_future()
        self._waiting[request.id] = reply
        self._unsent.put_nowait(request)
        try:
            return await reply
        finally:
            self._waiting.pop(request.id, None)

    async def _messages(self) -> AsyncIterator[pb.ModelInferRequest]:
        while True:
            yield await self._unsent.get()

    async def _read(self) -> None:
        end = CallError(grpc.StatusCode.UNAVAILABLE.name, "the stream ended before all was answered")
        try:
            async for reply in self._call:
                self._answer(reply)
        except grpc.aio.AioRpcError as error:
            end = CallError.of(error)
        except asyncio.CancelledError:
            end = CallError(grpc.StatusCode.CANCELLED.name, "the stream was closed")
        except CallError as error:
            end = error
            self._call.cancel()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(end)

    def _answer(self, reply: pb.ModelStreamInferResponse) -> None:
        found = reply.infer_response
        if not found.id:
            # The protocol does not promise the id of a request that failed, so any of them may have.
            raise CallError("INVALID_REPLY", reply.error_message or "a reply on the stream has no id")
        waiting = self._waiting.get(found.id)
        if waiting is None or waiting.done():
            # Its caller has given up.
            return
        if reply.error_message:
            # Ours tells the status that a call would have had. Triton tells none.
            code = found.parameters["code"].string_param or grpc.StatusCode.UNKNOWN.name
            waiting.set_exception(CallError(code, reply.error_message))
        else:
            waiting.set_result(found)
