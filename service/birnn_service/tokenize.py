"""Tokenizing a request: strings in, one ragged batch out."""

import asyncio
from collections.abc import Sequence

import numpy as np

from birnn_bundle.errors import ItemError, ItemErrorCode
from birnn_bundle.tokenizer import Tokenized, Tokenizer

# Up to so many bytes (about a millisecond) a request is tokenized on the event loop: a thread's hop would cost more.
INLINE_BYTES = 4096


async def tokenize(
    tokenizer: Tokenizer, sequences: Sequence[bytes], *, max_length: int, max_bytes: int, truncate: bool
) -> Tokenized:
    """Tokenize a request, a large one in a worker thread.

    Sequences of more than `max_bytes` bytes fail before they are looked at, whether truncation is asked for or not.
    """
    if sum(map(len, sequences)) <= INLINE_BYTES:
        return _tokenize(tokenizer, sequences, max_length, max_bytes, truncate)
    return await asyncio.to_thread(_tokenize, tokenizer, sequences, max_length, max_bytes, truncate)


def _tokenize(
    tokenizer: Tokenizer, sequences: Sequence[bytes], max_length: int, max_bytes: int, truncate: bool
) -> Tokenized:
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
