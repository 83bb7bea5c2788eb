"""Records of an input as Arrow tables: any number from any position, forward only and in bounded memory."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from birnn.cli.file_options import Reading
from birnn_bulk.plan import BulkError
from birnn_bundle.sequences import SequenceFile, SequenceFileError

# Of a table of rows, before the columns that are kept.
FIELDS = [("line", pa.int64()), ("sequence", pa.large_binary()), ("problem", pa.string())]
# Rows that a Parquet file is decoded in.
BATCH_ROWS = 8192
# Of each column, while a Parquet file is read.
BUFFER_BYTES = 1 << 20


class Rows(Protocol):
    """An open input.

    Its tables have the columns `line` (line or row in the file, from 1), `sequence` (empty where there is none),
    `problem` (why there is none) and those that are kept.
    """

    def skip(self, count: int) -> int:
        """Pass over up to `count` records; returns how many there were."""

    def take(self, count: int) -> pa.Table:
        """The next records, fewer at the end.

        Raises:
            BulkError: The file is damaged.
        """

    def close(self) -> None:
        """Close the file."""


class TextRows:
    """Records of a .smi, .txt, .csv or .tsv file. What is passed over is read, too: lines have no index."""

    def __init__(self, place: Any, reading: Reading, keep: Sequence[str]) -> None:
        """Open the file.

        Raises:
            BulkError: It cannot be opened, or not be read so.
        """
        self._keep = keep
        with _explained():
            self._file: SequenceFile = reading.open(place, keep=keep)

    def skip(self, count: int) -> int:
        """See `Rows.skip`."""
        with _explained():
            return self._file.skip(count)

    def take(self, count: int) -> pa.Table:
        """See `Rows.take`."""
        with _explained():
            lines = list(islice(self._file, count))
        kept = [
            pa.array([None if line.problem else _text(line.kept[place]) for line in lines], pa.string())
            for place in range(len(self._keep))
        ]
        own = [
            pa.array([line.number for line in lines], pa.int64()),
            pa.array([line.sequence for line in lines], pa.large_binary()),
            pa.array([line.problem for line in lines], pa.string()),
        ]
        fields = [*FIELDS, *((name, pa.string()) for name in self._keep)]
        return pa.Table.from_arrays([*own, *kept], schema=pa.schema(fields))

    def close(self) -> None:
        """See `Rows.close`."""
        self._file.__exit__(None, None, None)


class ParquetRows:
    """Records of a Parquet file. Row groups that are passed over are not read."""

    def __init__(self, source: Any, name: str, column: str | None, keep: Sequence[str]) -> None:
        """Open the file.

        Args:
            source: Its path, or an open file.
            name: For messages.
            column: Of the sequences; None for the only one that holds text.
            keep: Further columns.

        Raises:
            BulkError: It is no Parquet file, or lacks a column.
        """
        self._name, self._position = name, 0
        # Of the records from there on.
        self._batches: Iterator[pa.Table] | None = None
        with _explained(name):
            # Pages are read as they are wanted, not whole column chunks.
            self._file = pq.ParquetFile(source, pre_buffer=False, buffer_size=BUFFER_BYTES)
        schema = self._file.schema_arrow
        self._column = column or _only_text(schema, name)
        self._keep = list(keep)
        for wanted in (self._column, *self._keep):
            if schema.names.count(wanted) != 1:
                raise BulkError(f"{name}: has no column {wanted!r}; it has {', '.join(schema.names)}")
        if _text_type(schema.field(self._column).type) is None:
            raise BulkError(f"{name}: the column {self._column!r} holds {schema.field(self._column).type}, and no text")

    @property
    def count(self) -> int:
        """Records of the file."""
        return int(self._file.metadata.num_rows)

    def skip(self, count: int) -> int:
        """See `Rows.skip`."""
        passed = min(count, self.count - self._position)
        if passed:
            self._position += passed
            self._batches = None
        return passed

    def take(self, count: int) -> pa.Table:
        """See `Rows.take`."""
        left = min(count, self.count - self._position)
        tables = [self._rows(self._file.schema_arrow.empty_table(), 0)]
        with _explained(self._name):
            batches = self._batches or self._from(self._position)
            while left:
                table = next(batches)
                tables.append(table.slice(0, left))
                if len(table) > left:
                    batches = chain([table.slice(left)], batches)
                left -= len(tables[-1])
        self._batches = batches
        taken = pa.concat_tables(tables)
        self._position += len(taken)
        return taken

    def close(self) -> None:
        """See `Rows.close`."""
        self._file.close(force=True)

    def _from(self, position: int) -> Iterator[pa.Table]:
        """Rows from a record on, beginning with its row group."""
        metadata, first, start = self._file.metadata, 0, 0
        while first < metadata.num_row_groups and start + metadata.row_group(first).num_rows <= position:
            start += metadata.row_group(first).num_rows
            first += 1
        groups, columns = list(range(first, metadata.num_row_groups)), [self._column, *self._keep]
        for batch in self._file.iter_batches(BATCH_ROWS, groups, columns, use_threads=False):
            if start + len(batch) > position:
                yield self._rows(pa.Table.from_batches([batch]), start).slice(max(0, position - start))
            start += len(batch)

    def _rows(self, table: pa.Table, start: int) -> pa.Table:
        """What was read, from record `start` on, as rows."""
        found = table.column(self._column)
        sequences = found.cast(_text_type(found.type)).cast(pa.large_binary())
        own = [
            pa.array(range(start + 1, start + 1 + len(table)), pa.int64()),
            sequences.fill_null(b""),
            pc.if_else(sequences.is_null(), pa.scalar("the value is null"), pa.scalar(None, pa.string())),
        ]
        fields = [*FIELDS, *(table.schema.field(name) for name in self._keep)]
        return pa.Table.from_arrays([*own, *(table.column(name) for name in self._keep)], schema=pa.schema(fields))


def _text_type(kind: pa.DataType) -> pa.DataType | None:
    """The type of the texts of a column; None where it holds something else."""
    if pa.types.is_dictionary(kind):
        return _text_type(kind.value_type)
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    raw = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    return kind if any(test(kind) for test in (*texts, *raw)) else None


def _only_text(schema: pa.Schema, name: str) -> str:
    """The column of the sequences where none was named."""
    texts = [field.name for field in schema if _text_type(field.type) is not None]
    if len(texts) == 1:
        return str(texts[0])
    raise BulkError(f"{name}: name the column that holds the sequences (--column); it has {', '.join(schema.names)}")


def _text(field: str) -> str:
    """A field that may hold bytes that are not UTF-8."""
    return field.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


@contextmanager
def _explained(name: str = "") -> Iterator[None]:
    """Turn errors of readers into those of a job; those of text files name the file already."""
    try:
        yield
    except SequenceFileError as error:
        raise BulkError(str(error)) from error
    except (pa.ArrowException, OSError) as error:
        raise BulkError(f"{name}: cannot be read: {error}") from error
