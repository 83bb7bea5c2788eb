"""Checks and converts the input of a client: one sequence or many, and the timeout."""

import io
import math
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

# A sequence is a string, its UTF-8 bytes, or float features [length, F].
Item = str | bytes
Features = NDArray[np.floating[Any]]
# An input is many sequences or a single one.
Strings = Iterable[Item] | Item
FeatureArrays = Iterable[Features] | Features


def is_single(sequences: object) -> bool:
    """Return whether the input is a single sequence: a str, bytes or a matrix."""
    return isinstance(sequences, str | bytes) or (isinstance(sequences, np.ndarray) and sequences.ndim == 2)


def rows(sequences: Any) -> Iterator[Any]:
    """Iterate over the sequences of an input.

    Raises:
        TypeError: The input does not iterate over its rows, or has no order. The message says what to write instead.
    """
    if is_single(sequences):
        return iter([sequences])
    kind = type(sequences).__name__
    if isinstance(sequences, AsyncIterable):
        advice = "asynchronously; only the streams of AsyncClient take it"
    elif isinstance(sequences, Mapping):
        advice = "its keys; pass list(x.values()), or one column of it"
    elif hasattr(type(sequences), "columns"):  # of pandas, polars, pyarrow and others
        advice = "its columns; pass one column, for example x['smiles']"
    elif isinstance(sequences, Set):
        advice = "its items in no order, which results cannot be aligned with; pass a list"
    elif isinstance(sequences, bytearray | memoryview):
        advice = "its bytes as numbers; pass bytes(x)"
    elif isinstance(sequences, io.IOBase):
        advice = "its lines with their ends; pass x.read().splitlines()"
    else:
        return iter(sequences)
    raise TypeError(f"sequences are given as a {kind}, which iterates {advice}")


def checked_timeout(timeout: float | None) -> float | None:
    """Return the timeout in seconds, or None for no limit. An infinite timeout is no limit.

    Raises:
        ValueError: The timeout is NaN.
    """
    if timeout is None or timeout == math.inf:
        return None
    if math.isnan(timeout):
        raise ValueError("timeout is nan; give seconds, or None for no limit")
    return timeout


def utf8(sequence: Item, index: int) -> bytes:
    """Return a sequence as the bytes to send.

    Args:
        sequence: The sequence.
        index: Its position in the input, for the error message.

    Raises:
        TypeError: The sequence is neither str nor bytes.
    """
    if isinstance(sequence, bytes):
        return sequence
    if isinstance(sequence, str):
        # A lone surrogate has no valid UTF-8. The server fails only this sequence, with NOT_UTF8.
        return sequence.encode("utf-8", "surrogatepass")
    hint = "; float features go to encode_features" if isinstance(sequence, np.ndarray) else ""
    if isinstance(sequence, Mapping):
        hint = "; pass one column: [row['smiles'] for row in rows]"
    kind = type(sequence).__name__
    raise TypeError(f"sequence {index} is {sequence!r:.80}, a {kind}, and not a str or bytes{hint}")
