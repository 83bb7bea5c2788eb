"""Reading sequences from files: .smi, .txt, .csv and .tsv columns, each plain, .gz or .xz."""

from __future__ import annotations

import csv
import gzip
import io
import lzma
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TextIO

FORMATS = (".smi", ".txt", ".csv", ".tsv")
TABLES = (".csv", ".tsv")

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[\"“(]?\s?[A-Z0-9])")


@dataclass(frozen=True)
class ScoredPair:
    """Two sequences and how similar somebody found them; more is more similar, on any scale."""

    first: str
    second: str
    score: float


class CorpusError(Exception):
    """A corpus file that cannot be read as sequences; the message says which, where and what to do."""


def read_corpus(path: Path, column: str | None = None, limit: int | None = None) -> list[str]:
    """The sequences of a file in order, blank ones skipped.

    `.smi`: the first white-space column of each line. `.txt`: each line. `.csv` and `.tsv`: the column named `column`,
    or numbered from 1 when the file has no header. A further `.gz` or `.xz` is decompressed. `limit` stops after so
    many sequences. Raises CorpusError for an unknown format, a missing column, bytes that are not UTF-8, a damaged
    archive or a file without a single sequence.
    """
    kind, compression = _format(path)
    if (column is not None) != (kind in TABLES):
        problem = (
            "needs the name of the column to read" if column is None else f"has no columns to take {column!r} from"
        )
        raise CorpusError(f"{path}: a {kind} file {problem}")
    with _opened(path, compression) as file:
        sequences = list(islice(_sequences(path, file, kind, column), limit))
    if not sequences:
        raise CorpusError(f"{path}: holds no sequence")
    return sequences


def read_pairs(entry: str) -> list[ScoredPair]:
    """The scored pairs of `FILE.tsv:SCORE:FIRST:SECOND`, columns by name, or numbered from 1 without a header.

    A .csv does as well, and both compressed. Raises CorpusError as `read_corpus` does, and for a score that is no
    number and a sequence that is blank.
    """
    file, *columns = entry.rsplit(":", 3)
    path = Path(file)
    if len(columns) != 3:
        raise CorpusError(f"{entry!r} is not FILE:SCORE:FIRST:SECOND")
    kind, compression = _format(path)
    if kind not in TABLES:
        raise CorpusError(f"{path}: a {kind} file has no columns to take pairs from")
    pairs = []
    with _opened(path, compression) as lines:
        for number, (score, first, second) in enumerate(_cells(path, lines, kind, columns), 1):
            if not first or not second:
                raise CorpusError(f"{path}: pair {number} lacks a sequence")
            if (value := _number(score)) is None:
                raise CorpusError(f"{path}: the score of pair {number} must be a number, not {score!r}")
            pairs.append(ScoredPair(first, second, value))
    if not pairs:
        raise CorpusError(f"{path}: holds no pair")
    return pairs


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _format(path: Path) -> tuple[str, str]:
    """Format and compression of a file, by its name. Raises CorpusError for one that is unknown."""
    compression = path.suffix.lower() if path.suffix.lower() in (".gz", ".xz") else ""
    kind = path.with_suffix("").suffix.lower() if compression else path.suffix.lower()
    if kind not in FORMATS:
        raise CorpusError(f"{path}: unknown format {kind or path.name!r}; use {', '.join(FORMATS)}, plain, .gz or .xz")
    return kind, compression


@contextmanager
def _opened(path: Path, compression: str) -> Iterator[TextIO]:
    """The text of a file, decompressed. What goes wrong while it is read becomes a CorpusError."""
    try:
        with _open(path, compression) as file:
            yield file
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start} of a block)") from error
    except (EOFError, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise CorpusError(f"{path}: damaged or cut off {compression} file ({error})") from error
    except OSError as error:
        raise CorpusError(f"{path}: {error.strerror or error}") from error


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
    for (cell,) in _cells(path, file, kind, [column]):
        if cell:
            yield cell


def _cells(path: Path, file: TextIO, kind: str, columns: Sequence[str]) -> Iterator[list[str]]:
    """The stripped cells of these columns, row by row."""
    # A .tsv holds no quoting: a lone quotation mark in a sentence must not swallow the lines after it.
    dialect = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if kind == ".tsv" else {"delimiter": ","}
    rows = csv.reader(file, **dialect)
    try:
        header = [] if all(column.isdecimal() for column in columns) else next(rows, [])
        places = [_place(path, header, column) for column in columns]
        for row in rows:
            if not row:
                continue
            if (last := max(places)) >= len(row):
                raise CorpusError(f"{path}, line {rows.line_num}: has {len(row)} columns, asked for number {last + 1}")
            yield [row[place].strip() for place in places]
    except csv.Error as error:
        raise CorpusError(f"{path}, line {rows.line_num}: {error}") from error


def _place(path: Path, header: list[str], column: str) -> int:
    if not column.isdecimal():
        if column not in header:
            raise CorpusError(f"{path}: has no column {column!r}; it has {', '.join(header) or 'none'}")
        return header.index(column)
    if column == "0":
        raise CorpusError(f"{path}: columns are numbered from 1")
    return int(column) - 1


def split_file_and_column(text: str) -> tuple[Path, str | None]:
    """Take `FILE:COLUMN` apart; a file without a column gives None."""
    path, separator, column = text.rpartition(":")
    return (Path(path), column) if separator and column and "/" not in column else (Path(text), None)


def split_sentences(line: str) -> list[str]:
    """Sentences of a line: it is cut where white space follows `.`, `!` or `?` and a capital or digit comes next."""
    return _SENTENCE_END.split(line)
