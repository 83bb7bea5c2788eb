"""What is told of single lines: the first ones to people, all of them in a file."""

import csv
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import click
from tqdm import tqdm

from birnn_bundle.atomic_file import replacing_text
from birnn_bundle.printable import counted, printable

_SHOWN_LINES = 10
_SHOWN_CHARACTERS = 60


class ToldLines:
    """Counts lines of one sort, shows the first on standard error and lists all in a table.

    Args:
        sort: What they are called: "failed line".
        table: Where to list them, tab-separated. None for nowhere.
        columns: Names of the table's columns between `line` and `sequence`.

    Attributes:
        count: How many there were.
    """

    def __init__(self, sort: str, table: TextIO | None, columns: Sequence[str]) -> None:
        self.count = 0
        self._sort = sort
        self._table = None if table is None else csv.writer(table, delimiter="\t", lineterminator="\n")
        if self._table is not None:
            self._table.writerow(["line", *columns, "sequence"])

    def tell(self, line: int, sequence: str, message: str, fields: Sequence[object]) -> None:
        """Take one line: its number and sequence, what to show, and the fields of the columns."""
        self.count += 1
        if self._table is not None:
            self._table.writerow([line, *fields, sequence])
        if self.count <= _SHOWN_LINES:
            shown = sequence if len(sequence) <= _SHOWN_CHARACTERS else sequence[:_SHOWN_CHARACTERS] + "..."
            # Not click.echo: this one spares the progress bar.
            tqdm.write(printable(f"line {line}: {message}: {shown!r}"), file=sys.stderr)

    def close(self, listed: Path | None, option: str) -> None:
        """Say how many were not shown, and where all are listed."""
        if self.count > _SHOWN_LINES:
            hidden = f"and {counted(self.count - _SHOWN_LINES, f'more {self._sort}')}"
            click.echo(f"{hidden}; {option} FILE.tsv lists all" if listed is None else hidden, err=True)
        if self.count and listed is not None:
            click.echo(printable(f"all {self._sort}s: {listed}"), err=True)


@contextmanager
def told_lines(sort: str, path: Path | None, option: str, columns: Sequence[str]) -> Iterator[ToldLines]:
    """Tell of lines of one sort, and list them in a file, given by `option`, that appears once all are known."""
    if path is None:
        lines = ToldLines(sort, None, columns)
        yield lines
    else:
        with replacing_text(path) as table:
            lines = ToldLines(sort, table, columns)
            yield lines
    lines.close(path, option)
