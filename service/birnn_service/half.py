"""Encodings as float16, for replies of half the size."""

from dataclasses import replace

import numpy as np

from birnn_bundle.errors import ItemError, ItemErrorCode
from birnn_service.engine.engine import Output
from birnn_service.pipeline import Encoded

LARGEST = float(np.finfo(np.float16).max)


def halved(encoded: Encoded, output: Output) -> Encoded:
    """Encodings rounded to float16; items with a number beyond its range fail, and none becomes infinite.

    Args:
        encoded: The outcome of a request.
        output: What its values are.
    """
    with np.errstate(over="ignore"):
        values = encoded.values.astype(np.float16)
    # Exponent all ones and mantissa zero: numpy's own test for infinity takes ten times as long on float16.
    rows = np.flatnonzero(((values.view(np.uint16) & 0x7FFF) == 0x7C00).any(axis=1))
    if not len(rows):
        return replace(encoded, values=values)
    item_of = np.arange(len(encoded.lengths))
    if output is Output.TOKENS:
        item_of = np.repeat(item_of, encoded.lengths)
    items, firsts = np.unique(item_of[rows], return_index=True)
    largest = np.abs(encoded.values[rows[firsts]]).max(axis=1)
    errors = [
        ItemError(
            item,
            ItemErrorCode.OUT_OF_RANGE,
            f"the encoding holds a number of size {number:.6g} and float16 ends at {LARGEST:.0f}; ask for float32",
        )
        for item, number in zip(items.tolist(), largest.tolist(), strict=True)
    ]
    failed = np.isin(item_of, items)
    if output is Output.TOKENS:
        values = values[~failed]
    else:
        values[failed] = np.nan
    lengths = encoded.lengths.copy()
    lengths[items] = 0
    return replace(
        encoded,
        values=values,
        lengths=lengths,
        errors=sorted([*encoded.errors, *errors], key=lambda error: error.index),
        notices=[notice for notice in encoded.notices if lengths[notice.index]],
    )
