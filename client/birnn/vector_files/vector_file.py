"""What all files of encodings have in common: parts are written, and the file appears once all are."""

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
"""Code of a line that the reader of the file could not take a sequence from."""


class VectorFileError(Exception):
    """A file cannot be written; the message says why and what to do."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say of which file it is that it cannot be written; raises VectorFileError for an OSError."""
    try:
        yield
    except OSError as error:
        raise VectorFileError(f"{path}: cannot be written ({error.strerror or error})") from error


@dataclass(frozen=True, slots=True)
class Failure:
    """A line that has no encoding.

    Attributes:
        index: Its position among those lines.
        code: What kind of error it is: the name of an `ItemErrorCode`, or `MALFORMED`.
        reason: What is wrong.
    """

    index: int
    code: str
    reason: str


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

    def failures(self) -> list[Failure]:
        """The lines that have no encoding, by ascending position."""
        # A malformed record is sent as an empty sequence, which keeps rows and lines aligned; the server refuses it.
        failures = {error.index: Failure(error.index, error.code.name, error.reason) for error in self.reply.errors}
        for index, line in enumerate(self.lines):
            if line.problem is not None:
                failures[index] = Failure(index, MALFORMED, line.problem)
        return [failures[index] for index in sorted(failures)]

    def reasons(self) -> list[str | None]:
        """Why each line has no encoding; None for those that have one."""
        reasons: list[str | None] = [None] * len(self.lines)
        for failure in self.failures():
            reasons[failure.index] = failure.reason
        return reasons

    def noticed_tokens(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """How many tokens of each line were unknown, and how many were cut from its end: int64 [n] each."""
        unknown, truncated = np.zeros((2, len(self.lines)), np.int64)
        for notice in self.reply.notices:
            unknown[notice.index], truncated[notice.index] = notice.unknown_tokens, notice.truncated_tokens
        return unknown, truncated


def readable(sequence: bytes) -> str:
    """A sequence as text; bytes that are not UTF-8 as \\xNN."""
    return sequence.decode("utf-8", "backslashreplace")


class VectorFile(ABC):
    """A file of encodings that is being written. Leaving its context completes it, or drops it after an error.

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
        """Add the next lines.

        Raises:
            VectorFileError: They cannot be written.
        """
        with writing(self.path):
            self._add(part)

    def _end(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self._complete()

    @abstractmethod
    def _begin(self, file: BinaryIO, stack: ExitStack) -> None:
        """Begin to write to a file; what goes onto the stack is closed before the file is."""

    @abstractmethod
    def _add(self, part: EncodedLines) -> None:
        """Write the next lines."""

    def _complete(self) -> None:  # noqa: B027 - not every format has an end
        """Write what comes after the last lines."""
