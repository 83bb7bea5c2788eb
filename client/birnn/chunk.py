"""Checks the reply to a request and unpacks it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from birnn.encodings import ItemError, ItemErrorCode, ItemNotice, Reply, Timings
from birnn.errors import InconsistentReplyError
from birnn.v1 import encoder_pb2 as pb

# The numpy type of each element type of a reply.
DTYPES: dict[int, np.dtype[Any]] = {
    pb.ELEMENT_TYPE_FLOAT32: np.dtype("<f4"),
    pb.ELEMENT_TYPE_FLOAT16: np.dtype("<f2"),
    pb.ELEMENT_TYPE_INT8: np.dtype("i1"),
}
SCALE_TYPE = np.dtype("<f4")
# How much the length of a normalized vector may differ from 1, in addition to the rounding of int8. float16 rounds to
# a relative 2^-11.
LENGTH_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Chunk(Reply):
    """The unpacked reply to one request. Indices count from the first sequence of the request.

    Attributes:
        matrix: float32 [n, dimension], or [tokens, token_dimension] for per-token encodings. It is a read-only view of
            a float32 reply, and a copy of any other reply.
    """

    matrix: NDArray[np.float32]


def unpack(request: pb.EncodeRequest, reply: pb.EncodeResponse) -> Chunk:
    """Check and unpack the reply to a request.

    Raises:
        InconsistentReplyError: The reply does not match the request.
    """
    sent = len(request.sequences) or len(request.lengths)
    lengths = np.array(reply.lengths, dtype=np.int64)
    rows = int(lengths.sum()) if request.output == pb.OUTPUT_TOKENS else sent
    dtype = _element_type(request, reply)
    shape, size = tuple(reply.shape), len(reply.embeddings)
    if len(lengths) != sent or len(shape) != 2 or shape[0] != rows or size != shape[0] * shape[1] * dtype.itemsize:
        raise InconsistentReplyError(
            f"{sent} sequences were sent, and the reply has {len(lengths)} lengths, shape {shape}, {size} bytes"
        )
    matrix = np.frombuffer(reply.embeddings, dtype).reshape(shape)
    rounding = np.zeros((1, 1), SCALE_TYPE)
    if reply.element_type == pb.ELEMENT_TYPE_INT8:
        rounding = _scales(reply, rows)
        matrix = np.multiply(matrix, rounding, dtype=np.float32)
    matrix = matrix.astype(np.float32, copy=False)
    if request.normalize:
        _check_normalized(matrix, rounding)
    timings = reply.timings
    return Chunk(
        encoder=reply.encoder,
        version=reply.version,
        engines=(reply.engine,) if reply.engine else (),
        lengths=lengths,
        errors=tuple(ItemError(e.index, ItemErrorCode(e.code), e.reason) for e in reply.errors),
        notices=tuple(ItemNotice(n.index, n.unknown_tokens, n.truncated_tokens) for n in reply.notices),
        timings=(Timings(timings.tokenize, timings.queue, timings.compute, timings.total),),
        matrix=matrix,
    )


def _element_type(request: pb.EncodeRequest, reply: pb.EncodeResponse) -> np.dtype[Any]:
    # Servers that support only float32 do not name the element type.
    sent = DTYPES.get(reply.element_type or pb.ELEMENT_TYPE_FLOAT32)
    asked = DTYPES[request.element_type or pb.ELEMENT_TYPE_FLOAT32]
    if sent is None:
        raise InconsistentReplyError(f"the reply holds elements of type {reply.element_type}; update this client")
    if sent != asked:
        raise InconsistentReplyError(
            f"{asked.name} was asked for and {sent.name} was sent: the server is older than this client "
            f"and does not know {asked.name}; update it, or ask for float32"
        )
    return sent


def _scales(reply: pb.EncodeResponse, rows: int) -> NDArray[np.float32]:
    """Return the scale of each row of an int8 reply, float32 [rows, 1]."""
    if len(reply.scales) != rows * SCALE_TYPE.itemsize:
        raise InconsistentReplyError(f"the reply has {rows} rows of int8 and {len(reply.scales)} bytes of scales")
    return np.frombuffer(reply.scales, SCALE_TYPE)[:, None]


def _check_normalized(matrix: NDArray[np.float32], rounding: NDArray[np.float32]) -> None:
    """Check that the vectors have length 1. Older servers ignore `normalize`, and only the lengths show that.

    Args:
        matrix: float32 [rows, width].
        rounding: The rounding unit of each row, float32 [rows or 1, 1]. Each number is off by at most half a unit, so
            the length of a row is off by at most sqrt(width) / 2 units.

    Raises:
        InconsistentReplyError: A vector does not have length 1.
    """
    lengths = np.sqrt(np.einsum("ij,ij->i", matrix, matrix))
    tolerance = LENGTH_TOLERANCE + rounding[:, 0] * (matrix.shape[1] ** 0.5 / 2)
    # Rows of failed sequences are NaN. All comparisons with NaN are false, so these rows pass.
    if ((lengths != 0) & (np.abs(lengths - 1) > tolerance)).any():
        raise InconsistentReplyError(
            "normalized vectors were asked for and others were sent: the server is older than this client "
            "and does not know normalize; update it"
        )
