"""The sequences of a request: strings, or what an encoder reads as it is."""

import struct
from collections.abc import Sequence

from birnn.openinference import inference_pb2 as pb
from birnn_bundle.manifest import Manifest
from birnn_bundle.quoting import shown, told
from birnn_bundle.ragged import RaggedBatch
from birnn_service.errors import InvalidRequestError
from birnn_service.protocols.openinference.ragged_tensors import FEATURES, INPUT_IDS, read_ragged_tensors

TEXT = "text"


def read_inputs(request: pb.ModelInferRequest, manifest: Manifest, most: int) -> Sequence[bytes] | RaggedBatch:
    """The sequences of a request.

    Args:
        request: Holds them as `text`, or as `input_ids` or `features` with `lengths`.
        manifest: Of the encoder; an encoder of features reads nothing else.
        most: Most sequences.

    Raises:
        InvalidRequestError: The inputs are others, of another type or shape, or too many.
    """
    if manifest.features:
        return read_ragged_tensors(request, FEATURES, most)
    if any(tensor.name == INPUT_IDS for tensor in request.inputs):
        return read_ragged_tensors(request, INPUT_IDS, most)
    return read_strings(request, most)


def read_strings(request: pb.ModelInferRequest, most: int) -> Sequence[bytes]:
    """The strings of a request's only input, at most `most`.

    Raises:
        InvalidRequestError: It is not one BYTES tensor `text` of shape [n, 1] or [n] that holds n strings, or they are
            too many.
    """
    if len(request.inputs) != 1 or request.inputs[0].name != TEXT:
        names = ", ".join(shown(tensor.name) for tensor in request.inputs[:3]) or "none"
        raise InvalidRequestError(f"expected one input named {TEXT!r}, got {len(request.inputs)}: {names}")
    tensor = request.inputs[0]
    shape = tensor.shape[:3]
    if tensor.datatype != "BYTES" or len(shape) not in (1, 2) or shape[0] < 0 or shape[1:] not in ([], [1]):
        raise InvalidRequestError(f"input {TEXT!r} must be BYTES of shape [n, 1], got {told(tensor.datatype)} {shape}")
    if len(request.raw_input_contents) > 1:
        raise InvalidRequestError(f"one input, but {len(request.raw_input_contents)} raw contents")
    if request.raw_input_contents:
        strings: Sequence[bytes] = unpack_bytes(request.raw_input_contents[0], most)
    else:
        strings = tensor.contents.bytes_contents
    if len(strings) != shape[0]:
        raise InvalidRequestError(f"input {TEXT!r} declares {shape[0]} strings and holds {len(strings)}")
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
                f"raw contents of {TEXT!r} hold more than {most} strings (--max-sequences); split it"
            )
        if position + 4 > len(raw):
            raise InvalidRequestError(f"raw contents of {TEXT!r} end within a length, at byte {position}")
        (size,) = struct.unpack_from("<I", raw, position)
        position += 4
        if position + size > len(raw):
            raise InvalidRequestError(f"raw contents of {TEXT!r} end within a string of {size} bytes")
        strings.append(raw[position : position + size])
        position += size
    return strings
