"""The options that describe the format of a file of sequences. All commands that read such files share them."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from birnn_bundle.sequences import KINDS, Kind, SequenceFile, Stream


@dataclass(frozen=True, slots=True)
class Reading:
    """The format of a file. None for each option that was not given. See `SequenceFile`."""

    kind: Kind | None = None
    column: str | None = None
    header: bool | None = None
    delimiter: str | None = None

    @property
    def said(self) -> bool:
        """Whether any option was given."""
        return self != Reading()

    def open(self, place: Path | Stream | None, kind: Kind | None = None, keep: Sequence[str] = ()) -> SequenceFile:
        """Open a file of sequences.

        Args:
            place: The file or stream. None for standard input.
            kind: Format of the file if `--kind` was not given.
            keep: See `SequenceFile`.

        Raises:
            SequenceFileError: The file cannot be opened, or its format cannot be determined.
        """
        return SequenceFile(
            place, self.kind or kind, self.column, header=self.header, delimiter=self.delimiter, keep=keep
        )


def file_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --kind, --column, --header/--no-header and --delimiter. The command receives them as `reading`."""

    @click.option("--column", help="Column of a .csv or .tsv file: its name, or with --no-header its number from 1.")
    @click.option(
        "--header/--no-header",
        default=None,
        help="Whether the first line of a .csv or .tsv file names its columns. By default it does. If a file has one "
        "column and its first line is unclear, this option or --column is required.",
    )
    @click.option(
        "--delimiter",
        metavar="CHARACTER",
        callback=_check_delimiter,
        help="Delimiter of a .csv file; by default a comma, or the one that the header shows.",
    )
    @click.option(
        "--kind",
        type=click.Choice(KINDS),
        help="Format of the file; by default given by its extension, without .gz, .xz and .zst.",
    )
    @functools.wraps(command)
    def reading(
        *arguments: Any,
        kind: Kind | None,
        column: str | None,
        header: bool | None,
        delimiter: str | None,
        **options: Any,
    ) -> Any:
        return command(*arguments, reading=Reading(kind, column, header, delimiter), **options)

    return reading


def _check_delimiter(context: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
    text = "\t" if text == r"\t" else text
    if text is not None and (len(text) != 1 or text in '"\r\n'):
        raise click.BadParameter(f"must be one character, such as ';' or '\\t', not {text!r}")
    return text
