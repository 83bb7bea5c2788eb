"""Sequences of float features in requests of the Open Inference Protocol.

Ragged tensors are not part of the protocol, so they come as two: `features`, FP32 [steps of all sequences, F], and
`lengths`, INT32 [sequences].
"""

from collections.abc import Sized
from math import prod

import numpy as np
from numpy.typing import NDArray

from birnn.openinference import inference_pb2 as pb
from birnn_bundle.quoting import shown, told
from birnn_bundle.ragged import RaggedBatch, offsets_of
from birnn_service.errors import InvalidRequestError

FEATURES, LENGTHS = "features", "lengths"


def read_feature_tensors(request: pb.ModelInferRequest, most: int) -> RaggedBatch:
    """The sequences of a request's inputs `features` and `lengths`, in either order.

    Args:
        request: Holds them.
        most: Most sequences.

    Raises:
        InvalidRequestError: They are missing, of another type or shape, too many, or do not belong together.
    """
    names = [tensor.name for tensor in request.inputs[:3]]
    if sorted(names) != [FEATURES, LENGTHS]:
        raise InvalidRequestError(
            f"expected the inputs {FEATURES!r} and {LENGTHS!r}, got [{', '.join(map(shown, names))}]"
        )
    raw = request.raw_input_contents
    if raw and len(raw) != 2:
        raise InvalidRequestError(f"two inputs, but {len(raw)} raw contents")
    tensors = {tensor.name: (tensor, raw[place] if raw else None) for place, tensor in enumerate(request.inputs)}
    features, content = tensors[FEATURES]
    if features.datatype != "FP32" or len(features.shape) != 2 or min(features.shape) < 0:
        raise _wrong(features, "FP32 of shape [steps of all sequences, F]")
    lengths_tensor, lengths_content = tensors[LENGTHS]
    if lengths_tensor.datatype != "INT32" or len(lengths_tensor.shape) != 1 or min(lengths_tensor.shape) < 0:
        raise _wrong(lengths_tensor, "INT32 of shape [sequences]")
    if lengths_tensor.shape[0] > most:
        raise InvalidRequestError(
            f"the request holds {lengths_tensor.shape[0]} sequences and this server accepts {most} in a call "
            "(--max-sequences); split it"
        )
    values = _values(features, content, "<f4", features.contents.fp32_contents)
    lengths = _values(lengths_tensor, lengths_content, "<i4", lengths_tensor.contents.int_contents).astype(np.int64)
    if (lengths < 0).any() or lengths.sum() != features.shape[0]:
        raise InvalidRequestError(
            f"input {LENGTHS!r} adds up to {lengths.sum()} steps, and {FEATURES!r} holds {features.shape[0]}"
        )
    try:
        matrix = values.astype(np.float32, copy=False).reshape(tuple(features.shape))
    except ValueError as error:  # of no elements, but an axis beyond all memory
        raise _wrong(features, "FP32 of shape [steps of all sequences, F]") from error
    return RaggedBatch(matrix, offsets_of(lengths))


def _values(
    tensor: pb.ModelInferRequest.InferInputTensor, raw: bytes | None, dtype: str, contents: Sized
) -> NDArray[np.generic]:
    """The elements of a tensor of one or two dimensions, flat; they are counted before they are read."""
    if raw is not None and len(raw) % 4:
        raise InvalidRequestError(f"raw contents of {tensor.name!r} end within an element, at byte {len(raw)}")
    size, held = prod(tensor.shape), len(contents) if raw is None else len(raw) // 4
    if held != size:
        raise InvalidRequestError(f"input {tensor.name!r} declares {size} elements and holds {held}")
    return np.array(contents, dtype=dtype) if raw is None else np.frombuffer(raw, dtype=dtype)


def _wrong(tensor: pb.ModelInferRequest.InferInputTensor, expected: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"input {tensor.name!r} must be {expected}, got {told(tensor.datatype)} {tensor.shape[:3]}"
    )
