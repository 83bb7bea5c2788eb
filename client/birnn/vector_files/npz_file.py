"""The .npz format: several arrays in one uncompressed zip file. `numpy.load` reads it.

- Pooled encodings: `embeddings` float32 [n, dimension]. Rows of failed lines are NaN.
- Per-token encodings: `tokens` float32 [all tokens, token_dimension] and `offsets` int64 [n + 1]. Line i has
  tokens[offsets[i]:offsets[i + 1]].
- Both: `line` int64 [n], `failed` int64 [k] (positions of the failed lines), `reason` str [k], `unknown_tokens` and
  `truncated_tokens` int64 [n], `encoder` and `version`.
"""

import shutil
import tempfile
import zipfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from birnn.encodings import EncoderInfo
from birnn.vector_files.npy_file import GrowingArray
from birnn.vector_files.vector_file import EncodedLines, VectorFile

COPIED_BYTES = 1 << 20


class NpzFile(VectorFile):
    """A .npz file. The vectors are first written to an unnamed temporary file in the same folder, then archived."""

    holds_tokens = True

    def __init__(self, path: Path, info: EncoderInfo, tokens: bool) -> None:
        super().__init__(path, info, tokens)
        self._file: BinaryIO | None = None
        self._member: BinaryIO | None = None
        self._array: GrowingArray | None = None
        self._count = 0
        self._lines: list[NDArray[np.int64]] = []
        self._lengths: list[NDArray[np.int64]] = []
        self._noticed: list[NDArray[np.int64]] = []
        self._failed: list[int] = []
        self._reasons: list[str] = []

    def _begin(self, file: BinaryIO, stack: ExitStack) -> None:
        width = self._info.token_dimension if self._of_tokens else self._info.dimension
        self._file = file
        self._member = cast(BinaryIO, tempfile.TemporaryFile(dir=self.path.parent))  # noqa: SIM115 - closed by the stack
        stack.callback(_close, self._member)
        self._array = GrowingArray(self._member, width)

    def _add(self, part: EncodedLines) -> None:
        assert self._array is not None
        for rows in part.tokens if self._of_tokens else [part.vectors]:
            self._array.append(rows)
        self._lines.append(np.array([line.number for line in part.lines], np.int64))
        self._lengths.append(part.reply.lengths)
        failures = part.failures()
        self._failed += [self._count + failure.index for failure in failures]
        self._reasons += [failure.reason for failure in failures]
        self._noticed.append(np.stack(part.noticed_tokens()))
        self._count += len(part.lines)

    def _complete(self) -> None:
        assert self._array is not None
        assert self._member is not None
        assert self._file is not None
        self._array.complete()
        self._member.seek(0)
        nothing = np.empty(0, np.int64)
        unknown, truncated = np.concatenate([np.empty((2, 0), np.int64), *self._noticed], axis=1)
        arrays = {
            "unknown_tokens": unknown,
            "truncated_tokens": truncated,
            "line": np.concatenate([nothing, *self._lines]),
            "failed": np.array(self._failed, np.int64),
            "reason": np.array(self._reasons, np.str_),
            "encoder": np.array(self._info.name),
            "version": np.array(self._info.version),
        }
        if self._of_tokens:
            lengths = np.concatenate([nothing, *self._lengths])
            arrays["offsets"] = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        with zipfile.ZipFile(self._file, "w", zipfile.ZIP_STORED) as archive:
            name = "tokens.npy" if self._of_tokens else "embeddings.npy"
            with archive.open(name, "w", force_zip64=True) as member:
                shutil.copyfileobj(self._member, member, COPIED_BYTES)
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)


def _close(file: BinaryIO) -> None:
    # After a failed write, closing the file fails as well.
    with suppress(OSError):
        file.close()
