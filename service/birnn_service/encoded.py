"""The outcome of one request, and its numbers in the type that was asked for."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from birnn_bundle.errors import ItemError, ItemErrorCode
from birnn_bundle.ragged import RaggedBatch
from birnn_bundle.record import record
from birnn_bundle.tokenizer import Tokenized
from birnn_service.catalog import Encoder
from birnn_service.engine.engine import Output
from birnn_service.queueing.request import Computed
from birnn_service.vectors import ElementType, as_type, normalized


@dataclass(frozen=True, slots=True)
class Notice:
    """A sequence that was encoded, but not quite as it was sent."""

    index: int
    unknown_tokens: int
    truncated_tokens: int


@record
class Encoded:
    """The outcome of one request.

    Attributes:
        encoder: Which encoder and version answered.
        output: What its values are.
        values: Pooled: [sequences, D], the rows of failed items NaN (int8: 0). Tokens: [tokens, 2H], sequences back to
            back, failed items without rows. float32, or what was asked for.
        scales: With int8 the factor of each row, float32, NaN for failed items; else None.
        lengths: Tokens of each sequence, 0 for failed items, int64 [sequences].
        errors: Items without an encoding, by ascending index.
        notices: Items with unknown or cut tokens, by ascending index.
        batch: What was encoded, in order, without the items that could not be tokenized.
        tokenize, queue, compute: Where the time went, in seconds.
    """

    encoder: Encoder
    output: Output
    values: NDArray[Any]
    lengths: NDArray[np.int64]
    errors: list[ItemError]
    notices: list[Notice]
    batch: RaggedBatch
    tokenize: float
    queue: float
    compute: float
    scales: NDArray[np.float32] | None = None


def noted_in(tokenized: Tokenized) -> list[int]:
    """Positions, among the sequences that could be read, of those that were not read quite as they were sent."""
    noted: list[int] = (tokenized.unknown + tokenized.truncated).nonzero()[0].tolist()
    return noted


def assemble(
    encoder: Encoder, tokenized: Tokenized, noted: list[int], computed: Computed, output: Output, seconds: float
) -> Encoded:
    """The outcome of a request that was tokenized, in `seconds`, and computed: aligned with its sequences.

    Args:
        encoder: Which answered.
        tokenized: The sequences.
        noted: As `noted_in` finds them.
        computed: The encodings of those that could be read.
        output: What these are.
        seconds: That tokenizing took.
    """
    count = tokenized.sequences
    lengths, values = tokenized.batch.lengths, computed.values
    if tokenized.errors:
        lengths = np.zeros(count, dtype=np.int64)
        lengths[tokenized.rows] = tokenized.batch.lengths
    if output is Output.POOLED and tokenized.errors:
        values = np.full((count, computed.values.shape[1]), np.nan, dtype=np.float32)
        values[tokenized.rows] = computed.values
    notices = [
        Notice(int(tokenized.rows[item]), int(tokenized.unknown[item]), int(tokenized.truncated[item]))
        for item in noted
    ]
    return Encoded(
        encoder,
        output,
        values,
        lengths,
        tokenized.errors,
        notices,
        tokenized.batch,
        seconds,
        computed.queue,
        computed.compute,
    )


def in_form(encoded: Encoded, element_type: ElementType, *, normalize: bool) -> Encoded:
    """An outcome in float32, with vectors of length 1 if asked for, in another element type.

    Items with a number beyond the range of the type fail, and none becomes infinite.
    """
    given = normalized(encoded.values) if normalize else encoded.values
    vectors = as_type(given, element_type)
    if element_type is ElementType.FLOAT32:
        return replace(encoded, values=vectors.values)
    item_of = np.arange(len(encoded.lengths))
    if encoded.output is Output.TOKENS:
        item_of = np.repeat(item_of, encoded.lengths)
    items, firsts = np.unique(item_of[vectors.overflown], return_index=True)
    if not len(items):
        return replace(encoded, values=vectors.values, scales=vectors.scales)
    largest = np.abs(given[vectors.overflown[firsts]]).max(axis=1)
    errors = [
        ItemError(
            item,
            ItemErrorCode.OUT_OF_RANGE,
            f"the encoding holds a number of size {number:.6g}, beyond the range of {element_type.value}; "
            "ask for float32",
        )
        for item, number in zip(items.tolist(), largest.tolist(), strict=True)
    ]
    failed = np.isin(item_of, items)
    if encoded.output is Output.TOKENS:
        vectors = vectors.select(~failed)
    else:
        vectors.clear(failed)
    lengths = encoded.lengths.copy()
    lengths[items] = 0
    return replace(
        encoded,
        values=vectors.values,
        scales=vectors.scales,
        lengths=lengths,
        errors=sorted([*encoded.errors, *errors], key=lambda error: error.index),
        notices=[notice for notice in encoded.notices if lengths[notice.index]],
    )
