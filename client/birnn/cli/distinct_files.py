"""Checks that no output of a command is the same file as an input or another output."""

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from itertools import combinations
from pathlib import Path

import click

STANDARD_INPUT = Path("-")


def check_distinct(inputs: Mapping[str, Path | None], outputs: Mapping[str, Path | None]) -> None:
    """Reject an output that is the same file as an input or another output, even under another name or link.

    Args:
        inputs: Files to read, by option. None for an option that was not given.
        outputs: Files to write, by option. None for an option that was not given.

    Raises:
        click.UsageError: Two options name the same file. The message names both.
    """
    given = [(option, path) for option, path in [*inputs.items(), *outputs.items()] if path]
    for (one, first), (other, second) in combinations(given, 2):
        if other in outputs and _same(first, second):
            lost = "they would overwrite each other" if one in outputs else "the output would replace the input"
            raise click.UsageError(f"{one} {first} and {other} {second} are the same file: {lost}; choose another name")


def _same(one: Path, other: Path) -> bool:
    with suppress(OSError, ValueError):
        return os.path.samestat(_status(one), _status(other))
    # A file that does not exist yet is identified by its name alone.
    return STANDARD_INPUT not in (one, other) and os.path.realpath(one) == os.path.realpath(other)


def _status(path: Path) -> os.stat_result:
    return os.fstat(sys.stdin.fileno()) if path == STANDARD_INPUT else path.stat()
