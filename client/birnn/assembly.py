"""Combines the replies to the parts of one input."""

from typing import Self

import numpy as np
from numpy.typing import NDArray

from birnn.chunk import Chunk
from birnn.encodings import EncoderInfo, Encodings, ItemError, ItemNotice, Timings, TokenEncodings
from birnn.errors import SequenceError


class Assembly:
    """Combines consecutive chunks. Pooled vectors are copied into one array, per-token vectors are not copied.

    Args:
        count: Number of sequences in all chunks together.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._filled = 0
        self._encoder, self._version = "", ""
        self._engines: dict[str, None] = {}  # in order, each once
        self._vectors = np.empty((0, 0), np.float32)
        self._tokens: list[NDArray[np.float32]] = []
        self._lengths = np.zeros(count, np.int64)
        self._errors: list[ItemError] = []
        self._notices: list[ItemNotice] = []
        self._timings: list[Timings] = []

    @classmethod
    def of_nothing(cls, info: EncoderInfo) -> "Assembly":
        """Return the result for an empty input: an array of the right width without rows."""
        assembly = cls(0)
        assembly._encoder, assembly._version = info.name, info.version
        assembly._vectors = np.empty((0, info.dimension), np.float32)
        return assembly

    def add_vectors(self, chunk: Chunk) -> None:
        """Add the next chunk of pooled encodings."""
        if self._filled == 0:
            self._vectors = np.empty((self._count, chunk.matrix.shape[1]), np.float32)
        self._vectors[self._filled : self._filled + len(chunk)] = chunk.matrix
        self._add(chunk)

    def add_tokens(self, chunk: Chunk) -> None:
        """Add the next chunk of per-token encodings."""
        self._tokens += by_sequence(chunk)
        self._add(chunk)

    def _add(self, chunk: Chunk) -> None:
        start = self._filled
        self._encoder, self._version = chunk.encoder, chunk.version
        self._engines.update(dict.fromkeys(chunk.engines))
        self._lengths[start : start + len(chunk)] = chunk.lengths
        self._errors += [ItemError(start + e.index, e.code, e.reason) for e in chunk.errors]
        self._notices += [ItemNotice(start + n.index, n.unknown_tokens, n.truncated_tokens) for n in chunk.notices]
        self._timings += chunk.timings
        self._filled += len(chunk)

    def checked(self, on_error: str) -> Self:
        """Apply the caller's `on_error` option.

        Returns:
            This assembly.

        Raises:
            SequenceError: Some sequences cannot be encoded, and `on_error` is "raise".
        """
        if self._errors and on_error == "raise":
            raise SequenceError(self._errors, self._count)
        return self

    def chunk(self) -> Chunk:
        """Return all chunks as one. For per-token encodings its matrix is empty."""
        assert self._filled == self._count, f"{self._filled} of {self._count} sequences have been answered"
        return Chunk(
            encoder=self._encoder,
            version=self._version,
            engines=tuple(self._engines),
            lengths=self._lengths,
            errors=tuple(self._errors),
            notices=tuple(self._notices),
            timings=tuple(self._timings),
            matrix=self._vectors,
        )

    def encodings(self) -> Encodings:
        """Return all chunks as one result."""
        return encodings(self.chunk())

    def token_encodings(self) -> TokenEncodings:
        """Return all chunks as one result, one vector per token."""
        return token_encodings(self.chunk(), self._tokens)


def encodings(chunk: Chunk) -> Encodings:
    """Convert a chunk of pooled encodings to a result."""
    return Encodings(
        encoder=chunk.encoder,
        version=chunk.version,
        engines=chunk.engines,
        lengths=chunk.lengths,
        errors=chunk.errors,
        notices=chunk.notices,
        timings=chunk.timings,
        vectors=chunk.matrix,
    )


def token_encodings(chunk: Chunk, tokens: list[NDArray[np.float32]] | None = None) -> TokenEncodings:
    """Convert a chunk of per-token encodings to a result.

    Args:
        chunk: The chunk.
        tokens: Rows of each sequence. By default, they are taken from the matrix of the chunk.
    """
    return TokenEncodings(
        encoder=chunk.encoder,
        version=chunk.version,
        engines=chunk.engines,
        lengths=chunk.lengths,
        errors=chunk.errors,
        notices=chunk.notices,
        timings=chunk.timings,
        tokens=by_sequence(chunk) if tokens is None else tokens,
    )


def by_sequence(chunk: Chunk) -> list[NDArray[np.float32]]:
    """Return the rows of each sequence of a per-token chunk, as views."""
    ends = np.cumsum(chunk.lengths).tolist()
    return [chunk.matrix[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
