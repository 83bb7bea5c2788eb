"""The base class of all files of encodings. Parts are written one by one, and the file appears when it is complete."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from birnn.encodings import EncoderInfo, Encodings, TokenEncodings
from birnn_bundle.atomic_file import replacing
from birnn_bundle.sequences import Line

MALFORMED = "MALFORMED"
"""Error code of a line that the file reader could not parse."""


class VectorFileError(Exception):
    """A file cannot be written. The message says why and what to do."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError inside the context into a VectorFileError that names the file.

    Raises:
        VectorFileError: The file cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise VectorFileError(f"{path}: cannot be written ({error.strerror or error})") from error


@dataclass(frozen=True, slots=True)
class Failure:
    """A line that could not be encoded.

    Attributes:
        index: Position of the line in its `EncodedLines`, from 0.
        code: The kind of error: the name of an `ItemErrorCode`, or `MALFORMED`.
        reason: What is wrong.
    """

    index: int
    code: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class EncodedLines:
    """Consecutive lines of an input, with their encodings and errors. `n` is the number of lines.

    Attributes:
        lines: The lines.
        reply: Their encodings and errors, aligned with `lines`.
    """

    lines: Sequence[Line]
    reply: Encodings | TokenEncodings

    @property
    def vectors(self) -> NDArray[np.float32]:
        """The vectors, float32 [n, dimension]. Rows of failed lines are NaN."""
        assert isinstance(self.reply, Encodings)
        return self.reply.vectors

    @property
    def tokens(self) -> list[NDArray[np.float32]]:
        """The vectors per token: for each line, float32 [length, token_dimension]. A failed line has no rows."""
        assert isinstance(self.reply, TokenEncodings)
        return self.reply.tokens

    def failures(self) -> list[Failure]:
        """Return the lines that could not be encoded, by ascending position."""
        # A malformed record is sent as an empty sequence, which the server refuses. So rows and lines stay aligned.
        failures = {error.index: Failure(error.index, error.code.name, error.reason) for error in self.reply.errors}
        for index, line in enumerate(self.lines):
            if line.problem is not None:
                failures[index] = Failure(index, MALFORMED, line.problem)
        return [failures[index] for index in sorted(failures)]

    def reasons(self) -> list[str | None]:
        """Return for each line why it could not be encoded, or None if it was encoded."""
        reasons: list[str | None] = [None] * len(self.lines)
        for failure in self.failures():
            reasons[failure.index] = failure.reason
        return reasons

    def noticed_tokens(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the number of unknown and of truncated tokens of each line: int64 [n] each."""
        unknown, truncated = np.zeros((2, len(self.lines)), np.int64)
        for notice in self.reply.notices:
            unknown[notice.index], truncated[notice.index] = notice.unknown_tokens, notice.truncated_tokens
        return unknown, truncated


def readable(sequence: bytes) -> str:
    """Return a sequence as text. Bytes that are not UTF-8 become \\xNN."""
    return sequence.decode("utf-8", "backslashreplace")


class VectorFile(ABC):
    """A file of encodings that is being written. The context manager completes it, or discards it after an error.

    Args:
        path: The file. It appears, or replaces an existing file, once everything is written.
        info: The encoder.
        tokens: Whether the file holds one vector per token instead of one per sequence.

    Attributes:
        holds_tokens: Whether the format can hold per-token encodings.
    """

    holds_tokens: ClassVar[bool] = False

    def __init__(self, path: Path, info: EncoderInfo, tokens: bool) -> None:
        self.path = path
        self._info = info
        self._of_tokens = tokens
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with writing(self.path), ExitStack() as stack:
            file = stack.enter_context(replacing(self.path))
            self._begin(file, stack)
            stack.push(self._end)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with writing(self.path):
            self._stack.__exit__(kind, error, trace)

    def write(self, part: EncodedLines) -> None:
        """Write the next lines.

        Args:
            part: The lines, with their encodings.

        Raises:
            VectorFileError: The lines cannot be written.
        """
        with writing(self.path):
            self._add(part)

    def _end(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self._complete()

    @abstractmethod
    def _begin(self, file: BinaryIO, stack: ExitStack) -> None:
        """Start writing to `file`. Resources on `stack` are closed before the file."""

    @abstractmethod
    def _add(self, part: EncodedLines) -> None:
        """Write the next lines."""

    def _complete(self) -> None:  # noqa: B027 - not every format has an end
        """Write the end of the file, after the last lines."""
