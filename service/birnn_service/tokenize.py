"""Tokenizing strings: some of a request's in, one ragged batch out."""

from collections.abc import Sequence

import numpy as np

from birnn_bundle.errors import ItemError, ItemErrorCode
from birnn_bundle.tokenizer import Tokenized, Tokenizer


def tokenize(
    tokenizer: Tokenizer, sequences: Sequence[bytes], *, max_length: int, max_bytes: int, truncate: bool
) -> Tokenized:
    """Tokenize strings.

    Sequences of more than `max_bytes` bytes fail before they are looked at, whether truncation is asked for or not.
    """
    oversized = [index for index, sequence in enumerate(sequences) if len(sequence) > max_bytes]
    if not oversized:
        return tokenizer.tokenize(sequences, max_length, truncate)
    kept = np.delete(np.arange(len(sequences), dtype=np.intp), oversized)
    rest = tokenizer.tokenize([sequences[index] for index in kept.tolist()], max_length, truncate)
    errors = [ItemError(int(kept[error.index]), error.code, error.reason) for error in rest.errors]
    errors += [
        ItemError(
            index,
            ItemErrorCode.TOO_LONG,
            f"the sequence has {len(sequences[index])} bytes and this server accepts {max_bytes}; shorten it",
        )
        for index in oversized
    ]
    errors.sort(key=lambda error: error.index)
    return Tokenized(rest.batch, kept[rest.rows], rest.unknown, rest.truncated, errors)
