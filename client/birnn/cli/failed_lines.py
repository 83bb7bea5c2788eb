"""Lines that have no encoding: the first ones for people, all of them in a file."""

import csv
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import click
from tqdm import tqdm

from birnn.vector_files.vector_file import EncodedLines, readable
from birnn_bundle.atomic_file import replacing_text

_SHOWN_LINES = 10
_SHOWN_CHARACTERS = 60


class FailedLines:
    """Counts the lines that failed, and tells of them.

    Args:
        table: Where to write all of them, tab-separated: line, code, reason, sequence. None for nowhere.
    """

    def __init__(self, table: TextIO | None) -> None:
        self.count = 0
        self._table = None if table is None else csv.writer(table, delimiter="\t", lineterminator="\n")
        if self._table is not None:
            self._table.writerow(["line", "code", "reason", "sequence"])

    def add(self, part: EncodedLines) -> None:
        """Take the failed ones among the next lines."""
        for error in part.reply.errors:
            line = part.lines[error.index]
            text = readable(line.sequence)
            self.count += 1
            if self._table is not None:
                self._table.writerow([line.number, error.code.name, error.reason, text])
            if self.count <= _SHOWN_LINES:
                shown = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."
                # Not click.echo: this one spares the progress bar.
                tqdm.write(f"line {line.number}: {error.reason}: {shown!r}", file=sys.stderr)

    def close(self, listed: Path | None) -> None:
        """Say how many were not shown, and where all are listed."""
        if self.count > _SHOWN_LINES:
            hidden = f"and {self.count - _SHOWN_LINES} more failed lines"
            click.echo(f"{hidden}; --errors FILE.tsv lists all" if listed is None else hidden, err=True)
        if self.count and listed is not None:
            click.echo(f"all failed lines: {listed}", err=True)


@contextmanager
def failed_lines(path: Path | None) -> Iterator[FailedLines]:
    """Tell of failed lines, and list them in a file that appears once all are known."""
    if path is None:
        lines = FailedLines(None)
        yield lines
    else:
        with replacing_text(path) as table:
            lines = FailedLines(table)
            yield lines
    lines.close(path)
