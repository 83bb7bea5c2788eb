"""Reading sequences of token ids, of callers who tokenize themselves: what tokenizing is for strings."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from birnn_bundle.errors import ItemErrorCode
from birnn_bundle.ragged import RaggedBatch
from birnn_bundle.tokenizer import SequenceError, Tokenized
from birnn_service.ragged_input import read_batch


def read_ids(batch: RaggedBatch, vocab_size: int, *, max_length: int, truncate: bool) -> Tokenized:
    """Check sequences; empty and long ones, and those with an id that the encoder does not have, fail alone.

    Args:
        batch: The sequences.
        vocab_size: One more than the highest id of the encoder.
        max_length: Most tokens of a sequence.
        truncate: Cut longer ones at their end instead of failing them.
    """

    def strange(ids: NDArray[Any], position: int) -> SequenceError:
        return SequenceError(
            ItemErrorCode.UNKNOWN_CHARACTERS,
            f"token {position} is {ids[position]}, and the ids of this encoder go from 0 to {vocab_size - 1}; send "
            "those of its tokenizer.json",
        )

    # Negative ids are large ones, seen as unsigned.
    broken = np.asarray(batch.ids.view(np.uint32) >= vocab_size)
    return read_batch(batch, broken, strange, max_length=max_length, truncate=truncate)
