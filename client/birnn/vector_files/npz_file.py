"""Several arrays in one uncompressed zip file, as `numpy.load` reads it.

Pooled: `embeddings` float32 [n, dimension], NaN where failed. Per token: `tokens` float32 [all tokens, token_dimension]
and `offsets` int64 [n + 1], so that line i has tokens[offsets[i]:offsets[i + 1]]. Both: `line` int64 [n], `failed`
int64 [k] (positions of failed lines) with `reason` str [k], and `encoder` and `version`.
"""

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from birnn.encodings import EncoderInfo
from birnn.vector_files.npy_file import GrowingArray
from birnn.vector_files.vector_file import EncodedLines, VectorFile


class NpzFile(VectorFile):
    """The embeddings grow in a file beside, which goes into the archive at the end."""

    holds_tokens = True

    def __init__(self, path: Path, info: EncoderInfo, tokens: bool) -> None:
        super().__init__(path, info, tokens)
        self._member = self._partial.with_suffix(".npy")
        self._array: GrowingArray | None = None
        self._count = 0
        self._lines: list[NDArray[np.int64]] = []
        self._lengths: list[NDArray[np.int64]] = []
        self._failed: list[int] = []
        self._reasons: list[str] = []

    def _open(self) -> None:
        width = self._info.token_dimension if self._of_tokens else self._info.dimension
        self._array = GrowingArray(self._member, width)

    def write(self, part: EncodedLines) -> None:
        """Add rows."""
        assert self._array is not None
        for rows in part.tokens if self._of_tokens else [part.vectors]:
            self._array.append(rows)
        self._lines.append(np.array([line.number for line in part.lines], np.int64))
        self._lengths.append(part.reply.lengths)
        self._failed += [self._count + error.index for error in part.reply.errors]
        self._reasons += [error.reason for error in part.reply.errors]
        self._count += len(part.lines)

    def _close(self, complete: bool) -> None:
        assert self._array is not None
        try:
            self._array.close()
            if complete:
                self._write_archive()
        finally:
            self._member.unlink(missing_ok=True)

    def _write_archive(self) -> None:
        nothing = np.empty(0, np.int64)
        arrays = {
            "line": np.concatenate([nothing, *self._lines]),
            "failed": np.array(self._failed, np.int64),
            "reason": np.array(self._reasons, np.str_),
            "encoder": np.array(self._info.name),
            "version": np.array(self._info.version),
        }
        if self._of_tokens:
            lengths = np.concatenate([nothing, *self._lengths])
            arrays["offsets"] = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        with zipfile.ZipFile(self._partial, "w", zipfile.ZIP_STORED) as archive:
            archive.write(self._member, "tokens.npy" if self._of_tokens else "embeddings.npy")
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
