"""Sequences of a file, one a line or one a record, as the bytes they are: nothing skipped, nothing repaired."""

import csv
import gzip
import io
import lzma
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, Self, cast, get_args

Kind = Literal["smi", "txt", "csv", "tsv"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# The longest field of a record; Python's own limit is 131,072 characters.
_LONGEST_FIELD = 1 << 30


class SequenceFileError(Exception):
    """A file cannot be read; the message says which, where and what to do."""


@dataclass(frozen=True, slots=True)
class Line:
    """One sequence of a file.

    Attributes:
        number: Line of the file on which it ends, from 1.
        sequence: Its bytes; empty where the line or the field is.
    """

    number: int
    sequence: bytes


class SequenceFile:
    """A file of sequences, read once from start to end in bounded memory.

    `smi`: the first white-space column of each line. `txt`: each line. `csv` and `tsv`: a column, named in the first
    line. A .gz or .xz file is decompressed. A blank line is an empty sequence, so that results align with lines;
    a blank record of a csv or tsv file is none.

    Args:
        path: The file; None for standard input.
        kind: What it holds; None to tell by the file's name.
        column: Name of the column of a csv or tsv file; may be left out where there is only one.

    Raises:
        SequenceFileError: The file does not exist, or what it holds cannot be told or does not fit `column`.
    """

    def __init__(self, path: Path | None, kind: Kind | None = None, column: str | None = None) -> None:
        self.name = "standard input" if path is None else str(path)
        self._kind = kind if kind is not None else self._kind_of(path)
        self._column = column
        if column is not None and self._kind not in ("csv", "tsv"):
            raise SequenceFileError(f"{self.name}: a {self._kind} file has no columns to take {column!r} from")
        try:
            self._raw: BinaryIO = sys.stdin.buffer if path is None else path.open("rb")
            self._size = path.stat().st_size if path is not None and path.is_file() else 0
        except OSError as error:
            raise SequenceFileError(f"{self.name}: {error.strerror or error}") from error
        self._file = _decompressed(self._raw, path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._raw is not sys.stdin.buffer:
            self._raw.close()

    def __iter__(self) -> Iterator[Line]:
        """The sequences in order.

        Raises:
            SequenceFileError: The file is damaged, or a record lacks the column.
        """
        try:
            yield from self._records() if self._kind in ("csv", "tsv") else self._lines()
        except (EOFError, lzma.LZMAError, gzip.BadGzipFile, zlib.error) as error:
            raise SequenceFileError(f"{self.name}: damaged or cut off ({error})") from error
        except OSError as error:
            raise SequenceFileError(f"{self.name}: {error.strerror or error}") from error

    def fraction(self) -> float | None:
        """About how much of the file has been read, from 0 to 1; None where its size is not known."""
        return min(1.0, self._raw.tell() / self._size) if self._size else None

    def _kind_of(self, path: Path | None) -> Kind:
        if path is None:
            raise SequenceFileError(f"{self.name}: say what it holds: {', '.join(KINDS)}")
        name = path.with_suffix("") if path.suffix.lower() in (".gz", ".xz") else path
        kind = name.suffix.lower().removeprefix(".")
        if kind not in KINDS:
            known = ", ".join(f".{known}" for known in KINDS)
            raise SequenceFileError(
                f"{self.name}: cannot tell from the name what it holds; known are {known}, each also with .gz or .xz"
            )
        return kind

    def _lines(self) -> Iterator[Line]:
        for number, line in enumerate(self._file, start=1):
            raw = line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line
            raw = raw.removesuffix(b"\n").removesuffix(b"\r")
            if self._kind == "smi":
                raw = next(iter(raw.split(maxsplit=1)), b"")
            yield Line(number, raw)

    def _records(self) -> Iterator[Line]:
        csv.field_size_limit(_LONGEST_FIELD)
        # Surrogate escapes carry bytes that are not UTF-8 through the parser, so that they fail alone.
        text = io.TextIOWrapper(self._file, encoding="utf-8", errors="surrogateescape", newline="")
        # A tsv file has no quoting: a lone quotation mark in a sentence must not swallow the lines after it.
        tabs = self._kind == "tsv"
        records = csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE) if tabs else csv.reader(text)
        try:
            header: list[str] = next(records, [])
            if header:
                header[0] = header[0].removeprefix("\ufeff")
            index = self._column_index(header)
            for record in records:
                if not record:
                    continue
                if index >= len(record):
                    raise SequenceFileError(
                        f"{self.name}, line {records.line_num}: has {len(record)} columns, "
                        f"and {header[index]!r} is number {index + 1}"
                    )
                yield Line(records.line_num, record[index].encode("utf-8", "surrogateescape"))
        except csv.Error as error:
            raise SequenceFileError(f"{self.name}, line {records.line_num}: {error}") from error
        finally:
            # It would close the file when it goes, and `fraction` is asked for after the last line.
            text.detach()

    def _column_index(self, header: list[str]) -> int:
        columns = ", ".join(header) or "no columns: the file is empty"
        if self._column is None and len(header) == 1:
            return 0
        if self._column is None:
            raise SequenceFileError(f"{self.name}: name the column that holds the sequences; it has {columns}")
        if self._column not in header:
            raise SequenceFileError(f"{self.name}: has no column {self._column!r}; it has {columns}")
        return header.index(self._column)


def _decompressed(raw: BinaryIO, path: Path | None) -> BinaryIO:
    suffix = "" if path is None else path.suffix.lower()
    if suffix == ".gz":
        return cast(BinaryIO, gzip.open(raw, "rb"))
    if suffix == ".xz":
        return cast(BinaryIO, lzma.open(raw, "rb"))
    return raw
