"""Reading sequences of float features: what tokenizing is for strings."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from birnn_bundle.errors import ItemErrorCode
from birnn_bundle.ragged import RaggedBatch, offsets_of
from birnn_bundle.tokenizer import SequenceError, Tokenized
from birnn_service.errors import InvalidRequestError
from birnn_service.ragged_input import read_batch


def batch_of(values: bytes, lengths: list[int]) -> RaggedBatch:
    """Sequences of features from the bytes of a request.

    Args:
        values: float32, little-endian, row-major, [sum of lengths, F].
        lengths: Steps of each sequence.

    Raises:
        InvalidRequestError: The bytes are not of as many steps as the lengths say.
    """
    steps = sum(lengths)
    if len(values) % (4 * steps or 4) or (not steps and values):
        raise InvalidRequestError(
            f"the features are {len(values)} bytes, which are not {steps} steps (the sum of the lengths) of float32"
        )
    matrix = np.frombuffer(values, dtype="<f4").reshape(steps, -1 if steps else 0)
    return RaggedBatch(matrix.astype(np.float32, copy=False), offsets_of(np.array(lengths, dtype=np.int64)))


def check_width(batch: RaggedBatch, width: int) -> None:
    """Refuse sequences of another number of features than the `width` that an encoder reads.

    Raises:
        InvalidRequestError: They have another number.
    """
    if batch.tokens and batch.features != width:
        raise InvalidRequestError(f"the sequences have {batch.features} features a step and this encoder reads {width}")


def read_features(batch: RaggedBatch, *, max_length: int, truncate: bool) -> Tokenized:
    """Check sequences; empty, long and not finite ones fail alone.

    Args:
        batch: The sequences.
        max_length: Most steps of a sequence.
        truncate: Cut longer ones instead of failing them.
    """
    broken = np.asarray(~np.isfinite(batch.values).all(axis=1))
    return read_batch(batch, broken, _error, max_length=max_length, truncate=truncate)


def _error(values: NDArray[Any], step: int) -> SequenceError:
    feature = int(np.flatnonzero(~np.isfinite(values[step]))[0])
    return SequenceError(
        ItemErrorCode.NOT_FINITE,
        f"feature {feature} of step {step} is {values[step, feature]}; send finite numbers",
    )
