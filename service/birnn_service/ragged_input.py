"""Sequences that come as the tokens that the encoder reads, and not as strings: which can be encoded, and why not."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from birnn_bundle.errors import ItemError, ItemErrorCode
from birnn_bundle.ragged import RaggedBatch
from birnn_bundle.tokenizer import SequenceError, Tokenized, too_long


def read_batch(
    batch: RaggedBatch,
    broken: NDArray[np.bool_],
    reason: Callable[[NDArray[Any], int], SequenceError],
    *,
    max_length: int,
    truncate: bool,
) -> Tokenized:
    """Check sequences; empty and long ones, and those with a broken token, fail alone.

    Args:
        batch: The sequences.
        broken: Which tokens the encoder cannot read [tokens].
        reason: Says what is wrong, from the tokens of a sequence and the position of its first broken one.
        max_length: Most tokens of a sequence.
        truncate: Cut longer ones instead of failing them.
    """
    lengths = batch.lengths
    over = np.maximum(lengths - max_length, 0)
    good = (lengths > 0) & (batch.count(broken) == 0) & ((over == 0) | truncate)

    def error(row: int) -> SequenceError:
        if not lengths[row]:
            return SequenceError(
                ItemErrorCode.EMPTY, "the sequence is empty; leave it out or send at least one token or step"
            )
        if over[row] and not truncate:
            return too_long(int(lengths[row]), max_length)
        return reason(batch.row(row), int(np.argmax(broken[batch.offsets[row] :])))

    errors = []
    for row in np.flatnonzero(~good).tolist():
        found = error(row)
        errors.append(ItemError(row, found.code, str(found)))
    rows = np.flatnonzero(good)
    kept = batch if len(rows) == len(batch) else batch.take(rows)
    return Tokenized(kept.cut(max_length), rows, np.zeros(len(rows), dtype=np.int64), over[rows], errors)
