"""Sequences to train on or to verify with, and scored pairs of them, from files."""

from __future__ import annotations

import math
import re
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import click

from birnn_bundle.numerals import counted, is_number
from birnn_bundle.quoting import printable
from birnn_bundle.sequences import (
    TABLES,
    Line,
    SequenceFile,
    SequenceFileError,
    TextSource,
    kind_of,
    layout_of,
    read_records,
)

_SHOWN_PROBLEMS = 5
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[\"“(]?\s?[A-Z0-9])")


@dataclass(frozen=True)
class Corpus:
    """What a file holds.

    Attributes:
        sequences: Its sequences in order, blank ones left out, without white space around them.
        problems: Lines that hold no readable sequence, each with the reason.
    """

    sequences: list[str]
    problems: list[str]

    def warning(self, path: Path) -> str | None:
        """What to tell of the problems; None for nothing."""
        if not self.problems:
            return None
        shown = "; ".join(self.problems[:_SHOWN_PROBLEMS])
        more = f"; and {len(self.problems) - _SHOWN_PROBLEMS:,} more" if len(self.problems) > _SHOWN_PROBLEMS else ""
        return f"{path}: left out {counted(len(self.problems), 'line')} without a readable sequence: {shown}{more}"


@dataclass(frozen=True)
class ScoredPair:
    """Two sequences and how similar somebody found them; more is more similar, on any scale."""

    first: str
    second: str
    score: float


def read_corpus(path: Path, column: str | None = None, limit: int | None = None) -> Corpus:
    """The sequences of a file, read as `birnn encode` reads it; see `SequenceFile`.

    Args:
        path: The file.
        column: Column of a table: its name, or its number from 1 where the table has no header.
        limit: Most sequences to read.

    Raises:
        SequenceFileError: The file cannot be read, or holds no sequence.
    """
    problems: list[str] = []
    with SequenceFile(path, column=column, header=_header([column]) if column else None) as file:
        found = (text for line in file if (text := _text(line, problems)))
        sequences = list(islice(found, limit))
    if not sequences:
        raise SequenceFileError(Corpus([], problems).warning(path) or f"{path}: holds no sequence")
    return Corpus(sequences, problems)


def read_pairs(entry: str) -> list[ScoredPair]:
    """The scored pairs of `FILE.tsv:SCORE:FIRST:SECOND`, columns by name, or numbered from 1 without a header.

    A .csv does as well, and both compressed.

    Raises:
        SequenceFileError: The file cannot be read, a record is malformed, a score is no number, or a sequence blank.
    """
    file, *columns = entry.rsplit(":", 3)
    path = Path(file)
    if len(columns) != 3:
        raise SequenceFileError(f"{entry!r} is not FILE:SCORE:FIRST:SECOND")
    kind = kind_of(path)
    if kind not in TABLES:
        raise SequenceFileError(f"{path}: a {kind} file has no columns to take pairs from")
    pairs = []
    with closing(TextSource(path)) as source:
        for record in read_records(source, layout_of(kind, _header(columns)), columns):
            where = f"{path}, line {record.number}"
            if record.problem is not None:
                raise SequenceFileError(f"{where}: {record.problem}")
            pairs.append(_pair(where, *(source.to_bytes(field) for field in record.fields)))
    if not pairs:
        raise SequenceFileError(f"{path}: holds no pair")
    return pairs


def _header(columns: list[str]) -> bool:
    """Whether there is a header: columns that are all given by number need none."""
    return not all(map(is_number, columns))


def _text(line: Line, problems: list[str]) -> str:
    problem = line.problem
    try:
        text = line.sequence.decode().strip()
    except UnicodeDecodeError as error:
        problem, text = f"not UTF-8 text ({error.reason})", ""
    if problem is not None:
        problems.append(f"line {line.number}: {problem}")
    return text


def _pair(where: str, score: bytes, first: bytes, second: bytes) -> ScoredPair:
    try:
        texts = [part.decode().strip() for part in (first, second)]
    except UnicodeDecodeError as error:
        raise SequenceFileError(f"{where}: not UTF-8 text ({error.reason})") from error
    if not all(texts):
        raise SequenceFileError(f"{where}: the pair lacks a sequence")
    value = _number(score)
    if value is None:
        raise SequenceFileError(f"{where}: the score must be a number, not {score.decode(errors='replace')!r}")
    return ScoredPair(texts[0], texts[1], value)


def _number(text: bytes) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def read_entry(entry: str, limit: int | None = None) -> list[str]:
    """The sequences of `FILE[:COLUMN]`. What is left out is told on standard error. Raises as `read_corpus` does."""
    path, column = split_file_and_column(entry)
    corpus = read_corpus(path, column, limit)
    if warning := corpus.warning(path):
        click.echo(printable(warning), err=True)
    return corpus.sequences


def split_file_and_column(text: str) -> tuple[Path, str | None]:
    """Take `FILE:COLUMN` apart; a file without a column gives None."""
    path, separator, column = text.rpartition(":")
    return (Path(path), column) if separator and column and "/" not in column else (Path(text), None)


def split_sentences(line: str) -> list[str]:
    """Sentences of a line: it is cut where white space follows `.`, `!` or `?` and a capital or digit comes next."""
    return _SENTENCE_END.split(line)
