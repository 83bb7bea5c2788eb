"""Sequences of a file, one a line or one a record, as the bytes they are: nothing skipped, nothing repaired."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, get_args

from birnn_bundle.sequences.records import Layout, read_records
from birnn_bundle.sequences.text_source import SequenceFileError, TextSource

Kind = Literal["smi", "txt", "csv", "tsv"]
KINDS: tuple[Kind, ...] = get_args(Kind)
TABLES: tuple[Kind, ...] = ("csv", "tsv")


@dataclass(frozen=True, slots=True)
class Line:
    """One sequence of a file.

    Attributes:
        number: Line of the file on which it ends, from 1.
        sequence: Its bytes; empty where the line or the field is, or where there is a problem.
        problem: Why the record holds no sequence, for example that it lacks the column; None where it does.
    """

    number: int
    sequence: bytes
    problem: str | None = None


class SequenceFile:
    """A file of sequences, read once from start to end in bounded memory.

    `smi`: the first white-space column of each line. `txt`: each line. `csv` and `tsv`: a column. A tsv file has no
    quoting. A blank line is an empty sequence, so that results align with lines; a blank record of a csv or tsv file is
    none. Compression and encoding are told by the first bytes; see `TextSource`.

    Args:
        path: The file; None for standard input.
        kind: What it holds; None to tell by the file's name.
        column: The column of a csv or tsv file: its name, or without a header its number from 1. May be left out where
            there is only one.
        header: Whether the first record of a csv or tsv file names its columns. None to tell, which is an error where
            it is not certain.
        delimiter: What separates the columns of a csv file; None to tell.

    Raises:
        SequenceFileError: The file cannot be opened, or what it holds cannot be told or does not fit `column`.
    """

    def __init__(
        self,
        path: Path | None,
        kind: Kind | None = None,
        column: str | None = None,
        *,
        header: bool | None = None,
        delimiter: str | None = None,
    ) -> None:
        self._kind = kind if kind is not None else kind_of(path)
        self._columns = [] if column is None else [column]
        self.name = "standard input" if path is None else str(path)
        if self._kind not in TABLES and (column, header, delimiter) != (None, None, None):
            wanted = "header" if column is None else f"column {column!r}"
            raise SequenceFileError(f"{self.name}: a {self._kind} file has no columns, and so no {wanted}")
        self._layout = layout_of(self._kind, header, delimiter)
        self._source = TextSource(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._source.close()

    def __iter__(self) -> Iterator[Line]:
        """The sequences in order.

        Raises:
            SequenceFileError: The file is damaged, or the column cannot be told.
        """
        if self._kind in TABLES:
            for record in read_records(self._source, self._layout, self._columns):
                yield Line(record.number, self._source.to_bytes(record.fields[0]), record.problem)
        else:
            for number, line in enumerate(self._source.lines(), start=1):
                raw = self._source.to_bytes(line).rstrip(b"\r\n")
                yield Line(number, raw if self._kind == "txt" else next(iter(raw.split(maxsplit=1)), b""))

    def fraction(self) -> float | None:
        """About how much of the file has been read, from 0 to 1; None where its size is not known."""
        return self._source.fraction()


def kind_of(path: Path | None) -> Kind:
    """What a file holds, by its name.

    Raises:
        SequenceFileError: The name does not tell.
    """
    if path is None:
        raise SequenceFileError(f"standard input: say what it holds: {', '.join(KINDS)}")
    name = path.with_suffix("") if path.suffix.lower() in (".gz", ".xz") else path
    for kind in KINDS:
        if name.suffix.lower() == f".{kind}":
            return kind
    known = ", ".join(f".{kind}" for kind in KINDS)
    raise SequenceFileError(
        f"{path}: cannot tell from the name what it holds; known are {known}, each also with .gz or .xz"
    )


def layout_of(kind: Kind, header: bool | None = None, delimiter: str | None = None) -> Layout:
    """How tables of a kind are written: a lone quotation mark in a tsv file must not swallow the lines after it."""
    if kind == "tsv":
        return Layout(delimiter or "\t", quoted=False, header=header)
    return Layout(delimiter, header=header)
