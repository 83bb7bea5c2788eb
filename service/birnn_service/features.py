"""Reading sequences of float features: what tokenizing is for strings."""

import numpy as np

from birnn_bundle.errors import ItemError, ItemErrorCode
from birnn_bundle.ragged import RaggedBatch, offsets_of
from birnn_bundle.tokenizer import Tokenized, too_long
from birnn_service.errors import InvalidRequestError


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
    lengths = batch.lengths
    broken = batch.count(np.asarray(~np.isfinite(batch.values).all(axis=1)))
    over = np.maximum(lengths - max_length, 0)
    good = (lengths > 0) & (broken == 0) & ((over == 0) | truncate)
    errors = [_error(batch, row, max_length, truncate) for row in np.flatnonzero(~good).tolist()]
    rows = np.flatnonzero(good)
    kept = batch if len(rows) == len(batch) else batch.take(rows)
    over = over[rows]
    if over.any():
        steps = np.arange(kept.tokens) - np.repeat(kept.offsets[:-1], kept.lengths)
        kept = RaggedBatch(kept.values[steps < max_length], offsets_of(kept.lengths - over))
    return Tokenized(kept, rows, np.zeros(len(rows), dtype=np.int64), over, errors)


def _error(batch: RaggedBatch, row: int, max_length: int, truncate: bool) -> ItemError:
    values = batch.row(row)
    if not len(values):
        return ItemError(row, ItemErrorCode.EMPTY, "the sequence is empty; leave it out or send at least one step")
    if len(values) > max_length and not truncate:
        error = too_long(len(values), max_length)
        return ItemError(row, error.code, str(error))
    step, feature = (int(axis) for axis in np.argwhere(~np.isfinite(values))[0])
    return ItemError(
        row,
        ItemErrorCode.NOT_FINITE,
        f"feature {feature} of step {step} is {values[step, feature]}; send finite numbers",
    )
