"""The .csv format: a text table with one record per line of the input.

The columns are `line`, `sequence`, `error`, `unknown_tokens`, `truncated_tokens`, and the vector in `e0`, `e1`, ... For
a failed line, the columns of the vector are empty.
"""

import csv
import io
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from birnn.encodings import EncoderInfo
from birnn.vector_files.vector_file import EncodedLines, VectorFile, readable


def header(width: int) -> list[str]:
    """Return the names of the columns for vectors of `width` floats."""
    return ["line", "sequence", "error", "unknown_tokens", "truncated_tokens", *(f"e{index}" for index in range(width))]


def records(part: EncodedLines) -> Iterator[list[str]]:
    """Yield the fields of each line."""
    counts = np.stack(part.noticed_tokens(), axis=1).tolist()
    for line, vector, reason, noticed in zip(part.lines, part.vectors, part.reasons(), counts, strict=True):
        start = [str(line.number), readable(line.sequence), reason or "", *map(str, noticed)]
        yield start + (digits(vector) if reason is None else [""] * len(vector))


def digits(vector: NDArray[np.float32]) -> list[str]:
    """Format each float with nine significant digits, which identify a float32 exactly."""
    return ["%.9g" % value for value in vector.tolist()]  # noqa: UP031 - half the time of an f-string


class CsvFile(VectorFile):
    """A .csv file with a header line."""

    def __init__(self, path: Path, info: EncoderInfo, tokens: bool) -> None:
        super().__init__(path, info, tokens)
        self._file: BinaryIO | None = None

    def _begin(self, file: BinaryIO, stack: ExitStack) -> None:
        self._file = file
        self._write([header(self._info.dimension)])

    def _add(self, part: EncodedLines) -> None:
        self._write(records(part))

    def _write(self, rows: Iterable[list[str]]) -> None:
        assert self._file is not None
        text = io.StringIO()
        csv.writer(text).writerows(rows)
        self._file.write(text.getvalue().encode())
