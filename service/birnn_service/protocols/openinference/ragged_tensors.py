"""Sequences of token ids or of float features in requests of the Open Inference Protocol.

Ragged tensors are not part of the protocol, so they come as two: `input_ids`, INT32 [tokens of all sequences], or
`features`, FP32 [steps of all sequences, F], and beside them `lengths`, INT32 [sequences].
"""

from collections.abc import Sized
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from birnn.openinference import inference_pb2 as pb
from birnn_bundle.quoting import shown, told
from birnn_bundle.ragged import RaggedBatch, offsets_of
from birnn_service.errors import InvalidRequestError

FEATURES, INPUT_IDS, LENGTHS = "features", "input_ids", "lengths"
# Type of each, number of its dimensions, and what they are.
EXPECTED = {
    FEATURES: ("FP32", 2, "FP32 of shape [steps of all sequences, F]"),
    INPUT_IDS: ("INT32", 1, "INT32 of shape [tokens of all sequences]"),
    LENGTHS: ("INT32", 1, "INT32 of shape [sequences]"),
}


def read_ragged_tensors(request: pb.ModelInferRequest, name: str, most: int) -> RaggedBatch:
    """The sequences of a request's inputs `name` and `lengths`, in either order.

    Args:
        request: Holds them.
        name: `features` or `input_ids`.
        most: Most sequences.

    Raises:
        InvalidRequestError: They are missing, of another type or shape, too many, or do not belong together.
    """
    names = [tensor.name for tensor in request.inputs[:3]]
    if sorted(names) != sorted((name, LENGTHS)):
        raise InvalidRequestError(f"expected the inputs {name!r} and {LENGTHS!r}, got [{', '.join(map(shown, names))}]")
    raw = request.raw_input_contents
    if raw and len(raw) != 2:
        raise InvalidRequestError(f"two inputs, but {len(raw)} raw contents")
    tensors = {tensor.name: (tensor, raw[place] if raw else None) for place, tensor in enumerate(request.inputs)}
    for tensor, _ in tensors.values():
        _check(tensor)
    count, tokens = tensors[LENGTHS][0].shape[0], tensors[name][0].shape[0]
    if count > most:
        raise InvalidRequestError(
            f"the request holds {count} sequences and this server accepts {most} in a call (--max-sequences); split it"
        )
    values = _values(*tensors[name])
    lengths = _values(*tensors[LENGTHS]).astype(np.int64)
    if (lengths < 0).any() or lengths.sum() != tokens:
        raise InvalidRequestError(
            f"input {LENGTHS!r} adds up to {lengths.sum()} tokens or steps, and {name!r} holds {tokens}"
        )
    try:
        flat = values.reshape(tuple(tensors[name][0].shape))
    except ValueError as error:  # of no elements, but an axis beyond all memory
        raise _wrong(tensors[name][0]) from error
    return RaggedBatch(flat, offsets_of(lengths))


def _check(tensor: pb.ModelInferRequest.InferInputTensor) -> None:
    datatype, dimensions, _ = EXPECTED[tensor.name]
    if tensor.datatype != datatype or len(tensor.shape) != dimensions or min(tensor.shape) < 0:
        raise _wrong(tensor)


def _values(tensor: pb.ModelInferRequest.InferInputTensor, raw: bytes | None) -> NDArray[Any]:
    """The elements of a tensor, flat; they are counted before they are read."""
    floats = tensor.datatype == "FP32"
    dtype = "<f4" if floats else "<i4"
    contents: Sized = tensor.contents.fp32_contents if floats else tensor.contents.int_contents
    if raw is not None and len(raw) % 4:
        raise InvalidRequestError(f"raw contents of {tensor.name!r} end within an element, at byte {len(raw)}")
    size, held = prod(tensor.shape), len(contents) if raw is None else len(raw) // 4
    if held != size:
        raise InvalidRequestError(f"input {tensor.name!r} declares {size} elements and holds {held}")
    values = np.array(contents, dtype=dtype) if raw is None else np.frombuffer(raw, dtype=dtype)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _wrong(tensor: pb.ModelInferRequest.InferInputTensor) -> InvalidRequestError:
    return InvalidRequestError(
        f"input {tensor.name!r} must be {EXPECTED[tensor.name][2]}, got {told(tensor.datatype)} {tensor.shape[:3]}"
    )
