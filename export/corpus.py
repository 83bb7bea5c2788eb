"""Reading sequences from files: .smi, .txt, .csv and .tsv columns, each plain, .gz or .xz."""

from __future__ import annotations

import csv
import gzip
import io
import lzma
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TextIO

FORMATS = (".smi", ".txt", ".csv", ".tsv")

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[\"“(]?\s?[A-Z0-9])")


class CorpusError(Exception):
    """A corpus file that cannot be read as sequences; the message says which, where and what to do."""


def read_corpus(path: Path, column: str | None = None, limit: int | None = None) -> list[str]:
    """The sequences of a file in order, blank ones skipped.

    `.smi`: the first white-space column of each line. `.txt`: each line. `.csv` and `.tsv`: the column named `column`,
    or numbered from 1 when the file has no header. A further `.gz` or `.xz` is decompressed. `limit` stops after so
    many sequences. Raises CorpusError for an unknown format, a missing column, bytes that are not UTF-8, a damaged
    archive or a file without a single sequence.
    """
    compression = path.suffix.lower() if path.suffix.lower() in (".gz", ".xz") else ""
    kind = path.with_suffix("").suffix.lower() if compression else path.suffix.lower()
    if kind not in FORMATS:
        raise CorpusError(f"{path}: unknown format {kind or path.name!r}; use {', '.join(FORMATS)}, plain, .gz or .xz")
    if (column is not None) != (kind in (".csv", ".tsv")):
        problem = (
            "needs the name of the column to read" if column is None else f"has no columns to take {column!r} from"
        )
        raise CorpusError(f"{path}: a {kind} file {problem}")
    try:
        with _open(path, compression) as file:
            sequences = list(islice(_sequences(path, file, kind, column), limit))
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start} of a block)") from error
    except (EOFError, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise CorpusError(f"{path}: damaged or cut off {compression} file ({error})") from error
    except OSError as error:
        raise CorpusError(f"{path}: {error.strerror or error}") from error
    if not sequences:
        raise CorpusError(f"{path}: holds no sequence")
    return sequences


def _open(path: Path, compression: str) -> TextIO:
    if compression == ".gz":
        return io.TextIOWrapper(gzip.open(path, "rb"), encoding="utf-8", newline="")
    if compression == ".xz":
        return io.TextIOWrapper(lzma.open(path, "rb"), encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")


def _sequences(path: Path, file: TextIO, kind: str, column: str | None) -> Iterator[str]:
    if column is not None:
        yield from _column(path, file, kind, column)
        return
    for line in file:
        sequence = line.strip()
        if sequence:
            yield sequence.split(maxsplit=1)[0] if kind == ".smi" else sequence


def _column(path: Path, file: TextIO, kind: str, column: str) -> Iterator[str]:
    # A .tsv holds no quoting: a lone quotation mark in a sentence must not swallow the lines after it.
    dialect = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if kind == ".tsv" else {"delimiter": ","}
    rows = csv.reader(file, **dialect)
    try:
        if column.isdecimal():
            index = int(column) - 1
            if index < 0:
                raise CorpusError(f"{path}: columns are numbered from 1")
        else:
            header = next(rows, [])
            if column not in header:
                raise CorpusError(f"{path}: has no column {column!r}; it has {', '.join(header) or 'none'}")
            index = header.index(column)
        for row in rows:
            if not row:
                continue
            if index >= len(row):
                raise CorpusError(f"{path}, line {rows.line_num}: has {len(row)} columns, asked for number {index + 1}")
            if sequence := row[index].strip():
                yield sequence
    except csv.Error as error:
        raise CorpusError(f"{path}, line {rows.line_num}: {error}") from error


def split_file_and_column(text: str) -> tuple[Path, str | None]:
    """Take `FILE:COLUMN` apart; a file without a column gives None."""
    path, separator, column = text.rpartition(":")
    return (Path(path), column) if separator and column and "/" not in column else (Path(text), None)


def split_sentences(line: str) -> list[str]:
    """Sentences of a line: it is cut where white space follows `.`, `!` or `?` and a capital or digit comes next."""
    return _SENTENCE_END.split(line)
