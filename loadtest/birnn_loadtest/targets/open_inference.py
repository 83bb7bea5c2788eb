"""The Open Inference Protocol over gRPC: Triton, MLServer, KServe, ours."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray

from birnn.cli.server_options import Server
from birnn.errors import call_error
from birnn.metadata import Metadata
from birnn.openinference import inference_pb2 as pb
from birnn.openinference.inference_pb2_grpc import GRPCInferenceServiceStub
from birnn_loadtest.schedule import Part
from birnn_loadtest.targets.target import CallError, GrpcTarget, Reply, Served, TensorNames
from birnn_loadtest.targets.tensors import Tensor, TextModel, packed, vectors


async def server_metadata(channel: grpc.aio.Channel, metadata: Metadata, timeout: float) -> str:  # noqa: ASYNC109
    """Name and version of a server.

    Raises:
        grpc.aio.AioRpcError: It does not say.
    """
    stub = GRPCInferenceServiceStub(channel)
    reply = await stub.ServerMetadata(pb.ServerMetadataRequest(), timeout=timeout, metadata=metadata)
    return f"{reply.name} {reply.version}"


class InferTarget(GrpcTarget):
    """Calls of ModelInfer with strings as raw bytes, as tritonclient sends them."""

    def __init__(self, server: Server, connections: int | None, timeout: float, names: TensorNames) -> None:
        super().__init__(server, connections, timeout, names)
        self._models: dict[tuple[str, str | None], TextModel] = {}
        self._stubs: Any = None

    async def open(self, parts: Sequence[Part]) -> list[Served]:
        """Connect, and ask for the tensors of each model."""
        await self._connect()
        self._stubs = self._in_turn(GRPCInferenceServiceStub)
        return [await self._found(part) for part in parts]

    async def server(self) -> str | None:
        """Name and version."""
        try:
            return await server_metadata(self._channels[0], self._server.metadata, self._timeout)
        except grpc.aio.AioRpcError as error:
            raise call_error(error, self._server.address, self._timeout) from error

    async def call(self, part: Part, sequences: Sequence[bytes], timeout: float) -> Reply:  # noqa: ASYNC109
        """Encode sequences by a call of ModelInfer."""
        stub, request = next(self._stubs), self._request(part, sequences)
        try:
            reply = await stub.ModelInfer(request, timeout=timeout, metadata=self._server.metadata)
        except grpc.aio.AioRpcError as error:
            raise CallError.of(error) from error
        return self._reply(part, reply)

    def _request(self, part: Part, sequences: Sequence[bytes]) -> pb.ModelInferRequest:
        model = self._models[part.encoder, part.version]
        given = pb.ModelInferRequest.InferInputTensor(
            name=model.input.name, datatype="BYTES", shape=model.shape(len(sequences))
        )
        wanted = pb.ModelInferRequest.InferRequestedOutputTensor(name=model.output.name)
        return pb.ModelInferRequest(
            model_name=part.encoder,
            model_version=part.version or "",
            inputs=[given],
            outputs=[wanted],
            raw_input_contents=[packed(sequences)],
        )

    def _reply(self, part: Part, reply: pb.ModelInferResponse) -> Reply:
        return Reply(0, partial(_vectors, reply, self._models[part.encoder, part.version].output.name))

    async def _found(self, part: Part) -> Served:
        request = pb.ModelMetadataRequest(name=part.encoder, version=part.version or "")
        stub = next(self._stubs)
        try:
            reply = await stub.ModelMetadata(request, timeout=self._timeout, metadata=self._server.metadata)
        except grpc.aio.AioRpcError as error:
            raise call_error(error, self._server.address, self._timeout) from error
        inputs, outputs = (
            [Tensor(tensor.name, tensor.datatype, tuple(tensor.shape)) for tensor in tensors]
            for tensors in (reply.inputs, reply.outputs)
        )
        model = self._models[part.encoder, part.version] = TextModel.found(part.encoder, inputs, outputs, self._names)
        text = f"{reply.platform or 'platform unknown'}, {model.input.name} -> {model.output.name}"
        return Served(part.encoder, part.version or "", text)


def _vectors(reply: pb.ModelInferResponse, name: str) -> NDArray[np.float32]:
    for place, output in enumerate(reply.outputs):
        if output.name == name:
            raw = place < len(reply.raw_output_contents)
            content = reply.raw_output_contents[place] if raw else list(output.contents.fp32_contents)
            return vectors(content, output.datatype, tuple(output.shape))
    raise ValueError(f"the reply has no output {name!r}")
