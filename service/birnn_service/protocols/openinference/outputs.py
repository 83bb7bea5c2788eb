"""The tensors of a reply: which ones a request asks for, and what is in them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from birnn.openinference import inference_pb2 as pb
from birnn_bundle.quoting import shown
from birnn_service.encoded import Encoded
from birnn_service.engine.engine import Output
from birnn_service.errors import InvalidRequestError
from birnn_service.protocols.item_errors import listed

EMBEDDING, TOKEN_EMBEDDINGS, LENGTHS = "embedding", "token_embeddings", "lengths"
# What each is made of.
VECTORS = {EMBEDDING: Output.POOLED, TOKEN_EMBEDDINGS: Output.TOKENS}
DATATYPES = {"f4": "FP32", "f2": "FP16", "i4": "INT32"}


def read_outputs(request: pb.ModelInferRequest) -> tuple[str, ...]:
    """Names of the outputs that a request asks for, vectors first; vectors of tokens have their lengths beside them.

    Raises:
        InvalidRequestError: There is no such output, or they cannot be had together.
    """
    names = {output.name for output in request.outputs} or {EMBEDDING}
    for name in names:
        if name not in VECTORS and name != LENGTHS:
            known = ", ".join(map(repr, (*VECTORS, LENGTHS)))
            raise InvalidRequestError(f"unknown output {shown(name)}; there are {known}")
    vectors = names & VECTORS.keys()
    if len(vectors) != 1:
        raise InvalidRequestError(
            f"ask for either {EMBEDDING!r} or {TOKEN_EMBEDDINGS!r}: each is a computation of its own"
        )
    (name,) = vectors
    return (name, LENGTHS) if name == TOKEN_EMBEDDINGS or LENGTHS in names else (name,)


def tensors_of(encoded: Encoded, names: tuple[str, ...]) -> Mapping[str, NDArray[Any]]:
    """Tensors of a reply by name, little-endian, in the order of `names`.

    Args:
        encoded: The outcome of the request; one with errors has no tensors.
        names: See `read_outputs`.

    Raises:
        InvalidRequestError: A sequence has no vectors.
    """
    if encoded.errors:
        raise InvalidRequestError(f"{len(encoded.errors)} sequences cannot be encoded: {listed(encoded.errors)}")
    values = encoded.values
    if names[0] == TOKEN_EMBEDDINGS:
        values = _padded(values, encoded.lengths)
    tensors = {names[0]: values.astype(values.dtype.newbyteorder("<"), copy=False)}
    if LENGTHS in names:
        tensors[LENGTHS] = encoded.lengths.astype("<i4")
    return tensors


def datatype_of(tensor: NDArray[Any]) -> str:
    """What the protocol calls the type of a tensor."""
    return DATATYPES[f"{tensor.dtype.kind}{tensor.dtype.itemsize}"]


def _padded(rows: NDArray[Any], lengths: NDArray[np.int64]) -> NDArray[Any]:
    """Vectors of tokens [tokens, D] as [sequences, longest, D], zeros behind the end of each sequence."""
    longest = int(lengths.max(initial=0))
    tensor = np.zeros((len(lengths), longest, rows.shape[1]), dtype=rows.dtype)
    tensor[np.arange(longest) < lengths[:, None]] = rows
    return tensor
