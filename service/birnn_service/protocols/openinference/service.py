"""The Open Inference Protocol, version 2.

An encoder is a model with one input `text`, BYTES [-1, 1], and one output `embedding`, FP32 [-1, D]; one that reads
float features has the inputs `features` and `lengths` in place of `text` (see `feature_tensors`). The
protocol knows no errors by item, so a request with a sequence that cannot be encoded fails as a whole and says which
ones.
"""

import struct
from collections.abc import Sequence

from birnn.openinference import inference_pb2 as pb
from birnn_bundle.errors import ItemError
from birnn_bundle.quoting import shown, told
from birnn_service.call import Call, Method
from birnn_service.catalog import Encoder, Encoders
from birnn_service.errors import InvalidRequestError, ServiceError
from birnn_service.metrics import server_version
from birnn_service.pipeline import Pipeline
from birnn_service.protocols.openinference.feature_tensors import FEATURES, LENGTHS, read_feature_tensors
from birnn_service.protocols.openinference.limits import limits_of
from birnn_service.protocols.openinference.parameters import read_parameters
from birnn_service.protocols.protobuf import method, simple
from birnn_service.protocols.reply import with_numbers
from birnn_service.settings import Settings
from birnn_service.state import ServingState

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
INPUT, OUTPUT = "text", "embedding"
# Parameter of a reply: what computed it.
ENGINE = "engine"
PLATFORM = "birnn"
LISTED_ERRORS = 3
TYPES = {"BYTES": pb.TYPE_STRING, "FP32": pb.TYPE_FP32, "INT32": pb.TYPE_INT32}


