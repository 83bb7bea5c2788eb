"""The Open Inference Protocol, version 2, with Triton's extensions for streams, statistics and the index of models.

An encoder is a model with one input `text`, BYTES [-1, 1], and one output `embedding`, FP32 [-1, D]; what else it takes
and gives: see `inputs` and `outputs`. The protocol knows no errors by item, so a request with a sequence that cannot be
encoded fails as a whole and says which ones.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from numpy.typing import NDArray

from birnn.openinference import inference_pb2 as pb
from birnn_bundle.quoting import shown
from birnn_service.call import Call, Exchange, Method
from birnn_service.catalog import Encoder, Encoders, State, address_of
from birnn_service.conversation import parsed
from birnn_service.errors import DrainingError, ForbiddenError, InvalidRequestError, ServiceError
from birnn_service.pipeline import Pipeline
from birnn_service.protocols.openinference.description import config_of, metadata_of, statistics_of
from birnn_service.protocols.openinference.inputs import read_inputs
from birnn_service.protocols.openinference.limits import ORDER_LIMITS, limits_of
from birnn_service.protocols.openinference.outputs import VECTORS, datatype_of, read_outputs, tensors_of
from birnn_service.protocols.openinference.parameters import read_parameters
from birnn_service.protocols.protobuf import INLINE_BYTES, head_of, method, read_message, simple, with_numbers
from birnn_service.repository.orders import Orders
from birnn_service.server_version import server_version
from birnn_service.settings import Settings
from birnn_service.state import ServingState
from birnn_service.statistics import Statistics
from birnn_service.token_file import Right

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
# Operators may see what there is, too.
INDEX = (Right.ENCODE, Right.ADMIN)
# What clients may look for before they use it.
EXTENSIONS = ("model_configuration", "model_repository", "parameters", "schedule_policy", "statistics")
# Parameters of replies: what computed it; of those of a stream, that no more replies follow to the request, and the
# status of one that failed.
ENGINE, FINAL, CODE = "engine", "triton_final_response", "code"
READY, UNAVAILABLE = State.READY, State.UNAVAILABLE
UNLOAD_DEPENDENTS = "unload_dependents"
# Most characters of the model in an order: NAME@VERSION, both of which are names of folders.
LONGEST_MODEL = 255 + 1 + 255


class InferenceProtocol:
    """Lets tritonclient, perf_analyzer and other clients of the protocol work unmodified."""

    def __init__(
        self,
        encoders: Encoders[Encoder],
        orders: Orders,
        state: ServingState,
        pipeline: Pipeline,
        settings: Settings,
        statistics: Statistics,
    ) -> None:
        self._encoders = encoders
        self._orders = orders
        self._state = state
        self._pipeline = pipeline
        self._settings = settings
        self._statistics = statistics

    def methods(self) -> Sequence[Method | Exchange]:
        """All methods of the service."""
        limits = limits_of(self._settings.max_sequences)
        stream = "ModelStreamInfer"
        return [
            simple("ServerLive", pb.ServerLiveRequest, lambda request: pb.ServerLiveResponse(live=True), None),
            simple("ServerReady", pb.ServerReadyRequest, self._server_ready, None),
            simple("ServerMetadata", pb.ServerMetadataRequest, self.server_metadata),
            simple("ModelReady", pb.ModelReadyRequest, self.model_ready, None),
            simple("ModelMetadata", pb.ModelMetadataRequest, self.model_metadata),
            simple("ModelConfig", pb.ModelConfigRequest, self.model_config),
            simple("ModelStatistics", pb.ModelStatisticsRequest, self.model_statistics),
            simple("RepositoryIndex", pb.RepositoryIndexRequest, self.repository_index, INDEX),
            method("RepositoryModelLoad", pb.RepositoryModelLoadRequest, self._load, ORDER_LIMITS, right=Right.ADMIN),
            method(
                "RepositoryModelUnload", pb.RepositoryModelUnloadRequest, self._unload, ORDER_LIMITS, right=Right.ADMIN
            ),
            method("ModelInfer", pb.ModelInferRequest, self._infer, limits, _address),
            Exchange(
                stream,
                lambda message: _with_id(read_message(stream, pb.ModelInferRequest, message, limits)),
                Method(stream, parsed, partial(self._infer, streamed=True), _address),
                _stream_failure,
                ordered=True,
            ),
        ]

    def _server_ready(self, request: pb.ServerReadyRequest) -> pb.ServerReadyResponse:
        """Whether every encoder is served and no shutdown is under way."""
        return pb.ServerReadyResponse(ready=self._state.ready)

    def server_metadata(self, request: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:
        """Name, version and extensions of the server."""
        return pb.ServerMetadataResponse(name="birnn-serving", version=server_version(), extensions=EXTENSIONS)

    def model_ready(self, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        """Whether calls to one encoder are answered; an unknown one is not ready."""
        try:
            encoder = self._encoders.find(request.name, request.version)
        except ServiceError:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=self._state.serves(*address_of(encoder)))

    def model_metadata(self, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
        """Inputs and outputs of one encoder."""
        encoder = self._encoders.find(request.name, request.version)
        return metadata_of(encoder, self._encoders.versions(encoder.manifest.name))

    def model_config(self, request: pb.ModelConfigRequest) -> pb.ModelConfigResponse:
        """Configuration of one encoder."""
        encoder = self._encoders.find(request.name, request.version)
        return pb.ModelConfigResponse(config=config_of(encoder, self._settings.max_sequences))

    def model_statistics(self, request: pb.ModelStatisticsRequest) -> pb.ModelStatisticsResponse:
        """What the whole server has counted, of all encoders that the request means."""
        encoders: Iterable[Encoder] = self._encoders
        if request.name or request.version:
            found = self._encoders.find(request.name, request.version)
            same = (encoder for encoder in encoders if encoder.manifest.name == found.manifest.name)
            encoders = [found] if request.version else same
        return pb.ModelStatisticsResponse(
            model_stats=[statistics_of(encoder, self._statistics.of(encoder.instance)) for encoder in encoders]
        )

    def repository_index(self, request: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
        """Every version of every encoder found, and why one is not ready."""
        index = pb.RepositoryIndexResponse()
        statuses = self._encoders.statuses
        for name, version in map(address_of, self._encoders):
            reason = self._state.unhealthy.get((name, version), "")
            if not reason and not self._state.serves(name, version):
                reason = "the server is shutting down" if self._state.draining else "the server is starting"
            state = UNAVAILABLE if reason else READY
            newer = statuses.pop((name, version), None)
            if not reason and newer is not None and newer.broken:
                reason = newer.reason
            index.models.add(name=name, version=version, state=state, reason=reason)
        for (name, version), status in statuses.items():
            index.models.add(name=name, version=version, state=status.state, reason=status.reason)
        if request.ready:
            ready = [model for model in index.models if model.state == READY]
            index = pb.RepositoryIndexResponse(models=ready)
        return index

    async def load(self, model: str, parameters: Collection[str] = ()) -> None:
        """Load an encoder, as an operator orders it.

        Raises:
            ServiceError: It is not to be, or cannot be loaded; see `Orders.load`.
        """
        if parameters:
            raise InvalidRequestError(
                f"a model is loaded as its bundle says; leave out the parameter {shown(min(parameters))}"
            )
        await self._order(self._orders.load, model)

    async def unload(self, model: str, parameters: Collection[str] = ()) -> None:
        """Unload an encoder, as an operator orders it.

        Raises:
            ServiceError: It is not to be, or is not served; see `Orders.unload`.
        """
        # Triton's client always says what is to become of models that need this one; there are none.
        if unknown := set(parameters) - {UNLOAD_DEPENDENTS}:
            raise InvalidRequestError(f"unknown parameter {shown(min(unknown))}; leave it out")
        await self._order(self._orders.unload, model)

    async def _order(self, carry_out: Callable[[str], Awaitable[None]], model: str) -> None:
        if not self._settings.takes_orders:
            raise ForbiddenError(
                "this server takes no orders to load and unload; start it with --tokens or --jwks, where orders need "
                "the right `admin`, or with --admin true, which takes them from everyone who reaches it"
            )
        if self._state.draining:
            raise DrainingError("the server is shutting down")
        if not model:
            raise InvalidRequestError("name a model")
        if len(model) > LONGEST_MODEL:
            raise InvalidRequestError(f"the model's name has {len(model)} characters, {LONGEST_MODEL} at most expected")
        await carry_out(model)

    async def _load(self, request: pb.RepositoryModelLoadRequest, call: Call) -> bytes:
        model = _ordered(request)
        await self.load(model, request.parameters.keys())
        return pb.RepositoryModelLoadResponse(model_name=model, isLoaded=True).SerializeToString()

    async def _unload(self, request: pb.RepositoryModelUnloadRequest, call: Call) -> bytes:
        model = _ordered(request)
        await self.unload(model, request.parameters.keys())
        return pb.RepositoryModelUnloadResponse(model_name=model, isUnloaded=True).SerializeToString()

    async def tensors(
        self, request: pb.ModelInferRequest, call: Call, seconds: float | None = None
    ) -> Mapping[str, NDArray[Any]]:
        """Encode the sequences of a request within `seconds`; its outputs by name, the vectors first."""
        assert call.encoder is not None
        manifest = call.encoder.manifest
        names = read_outputs(request)
        options = read_parameters(request, VECTORS[names[0]], manifest.pooling)
        if seconds is not None:
            options = replace(options, timeout=min(seconds, options.timeout or seconds))
        sequences = read_inputs(request, manifest, self._settings.max_sequences)
        encoded = await self._pipeline.encode(call, sequences, options)
        make = partial(tensors_of, encoded, names)
        # Padding costs what the reply holds, not what was computed.
        rows = int(encoded.lengths.max(initial=0)) * len(encoded.lengths) if options.padded else len(encoded.values)
        small = 4 * rows * encoded.values.shape[1] <= INLINE_BYTES
        return make() if small else await asyncio.to_thread(make)

    async def _infer(self, request: pb.ModelInferRequest, call: Call, *, streamed: bool = False) -> bytes:
        """Encode the sequences of a request; the reply is a stream's, or by itself."""
        tensors = await self.tensors(request, call)
        assert call.encoder is not None
        name, version = address_of(call.encoder)
        response = pb.ModelInferResponse(model_name=name, model_version=version, id=request.id)
        for output, tensor in tensors.items():
            response.outputs.add(name=output, datatype=datatype_of(tensor), shape=tensor.shape)
        response.parameters[ENGINE].string_param = call.encoder.info.label
        vectors, *others = tensors.values()
        # Contents come in the order of their outputs, and the vectors are written before all else.
        response.raw_output_contents.extend(other.tobytes() for other in others)
        before = None
        if streamed:
            response.parameters[FINAL].bool_param = True
            before = _before_response
        return await with_numbers(pb.ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER, vectors, response, before)


def _ordered(request: pb.RepositoryModelLoadRequest | pb.RepositoryModelUnloadRequest) -> str:
    """The model of an order. Triton's field 1 names a repository, and KServe's a model, with no field 2."""
    if request.model_name and request.repository_name:
        raise InvalidRequestError("this server has one repository, which has no name; leave out repository_name")
    return request.model_name or request.repository_name


def _address(request: pb.ModelInferRequest) -> tuple[str, str]:
    return request.model_name, request.model_version


def _with_id(request: pb.ModelInferRequest) -> tuple[str, pb.ModelInferRequest]:
    return request.id, request


def _before_response(size: int) -> bytes:
    """What a reply of a stream holds before a response of `size` bytes."""
    return head_of(pb.ModelStreamInferResponse.INFER_RESPONSE_FIELD_NUMBER, size)


def _stream_failure(number: str | None, error: ServiceError) -> bytes:
    response = pb.ModelInferResponse(id=number or "")
    response.parameters[FINAL].bool_param = True
    response.parameters[CODE].string_param = error.code.name
    return pb.ModelStreamInferResponse(error_message=error.message, infer_response=response).SerializeToString()
