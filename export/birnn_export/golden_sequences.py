"""The golden sequences of a bundle: a few of very different lengths, real ones where there are some."""

import numpy as np
from numpy.typing import NDArray

from birnn_bundle.ragged import RaggedBatch
from birnn_export.id_source import IdSource

COUNT = 12
# golden.safetensors holds a float32 vector for each token; a bundle should stay small enough for git.
TOKEN_BYTES = 1_600_000


def golden_sequences(source: IdSource, lengths: list[int], sequences: RaggedBatch | None = None) -> RaggedBatch:
    """One sequence for each of `lengths`: the one of `sequences` nearest in length, or `source` where none is near."""
    rows: list[NDArray[np.int32]] = []
    found = np.empty(0, dtype=np.int64) if sequences is None else sequences.lengths.copy()
    for length in lengths:
        distances = np.abs(found - length)
        if sequences is not None and len(found) and distances.min() <= length // 4:
            nearest = int(distances.argmin())
            rows.append(sequences.row(nearest))
            # Near to nothing any more: each is taken once.
            found[nearest] = np.iinfo(np.int64).max // 2
        else:
            rows.append(source.text(length))
    return RaggedBatch.from_lists(rows)


def golden_lengths(max_length: int, token_dimension: int) -> list[int]:
    """Up to `COUNT` lengths that grow by about the same factor from 1 to a long one.

    The long one is `max_length` tokens, unless all vectors of `token_dimension` floats would then take more than
    `TOKEN_BYTES`.
    """
    affordable = TOKEN_BYTES // (4 * token_dimension)
    longest = max_length
    while True:
        lengths = sorted({round(length) for length in np.geomspace(1, longest, COUNT)})
        if sum(lengths) <= affordable or longest == 1:
            return lengths
        longest = longest * 3 // 4
