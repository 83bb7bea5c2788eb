"""One float32 array [lines, dimension], as `numpy.load` reads it, also memory-mapped."""

from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from birnn.encodings import EncoderInfo
from birnn.vector_files.vector_file import EncodedLines, VectorFile


class GrowingArray:
    """A .npy file of float32 rows whose number is known only at the end.

    Args:
        path: The file.
        width: Floats in a row.
    """

    def __init__(self, path: Path, width: int) -> None:
        self._width = width
        self._rows = 0
        self._file: BinaryIO = path.open("wb")
        self._write_header()

    def append(self, rows: NDArray[np.float32]) -> None:
        """Add rows."""
        self._file.write(rows.astype("<f4", copy=False).tobytes())
        self._rows += len(rows)

    def close(self) -> None:
        """Write the number of rows into the header, for which numpy leaves room there."""
        end = self._file.tell()
        self._file.seek(0)
        self._write_header()
        assert end == self._file.tell() + self._rows * self._width * 4, "the header has grown"
        self._file.close()

    def _write_header(self) -> None:
        header = {"descr": "<f4", "fortran_order": False, "shape": (self._rows, self._width)}
        np.lib.format.write_array_header_1_0(self._file, header)


class NpyFile(VectorFile):
    """Rows are aligned with the lines of the input; those of failed ones are NaN."""

    def __init__(self, path: Path, info: EncoderInfo, tokens: bool) -> None:
        super().__init__(path, info, tokens)
        self._array: GrowingArray | None = None

    def _open(self) -> None:
        self._array = GrowingArray(self._partial, self._info.dimension)

    def write(self, part: EncodedLines) -> None:
        """Add rows."""
        assert self._array is not None
        self._array.append(part.vectors)

    def _close(self, complete: bool) -> None:
        assert self._array is not None
        self._array.close()
