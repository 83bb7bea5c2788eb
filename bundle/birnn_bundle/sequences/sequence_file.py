"""Sequences of a file, one a line or one a record, as the bytes they are: nothing skipped, nothing repaired."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, Self, get_args

from birnn_bundle.sequences.records import Layout, Record, read_records
from birnn_bundle.sequences.text_source import ARCHIVES, SequenceFileError, Stream, TextSource, name_of

Kind = Literal["smi", "txt", "csv", "tsv"]
KINDS: tuple[Kind, ...] = get_args(Kind)
TABLES: tuple[Kind, ...] = ("csv", "tsv")
TITLE = "title"
"""What follows the sequence in a line of a .smi file, as a column to keep."""


class Line(NamedTuple):
    """One sequence of a file.

    Attributes:
        number: Line of the file on which it ends, from 1.
        sequence: Its bytes; empty where the line or the field is, or where there is a problem.
        problem: Why the record holds no sequence, for example that it lacks the column; None where it does.
        kept: The fields of the columns to keep; empty ones where there is a problem.
    """

    number: int
    sequence: bytes
    problem: str | None = None
    kept: tuple[str, ...] = ()


class SequenceFile:
    """A file of sequences, read once from start to end in bounded memory.

    `smi`: the first white-space column of each line. `txt`: each line. `csv` and `tsv`: a column. A tsv file has no
    quoting. A blank line is an empty sequence, so that results align with lines; a blank record of a csv or tsv file is
    none. Compression and encoding are told by the first bytes; see `TextSource`.

    Args:
        place: The file; None for standard input.
        kind: What it holds; None to tell by the file's name.
        column: The column of a csv or tsv file: its name, or without a header its number from 1. May be left out where
            there is only one.
        header: Whether the first record of a csv or tsv file names its columns. None to tell, which is an error where
            it is not certain.
        delimiter: What separates the columns of a csv file; None to tell.
        keep: Further columns of a csv or tsv file; of a smi file `TITLE` at most.

    Raises:
        SequenceFileError: The file cannot be opened, or its content is unclear or does not fit `column`.
    """

    def __init__(
        self,
        place: Path | Stream | None,
        kind: Kind | None = None,
        column: str | None = None,
        *,
        header: bool | None = None,
        delimiter: str | None = None,
        keep: Sequence[str] = (),
    ) -> None:
        self._kind = kind if kind is not None else kind_of(None if place is None else Path(name_of(place)))
        self._columns = [*([] if column is None else [column]), *keep]
        self._keep = tuple(keep)
        self.name = name_of(place)
        self._check_kept(column)
        if self._kind not in TABLES and (column, header, delimiter) != (None, None, None):
            wanted = "header" if column is None else f"column {column!r}"
            raise SequenceFileError(f"{self.name}: a {self._kind} file has no columns, and so no {wanted}")
        self._layout = layout_of(self._kind, header, delimiter)
        self._source = TextSource(place)
        self._rest: Iterator[Record | tuple[int, str]] = (
            read_records(self._source, self._layout, self._columns)
            if self._kind in TABLES
            else enumerate(self._source.lines(), start=1)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._source.close()

    def __iter__(self) -> Iterator[Line]:
        """The rest of the sequences in order.

        Raises:
            SequenceFileError: The file is damaged, or the column is ambiguous.
        """
        for entry in self._rest:
            if isinstance(entry, Record):
                first, *others = entry.fields
                yield Line(entry.number, self._source.to_bytes(first), entry.problem, tuple(others))
                continue
            number, line = entry
            raw = self._source.to_bytes(line).rstrip(b"\r\n")
            if self._kind == "txt":
                yield Line(number, raw)
            elif self._keep:
                sequence, title = (*raw.split(maxsplit=1), b"", b"")[:2]
                yield Line(number, sequence, None, (title.decode("utf-8", "surrogateescape").rstrip(),))
            else:
                yield Line(number, next(iter(raw.split(maxsplit=1)), b""))

    def skip(self, count: int) -> int:
        """Pass over up to `count` sequences, in a fraction of the time of reading them.

        Returns:
            How many there were.

        Raises:
            SequenceFileError: As `__iter__`.
        """
        return sum(1 for _ in islice(self._rest, count))

    def _check_kept(self, column: str | None) -> None:
        if self._kind in TABLES:
            if self._keep and column is None:
                raise SequenceFileError(f"{self.name}: where columns are kept, name the one with the sequences, too")
        elif self._keep and (self._kind != "smi" or self._keep != (TITLE,)):
            only = f"the rest of a line, as {TITLE!r}" if self._kind == "smi" else "nothing else"
            raise SequenceFileError(f"{self.name}: a {self._kind} file has {only} to keep, not {', '.join(self._keep)}")

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
    name = path.with_suffix("") if path.suffix.lower() in ARCHIVES else path
    for kind in KINDS:
        if name.suffix.lower() == f".{kind}":
            return kind
    known = ", ".join(f".{kind}" for kind in KINDS)
    raise SequenceFileError(
        f"{path}: cannot tell from the name what it holds; known are {known}, each also with .gz, .xz or .zst"
    )


def layout_of(kind: Kind, header: bool | None = None, delimiter: str | None = None) -> Layout:
    """How tables of a kind are written: a lone quotation mark in a tsv file must not swallow the lines after it."""
    if kind == "tsv":
        return Layout(delimiter or "\t", quoted=False, header=header)
    return Layout(delimiter, header=header)
