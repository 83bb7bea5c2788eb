"""The .npy format: one float32 array [lines, dimension]. `numpy.load` can read or memory-map it."""

import os
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from birnn.encodings import EncoderInfo
from birnn.vector_files.vector_file import EncodedLines, VectorFile


class GrowingArray:
    """Writes a .npy file of float32 rows whose number is known only at the end.

    Args:
        file: The file to write, from its beginning.
        width: Number of floats per row.
    """

    def __init__(self, file: BinaryIO, width: int) -> None:
        self._width = width
        self._rows = 0
        self._file = file
        self._write_header()

    def append(self, rows: NDArray[np.float32]) -> None:
        """Append rows.

        Args:
            rows: float32 [n, width].
        """
        self._file.write(rows.astype("<f4", copy=False).tobytes())
        self._rows += len(rows)

    def complete(self) -> None:
        """Write the number of rows into the header, which has space reserved for it by numpy."""
        self._file.seek(0)
        self._write_header()
        self._file.seek(0, os.SEEK_END)

    def _write_header(self) -> None:
        header = {"descr": "<f4", "fortran_order": False, "shape": (self._rows, self._width)}
        np.lib.format.write_array_header_1_0(self._file, header)


class NpyFile(VectorFile):
    """A .npy file. Its rows are aligned with the lines of the input. Rows of failed lines are NaN."""

    def __init__(self, path: Path, info: EncoderInfo, tokens: bool) -> None:
        super().__init__(path, info, tokens)
        self._array: GrowingArray | None = None

    def _begin(self, file: BinaryIO, stack: ExitStack) -> None:
        self._array = GrowingArray(file, self._info.dimension)

    def _add(self, part: EncodedLines) -> None:
        assert self._array is not None
        self._array.append(part.vectors)

    def _complete(self) -> None:
        assert self._array is not None
        self._array.complete()
