"""Reports single lines: the first ones on standard error, all of them in a file."""

import csv
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

import click
from tqdm import tqdm

from birnn.vector_files.vector_file import writing
from birnn_bundle.atomic_file import replacing_text
from birnn_bundle.numerals import counted
from birnn_bundle.quoting import printable

_SHOWN_LINES = 10
_SHOWN_CHARACTERS = 60


class ToldLines:
    """Counts lines of one kind, prints the first ones to standard error and lists all in a table.

    Args:
        sort: Name of this kind of line in messages, for example "failed line".
        path: The file of the table, for messages. None if there is no table.
        table: The tab-separated table to write. None for no table.
        columns: Names of the table's columns between `line` and `sequence`.

    Attributes:
        count: Number of lines reported so far.
    """

    def __init__(self, sort: str, path: Path | None, table: TextIO | None, columns: Sequence[str]) -> None:
        self.count = 0
        self._sort = sort
        self._path = path
        self._table = None if table is None else csv.writer(table, delimiter="\t", lineterminator="\n")
        if self._table is not None:
            self._table.writerow(["line", *columns, "sequence"])

    def tell(self, line: int, sequence: str, message: str, fields: Sequence[object]) -> None:
        """Report one line.

        Args:
            line: Number of the line.
            sequence: The sequence on it.
            message: Message to print.
            fields: Values for `columns`.

        Raises:
            VectorFileError: The table cannot be written.
        """
        self.count += 1
        if self._table is not None and self._path is not None:
            with writing(self._path):
                self._table.writerow([line, *fields, sequence])
        if self.count <= _SHOWN_LINES:
            shown = sequence if len(sequence) <= _SHOWN_CHARACTERS else sequence[:_SHOWN_CHARACTERS] + "..."
            # tqdm.write does not break the progress bar, unlike click.echo.
            quoted = f": {shown!r}" if sequence else ""
            tqdm.write(printable(f"line {line}: {message}{quoted}"), file=sys.stderr)

    def close(self, option: str) -> None:
        """Print how many lines were not shown, and which file lists all of them or which option would list them."""
        if self.count > _SHOWN_LINES:
            hidden = f"and {counted(self.count - _SHOWN_LINES, f'more {self._sort}')}"
            click.echo(f"{hidden}; {option} FILE.tsv lists all" if self._path is None else hidden, err=True)
        if self.count and self._path is not None:
            click.echo(printable(f"all {self._sort}s: {self._path}"), err=True)


@contextmanager
def told_lines(sort: str, path: Path | None, option: str, columns: Sequence[str]) -> Iterator[ToldLines]:
    """Report lines of one kind, and list them in a file that appears once it is complete.

    Args:
        sort: Name of this kind of line in messages, for example "failed line".
        path: The file to write. None for no file.
        option: The option that gives the file, for messages.
        columns: Names of the file's columns between `line` and `sequence`.

    Raises:
        VectorFileError: The file cannot be written.
    """
    with ExitStack() as stack:
        table = None
        if path is not None:
            with writing(path):
                table = stack.enter_context(replacing_text(path))
        lines = ToldLines(sort, path, table, columns)
        yield lines
        if path is not None:
            with writing(path):
                stack.close()
    lines.close(option)