class InferenceProtocol:
    """Lets tritonclient, perf_analyzer and other clients of the protocol work unmodified."""

    def __init__(
        self, encoders: Encoders[Encoder], state: ServingState, pipeline: Pipeline, settings: Settings
    ) -> None:
        self._encoders = encoders
        self._state = state
        self._pipeline = pipeline
        self._settings = settings

    def methods(self) -> Sequence[Method]:
        """All methods of the service."""
        return [
            simple("ServerLive", pb.ServerLiveRequest, lambda request: pb.ServerLiveResponse(live=True)),
            simple("ServerReady", pb.ServerReadyRequest, self._server_ready),
            simple("ServerMetadata", pb.ServerMetadataRequest, self._server_metadata),
            simple("ModelReady", pb.ModelReadyRequest, self._model_ready),
            simple("ModelMetadata", pb.ModelMetadataRequest, self._model_metadata),
            simple("ModelConfig", pb.ModelConfigRequest, self._model_config),
            method(
                "ModelInfer",
                pb.ModelInferRequest,
                self._infer,
                limits_of(self._settings.max_sequences),
                lambda request: (request.model_name, request.model_version),
            ),
        ]

    def _server_ready(self, request: pb.ServerReadyRequest) -> pb.ServerReadyResponse:
        """Whether every encoder is served and no shutdown is under way."""
        return pb.ServerReadyResponse(ready=self._state.ready)

    def _server_metadata(self, request: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:
        """Name, version and extensions of the server."""
        return pb.ServerMetadataResponse(
            name="birnn-serving", version=server_version(), extensions=["model_configuration"]
        )

    def _model_ready(self, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        """Whether one encoder is served; an unknown one is not ready."""
        try:
            self._encoders.find(request.name, request.version)
        except ServiceError:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=not self._state.draining)

    def _model_metadata(self, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
        """Inputs and outputs of one encoder, the batch dimension included."""
        encoder = self._encoders.find(request.name, request.version)
        tensor = pb.ModelMetadataResponse.TensorMetadata
        return pb.ModelMetadataResponse(
            name=encoder.manifest.name,
            versions=[str(version) for version in self._encoders.versions(encoder.manifest.name)],
            platform=PLATFORM,
            inputs=[tensor(name=name, datatype=datatype, shape=shape) for name, datatype, shape in _inputs(encoder)],
            outputs=[tensor(name=OUTPUT, datatype="FP32", shape=[-1, encoder.manifest.dimension])],
        )

    def _model_config(self, request: pb.ModelConfigRequest) -> pb.ModelConfigResponse:
        """Configuration of one encoder; its dimensions leave out the batch."""
        encoder = self._encoders.find(request.name, request.version)
        # Features and lengths have no batch dimension in common.
        batched = not encoder.manifest.features
        dims = [encoder.manifest.dimension] if batched else [-1, encoder.manifest.dimension]
        return pb.ModelConfigResponse(
            config=pb.ModelConfig(
                name=encoder.manifest.name,
                platform=PLATFORM,
                backend="birnn",
                max_batch_size=self._settings.max_sequences if batched else 0,
                input=[
                    pb.ModelInput(name=name, data_type=TYPES[datatype], dims=shape[1:] if batched else shape)
                    for name, datatype, shape in _inputs(encoder)
                ],
                output=[pb.ModelOutput(name=OUTPUT, data_type=pb.TYPE_FP32, dims=dims)],
            )
        )

    async def _infer(self, request: pb.ModelInferRequest, call: Call) -> bytes:
        """Encode the strings of input `text`, or the features of its counterparts."""
        assert call.encoder is not None
        manifest = call.encoder.manifest
        read = read_feature_tensors if manifest.features else read_strings
        _check_outputs(request)
        options = read_parameters(request)
        encoded = await self._pipeline.encode(call, read(request, self._settings.max_sequences), options)
        if encoded.errors:
            raise InvalidRequestError(_list_errors(encoded.errors))
        output = pb.ModelInferResponse.InferOutputTensor(name=OUTPUT, datatype="FP32", shape=encoded.values.shape)
        response = pb.ModelInferResponse(
            model_name=manifest.name, model_version=str(manifest.version), id=request.id, outputs=[output]
        )
        response.parameters[ENGINE].string_param = encoded.encoder.info.label
        values = encoded.values.astype("<f4", copy=False)
        return await with_numbers(pb.ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER, values, response)


def _inputs(encoder: Encoder) -> list[tuple[str, str, list[int]]]:
    """Name, type and shape of each input, the batch dimension included."""
    if features := encoder.manifest.features:
        return [(FEATURES, "FP32", [-1, features]), (LENGTHS, "INT32", [-1])]
    return [(INPUT, "BYTES", [-1, 1])]


def _check_outputs(request: pb.ModelInferRequest) -> None:
    for output in request.outputs:
        if output.name != OUTPUT:
            raise InvalidRequestError(f"unknown output {shown(output.name)}; the only one is {OUTPUT!r}")


def read_strings(request: pb.ModelInferRequest, most: int) -> Sequence[bytes]:
    """The strings of a request's only input, at most so many.

    Raises:
        InvalidRequestError: It is not one BYTES tensor `text` of shape [n, 1] or [n] that holds n strings, or they are
            too many.
    """
    if len(request.inputs) != 1 or request.inputs[0].name != INPUT:
        names = ", ".join(shown(tensor.name) for tensor in request.inputs[:3]) or "none"
        raise InvalidRequestError(f"expected one input named {INPUT!r}, got {len(request.inputs)}: {names}")
    tensor = request.inputs[0]
    shape = tensor.shape[:3]
    if tensor.datatype != "BYTES" or len(shape) not in (1, 2) or shape[0] < 0 or shape[1:] not in ([], [1]):
        raise InvalidRequestError(f"input {INPUT!r} must be BYTES of shape [n, 1], got {told(tensor.datatype)} {shape}")
    if len(request.raw_input_contents) > 1:
        raise InvalidRequestError(f"one input, but {len(request.raw_input_contents)} raw contents")
    if request.raw_input_contents:
        strings: Sequence[bytes] = unpack_bytes(request.raw_input_contents[0], most)
    else:
        strings = tensor.contents.bytes_contents
    if len(strings) != shape[0]:
        raise InvalidRequestError(f"input {INPUT!r} declares {shape[0]} strings and holds {len(strings)}")
    return strings


def unpack_bytes(raw: bytes, most: int) -> list[bytes]:
    """Elements of a raw BYTES tensor: each a little-endian uint32 length and that many bytes.

    Raises:
        InvalidRequestError: The content ends within an element, or holds more than `most`.
    """
    strings: list[bytes] = []
    position = 0
    while position < len(raw):
        if len(strings) == most:
            raise InvalidRequestError(
                f"raw contents of {INPUT!r} hold more than {most} strings (--max-sequences); split it"
            )
        if position + 4 > len(raw):
            raise InvalidRequestError(f"raw contents of {INPUT!r} end within a length, at byte {position}")
        (size,) = struct.unpack_from("<I", raw, position)
        position += 4
        if position + size > len(raw):
            raise InvalidRequestError(f"raw contents of {INPUT!r} end within a string of {size} bytes")
        strings.append(raw[position : position + size])
        position += size
    return strings


def _list_errors(errors: list[ItemError]) -> str:
    listed = "; ".join(f"{error.index}: {error.reason}" for error in errors[:LISTED_ERRORS])
    more = f"; and {len(errors) - LISTED_ERRORS} more" if len(errors) > LISTED_ERRORS else ""
    return f"{len(errors)} sequences cannot be encoded: {listed}{more}"
