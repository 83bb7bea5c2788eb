"""Records of a table of text: which columns, with or without a header, and what becomes of malformed records."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from birnn_bundle.numerals import counted, is_number
from birnn_bundle.sequences.text_source import LONGEST_LINE, SequenceFileError, TextSource

HEADER_NAMES = frozenset(
    {"smiles", "canonical_smiles", "isomeric_smiles", "molecule", "sequence", "sequences", "text", "sentence"}
)
"""Names by which the first line of a file with one column is known to be a header."""

_OTHER_DELIMITERS = ";\t|"


@dataclass(frozen=True, slots=True)
class Layout:
    """How a table is written.

    Attributes:
        delimiter: What separates fields; None for a comma, unless the header shows another.
        quoted: Whether fields may stand in quotation marks.
        header: Whether the first record names the columns; None to tell, and to ask where that is not certain.
    """

    delimiter: str | None = None
    quoted: bool = True
    header: bool | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a table.

    Attributes:
        number: Line of the file on which it ends, from 1.
        fields: Those of the columns asked for; empty ones where there is a problem.
        problem: Why the record cannot be used; None where it can.
    """

    number: int
    fields: tuple[str, ...]
    problem: str | None = None


def read_records(source: TextSource, layout: Layout, columns: Sequence[str]) -> Iterator[Record]:
    """The records of a table, without blank ones and the header.

    Args:
        source: The file.
        layout: How it is written.
        columns: Names of the columns to take, or their numbers from 1 where there is no header. Empty for the only one.

    Raises:
        SequenceFileError: The column is ambiguous, or quotation marks do not match.
    """
    lines = source.lines()
    first = next(lines, "")
    delimiter = layout.delimiter or _delimiter(source.name, first, layout, columns)
    records = _Records(source.name, chain([first] if first else [], lines), delimiter, layout.quoted)
    head = next(records, [])
    if layout.header is False:
        width, places = None, _numbered(source.name, head, columns)
        rest: Iterator[list[str]] = chain([head] if head else [], records)
    else:
        width, places = len(head), _named(source.name, [name.strip() for name in head], columns, layout.header)
        rest = records
    last = max(places)
    for record in rest:
        if record:
            problem = _problem(record, width, last, layout.quoted)
            fields = ("",) * len(places) if problem else tuple(record[place] for place in places)
            yield Record(records.line, fields, problem)


class _Records:
    """csv.reader with errors that say on which line the record begins."""

    def __init__(self, name: str, lines: Iterator[str], delimiter: str, quoted: bool) -> None:
        # The limit is one of the whole process; Python's own is 131,072 characters.
        csv.field_size_limit(LONGEST_LINE)
        quoting: Any = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
        self._reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
        self._name = name

    @property
    def line(self) -> int:
        """Line on which the last record ended."""
        return self._reader.line_num

    def __iter__(self) -> Iterator[list[str]]:
        return self

    def __next__(self) -> list[str]:
        begin = self.line + 1
        try:
            return next(self._reader)
        except csv.Error as error:
            where = f"{self._name}, line {begin}"
            if "unexpected end" in str(error):
                raise SequenceFileError(f"{where}: opens a quotation mark that is never closed") from error
            if "field larger" in str(error):
                raise SequenceFileError(
                    f"{where}: a field is longer than the limit of {LONGEST_LINE:,} characters; "
                    "is a quotation mark left open?"
                ) from error
            raise SequenceFileError(
                f"{where}: quotation marks do not match ({error}); within a quoted field write two of them"
            ) from error


def _delimiter(name: str, first: str, layout: Layout, columns: Sequence[str]) -> str:
    """A comma, or what evidently takes its place in the first line."""
    header = _split(first, ",")
    others = [other for other in _OTHER_DELIMITERS if other in first]
    if len(header) > 1 or not others or header == [*columns]:
        return ","
    if columns and layout.header is not False:
        for other in others:
            if set(columns) <= set(_split(first, other)):
                return other
    raise SequenceFileError(
        f"{name}: has no comma in its first line but {others[0]!r}; say what separates the columns (--delimiter), "
        "a comma where there is only one column"
    )


def _split(line: str, delimiter: str) -> list[str]:
    return [field.strip() for field in next(csv.reader([line], delimiter=delimiter), [])]


def _numbered(name: str, first: Sequence[str], columns: Sequence[str]) -> list[int]:
    """Places of columns given by number, or of the only one."""
    if not first:
        return [0] * max(1, len(columns))
    if not columns and len(first) == 1:
        return [0]
    if not columns:
        raise SequenceFileError(f"{name}: has {len(first)} columns; give the number of the one with the sequences")
    for column in columns:
        if not is_number(column):
            raise SequenceFileError(f"{name}: without a header, columns have numbers: give one, not {column!r}")
        if not 1 <= int(column) <= len(first):
            raise SequenceFileError(f"{name}: has columns 1 to {len(first)}, not {column}")
    return [int(column) - 1 for column in columns]


def _named(name: str, header: Sequence[str], columns: Sequence[str], certain: bool | None) -> list[int]:
    """Places of columns given by name, or of the only one."""
    has = f"it has {', '.join(header)}" if header else "the file is empty"
    if not columns and not header:
        return [0]
    if not columns and len(header) > 1:
        raise SequenceFileError(f"{name}: name the column that holds the sequences; {has}")
    if not columns:
        if not certain and header[0].lower() not in HEADER_NAMES:
            raise SequenceFileError(
                f"{name}: its first line is {header[0]!r:.80}: if that is the name of the column, give it (--column); "
                "if it is a sequence, say that there is no header (--no-header; for `birnn train`, FILE:1)"
            )
        return [0]
    for column in columns:
        if column not in header:
            number = "; a column's number needs a file without a header (--no-header)" if is_number(column) else ""
            raise SequenceFileError(f"{name}: has no column {column!r}; {has}{number}")
        if header.count(column) > 1:
            raise SequenceFileError(f"{name}: has {header.count(column)} columns {column!r}; rename all but one")
    return [header.index(column) for column in columns]


def _problem(record: Sequence[str], width: int | None, last: int, quoted: bool) -> str | None:
    """Why a record cannot be used: it must have as many fields as the header, or all that are asked for."""
    if width is None:
        return None if last < len(record) else f"the record has {len(record)} fields and no number {last + 1}"
    if len(record) < width:
        return f"the record has {len(record)} of {width} fields"
    # Empty fields behind the last column are common and harmless.
    if any(record[width:]):
        cause = "a field with a delimiter in it must stand in quotation marks" if quoted else "no field can hold a tab"
        return f"the record has {counted(len(record), 'field')} and the header {width}; {cause}"
    return None
