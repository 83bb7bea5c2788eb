"""birnn.v1.EncoderService."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TypeVar

from birnn.v1 import encoder_pb2 as pb
from birnn_bundle.ragged import RaggedBatch
from birnn_service.call import Call, Exchange, Method
from birnn_service.catalog import Encoder, Encoders
from birnn_service.conversation import parsed
from birnn_service.encoded import Encoded
from birnn_service.engine.engine import Output
from birnn_service.errors import InvalidRequestError, ServiceError
from birnn_service.pipeline import Options, Pipeline
from birnn_service.protocols.description import description_of
from birnn_service.protocols.protobuf import Before, head_of, method, read_message, simple, with_numbers
from birnn_service.protocols.wire import Limit
from birnn_service.queueing.priority import Priority
from birnn_service.reading import batch_of
from birnn_service.settings import Settings
from birnn_service.state import ServingState
from birnn_service.vectors import ElementType

K = TypeVar("K", Output, ElementType, Priority)

SERVICE = pb.DESCRIPTOR.services_by_name["EncoderService"].full_name
OUTPUTS: Mapping[int, Output] = {
    pb.OUTPUT_UNSPECIFIED: Output.POOLED,
    pb.OUTPUT_POOLED: Output.POOLED,
    pb.OUTPUT_TOKENS: Output.TOKENS,
}
ELEMENT_TYPES: Mapping[int, ElementType] = {
    pb.ELEMENT_TYPE_UNSPECIFIED: ElementType.FLOAT32,
    pb.ELEMENT_TYPE_FLOAT32: ElementType.FLOAT32,
    pb.ELEMENT_TYPE_FLOAT16: ElementType.FLOAT16,
    pb.ELEMENT_TYPE_INT8: ElementType.INT8,
}
# Of those with two numbers the last one counts, which is not UNSPECIFIED.
ELEMENT_TYPE_NUMBERS = {
    element_type: pb.ElementType.ValueType(number) for number, element_type in ELEMENT_TYPES.items()
}
PRIORITIES: Mapping[int, Priority] = {
    pb.PRIORITY_UNSPECIFIED: Priority.NORMAL,
    pb.PRIORITY_HIGH: Priority.HIGH,
    pb.PRIORITY_NORMAL: Priority.NORMAL,
    pb.PRIORITY_LOW: Priority.LOW,
}
# Most errors and notices of a reply that is written on the event loop: switching threads would cost more.
INLINE_ITEMS = 512


class EncoderProtocol:
    """Our own protocol: many strings or sequences of features in, vectors as bytes out, errors by item."""

    def __init__(
        self, encoders: Encoders[Encoder], state: ServingState, pipeline: Pipeline, settings: Settings
    ) -> None:
        self._encoders = encoders
        self._state = state
        self._pipeline = pipeline
        self._settings = settings

    def methods(self) -> Sequence[Method | Exchange]:
        """All methods of the service."""
        most, advice = self._settings.max_sequences, "split it, or raise --max-sequences"
        limits: dict[int, Limit] = {3: Limit("sequences", most, advice), 8: Limit("lengths", most, advice, width=0)}
        return [
            method("Encode", pb.EncodeRequest, self._encode, limits, _address),
            simple("ListEncoders", pb.ListEncodersRequest, self._list_encoders),
            Exchange(
                "EncodeStream",
                partial(_read_stream_request, {3: Limit("requests", 1, "send each by itself", inside=limits)}),
                Method("EncodeStream", parsed, self._encode_of_stream, lambda asked: _address(asked.encode)),
                _stream_failure,
            ),
        ]

    async def _encode_of_stream(self, request: pb.EncodeStreamRequest, call: Call) -> bytes:
        if not 0 <= request.timeout < math.inf:
            raise InvalidRequestError(f"the timeout must be 0 or more seconds, not {request.timeout}")
        before = partial(_before_response, request.id)
        return await self._encode(request.encode, call, request.timeout or None, before)

    async def _encode(
        self, request: pb.EncodeRequest, call: Call, seconds: float | None = None, before: Before | None = None
    ) -> bytes:
        """Encode the sequences of one request, within `seconds` if given; `before` is put before the response."""
        options = Options(
            output=_known("OUTPUT", OUTPUTS, request.output),
            truncate=request.truncate,
            timeout=seconds,
            normalize=request.normalize,
            element_type=_known("ELEMENT_TYPE", ELEMENT_TYPES, request.element_type),
            priority=_known("PRIORITY", PRIORITIES, request.priority),
        )
        encoded = await self._pipeline.encode(call, _sequences(request), options)
        others = await _others(encoded, options.element_type, call.seconds)
        return await with_numbers(pb.EncodeResponse.EMBEDDINGS_FIELD_NUMBER, encoded.values, others, before)

    def _list_encoders(self, request: pb.ListEncodersRequest) -> pb.ListEncodersResponse:
        """List what is served, and what is there but broken."""
        response = pb.ListEncodersResponse(
            encoders=[description_of(encoder, self._encoders, self._state) for encoder in self._encoders]
        )
        for (name, version), reason in self._encoders.broken.items():
            response.encoders.add(name=name, version=version, description=f"not served: {reason}")
        return response


def _known(prefix: str, known: Mapping[int, K], number: int) -> K:
    """What the number of an enumeration stands for; raises InvalidRequestError for an unknown one."""
    try:
        return known[number]
    except KeyError:
        names = ", ".join(f"{prefix}_{one.name}" for one in dict.fromkeys(known.values()))
        what = prefix.lower().replace("_", " ")
        raise InvalidRequestError(f"unknown {what} {number}; use one of {names}") from None


def _address(request: pb.EncodeRequest) -> tuple[str, str]:
    return request.encoder, request.version


def _read_stream_request(limits: Mapping[int, Limit], message: bytes) -> tuple[int, pb.EncodeStreamRequest | None]:
    """Id and request of a message of a stream; no request where it cancels one."""
    request = read_message("EncodeStream", pb.EncodeStreamRequest, message, limits)
    action = request.WhichOneof("action")
    if action is None:
        raise InvalidRequestError("the message holds neither a request nor a cancellation")
    return request.id, request if action == "encode" else None


def _before_response(number: int, size: int) -> bytes:
    """What a reply of a stream holds before a response of `size` bytes."""
    field = pb.EncodeStreamResponse.RESPONSE_FIELD_NUMBER
    return pb.EncodeStreamResponse(id=number).SerializeToString() + head_of(field, size)


def _stream_failure(number: int | None, error: ServiceError) -> bytes:
    failure = pb.Failure(code=error.code, message=error.message, retry_after=error.retry_after)
    return pb.EncodeStreamResponse(id=number or 0, failure=failure).SerializeToString()


def _sequences(request: pb.EncodeRequest) -> Sequence[bytes] | RaggedBatch:
    """The strings of a request, or its features.

    Raises:
        InvalidRequestError: It holds both, or features that do not fit their lengths.
    """
    if not request.features and not request.lengths:
        return request.sequences
    if request.sequences:
        raise InvalidRequestError("the request holds strings and features; send either")
    return batch_of(request.features, list(request.lengths))


async def _others(encoded: Encoded, element_type: ElementType, seconds: float) -> pb.EncodeResponse:
    """All of a response but the numbers."""
    if len(encoded.errors) + len(encoded.notices) <= INLINE_ITEMS:
        return _written(encoded, element_type, seconds)
    return await asyncio.to_thread(_written, encoded, element_type, seconds)


def _written(encoded: Encoded, element_type: ElementType, seconds: float) -> pb.EncodeResponse:
    manifest = encoded.encoder.manifest
    return pb.EncodeResponse(
        encoder=manifest.name,
        version=str(manifest.version),
        shape=encoded.values.shape,
        lengths=encoded.lengths.tolist(),
        errors=[
            pb.ItemError(index=error.index, code=pb.ItemError.Code.ValueType(error.code), reason=error.reason)
            for error in encoded.errors
        ],
        notices=[
            pb.ItemNotice(
                index=notice.index, unknown_tokens=notice.unknown_tokens, truncated_tokens=notice.truncated_tokens
            )
            for notice in encoded.notices
        ],
        timings=pb.Timings(tokenize=encoded.tokenize, queue=encoded.queue, compute=encoded.compute, total=seconds),
        element_type=ELEMENT_TYPE_NUMBERS[element_type],
        scales=b"" if encoded.scales is None else encoded.scales.tobytes(),
        engine=encoded.encoder.info.label,
    )
