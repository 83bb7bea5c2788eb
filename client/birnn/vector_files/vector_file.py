"""What all files of encodings have in common: parts go to a temporary name, which becomes the real one at the end."""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from birnn.encodings import EncoderInfo, Encodings, TokenEncodings
from birnn.sequence_file import Line


class VectorFileError(Exception):
    """A file cannot be written; the message says why and what to do."""


@dataclass(frozen=True, slots=True, eq=False)
class EncodedLines:
    """Consecutive lines of an input, with what became of them.

    Attributes:
        lines: The lines.
        reply: Their encodings and errors, aligned.
    """

    lines: Sequence[Line]
    reply: Encodings | TokenEncodings

    @property
    def vectors(self) -> NDArray[np.float32]:
        """float32 [n, dimension], NaN where failed."""
        assert isinstance(self.reply, Encodings)
        return self.reply.vectors

    @property
    def tokens(self) -> list[NDArray[np.float32]]:
        """For each line float32 [length, token_dimension], without rows where failed."""
        assert isinstance(self.reply, TokenEncodings)
        return self.reply.tokens

    def reasons(self) -> list[str | None]:
        """Why each line has no encoding; None for those that have one."""
        reasons: list[str | None] = [None] * len(self.lines)
        for error in self.reply.errors:
            reasons[error.index] = error.reason
        return reasons


def readable(sequence: bytes) -> str:
    """A sequence as text; bytes that are not UTF-8 as \\xNN."""
    return sequence.decode("utf-8", "backslashreplace")


class VectorFile(ABC):
    """A file of encodings that is being written. Leaving its context completes it, or removes it after an error.

    Args:
        path: Where it will be once all is written; replaced if it exists.
        info: The encoder.
        tokens: One vector a token rather than a sequence.

    Attributes:
        holds_tokens: Whether the format can hold per-token encodings.
    """

    holds_tokens: ClassVar[bool] = False

    def __init__(self, path: Path, info: EncoderInfo, tokens: bool) -> None:
        self.path = path
        self._info = info
        self._of_tokens = tokens
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.partial")

    def __enter__(self) -> Self:
        try:
            self._open()
        except OSError as error:
            raise VectorFileError(f"{self.path}: {error.strerror or error}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._close(complete=error is None)
            if error is None:
                os.replace(self._partial, self.path)
        finally:
            self._partial.unlink(missing_ok=True)

    @abstractmethod
    def write(self, part: EncodedLines) -> None:
        """Add the next lines."""

    @abstractmethod
    def _open(self) -> None:
        """Begin the temporary file."""

    @abstractmethod
    def _close(self, complete: bool) -> None:
        """End the temporary file; it will be thrown away unless it is complete."""
