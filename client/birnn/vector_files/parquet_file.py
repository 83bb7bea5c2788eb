"""The .parquet format: a table with one row per line of the input.

The columns are `line` int64, `sequence` string, `embedding` (null for failed lines), `error` string (null for all other
lines), `unknown_tokens` int64 and `truncated_tokens` int64. An embedding is a fixed-size list of float32 [dimension].
For per-token encodings it is a list of such lists [token_dimension].
"""

from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from birnn.encodings import EncoderInfo
from birnn.vector_files.vector_file import EncodedLines, VectorFile, VectorFileError, readable

# A row group is written, and its memory released, when it reaches this many bytes.
ROW_GROUP_BYTES = 32 << 20


class ParquetFile(VectorFile):
    """A .parquet file. Parts are collected into row groups."""

    holds_tokens = True

    def __init__(self, path: Path, info: EncoderInfo, tokens: bool) -> None:
        super().__init__(path, info, tokens)
        try:
            import pyarrow
            import pyarrow.parquet
        except ModuleNotFoundError as error:
            raise VectorFileError(f"{path}: .parquet needs pyarrow: pip install 'birnn-serving[bulk]'") from error
        self._arrow = pyarrow
        self._writer: Any = None
        self._batches: list[Any] = []
        self._bytes = 0

    def _begin(self, file: BinaryIO, stack: ExitStack) -> None:
        arrow = self._arrow
        width = self._info.token_dimension if self._of_tokens else self._info.dimension
        vector = arrow.list_(arrow.float32(), width)
        self._schema = arrow.schema(
            [
                ("line", arrow.int64()),
                ("sequence", arrow.string()),
                ("embedding", arrow.list_(vector) if self._of_tokens else vector),
                ("error", arrow.string()),
                ("unknown_tokens", arrow.int64()),
                ("truncated_tokens", arrow.int64()),
            ],
            metadata={"encoder": self._info.name, "version": self._info.version},
        )
        # The floats of embeddings rarely repeat, so a dictionary of them would only cost time.
        self._writer = arrow.parquet.ParquetWriter(file, self._schema, use_dictionary=["error"])
        stack.callback(self._let_go)

    def _add(self, part: EncodedLines) -> None:
        arrow, reasons = self._arrow, part.reasons()
        columns = [
            arrow.array([line.number for line in part.lines], arrow.int64()),
            arrow.array([readable(line.sequence) for line in part.lines], arrow.string()),
            self._embeddings(part, np.array([reason is not None for reason in reasons], np.bool_)),
            arrow.array(reasons, arrow.string()),
            *map(arrow.array, part.noticed_tokens()),
        ]
        batch = arrow.RecordBatch.from_arrays(columns, schema=self._schema)
        self._batches.append(batch)
        self._bytes += batch.nbytes
        if self._bytes >= ROW_GROUP_BYTES:
            self._write_row_group()

    def _embeddings(self, part: EncodedLines, failed: np.ndarray[Any, np.dtype[np.bool_]]) -> Any:
        arrow = self._arrow
        mask = arrow.array(failed)
        if not self._of_tokens:
            values = arrow.array(part.vectors.ravel())
            return arrow.FixedSizeListArray.from_arrays(values, self._info.dimension, mask=mask)
        width = self._info.token_dimension
        rows = np.concatenate([np.empty((0, width), np.float32), *part.tokens])
        vectors = arrow.FixedSizeListArray.from_arrays(arrow.array(rows.ravel()), width)
        offsets = np.concatenate([[0], np.cumsum(part.reply.lengths)]).astype(np.int32)
        return arrow.ListArray.from_arrays(arrow.array(offsets), vectors, mask=mask)

    def _write_row_group(self) -> None:
        if self._batches:
            table = self._arrow.Table.from_batches(self._batches)
            self._writer.write_table(table, row_group_size=len(table))
        self._batches, self._bytes = [], 0

    def _complete(self) -> None:
        self._write_row_group()
        self._writer.close()

    def _let_go(self) -> None:
        if self._writer.is_open:
            # Otherwise the writer would close itself when it is deleted, after its file was closed.
            with suppress(OSError):
                self._writer.writer.close()
            self._writer.is_open = False
