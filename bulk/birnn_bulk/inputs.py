"""The files of an input: on this machine or in a store, alone or in folders, in an order that does not change."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import click
import pyarrow as pa
import pyarrow.parquet as pq

from birnn.cli.file_options import Reading
from birnn_bulk.plan import BulkError, InputFile
from birnn_bulk.rows import ParquetRows, Rows, TextRows
from birnn_bulk.stored_files import StoredFile, files_below
from birnn_bundle.numerals import counted
from birnn_bundle.sequences import ARCHIVES, KINDS
from birnn_service.sources.store import is_url

PARQUET = (".parquet", ".pq")
# More lie in one part each than a folder or a scheduler copes with.
MOST_FILES = 100_000
# Enough to pass over any text.
_ALL = 1 << 62


class Found(Protocol):
    """A file of the input."""

    @property
    def name(self) -> str:
        """As the output names it."""

    @property
    def size(self) -> int:
        """In bytes."""

    def text(self) -> Any:
        """What a reader of text takes: a path or an open stream."""

    def binary(self) -> Any:
        """What a reader of Parquet takes: a path or an open file."""

    def digest(self) -> str:
        """Identifies the whole content, if that is possible without reading it as records."""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file of this machine; see `Found`."""

    name: str
    path: Path
    size: int

    def text(self) -> Any:
        """Its path."""
        return self.path

    def binary(self) -> Any:
        """Its path."""
        return str(self.path)

    def digest(self) -> str:
        """SHA-256 of all of it; of a Parquet file, which may be huge, of its footer."""
        if is_parquet(self.name):
            return f"footer-sha256:{hashlib.sha256(_footer(self.path)).hexdigest()}"
        with self.path.open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def find(inputs: Sequence[str]) -> list[Found]:
    """The files that the arguments of a command mean.

    Folders and prefixes of stores give all files of known kinds below them, by name; which others they hold is told.

    Raises:
        BulkError: There is nothing to read.
    """
    found = [file for given in inputs for file in _found(given)]
    if len(found) > MOST_FILES:
        raise BulkError(f"there are {len(found):,} input files; {MOST_FILES:,} are the most: join them, or use Parquet")
    return found


def open_rows(file: Found, reading: Reading, keep: Sequence[str]) -> Rows:
    """Open one file.

    Raises:
        BulkError: It cannot be read.
    """
    if is_parquet(file.name):
        return ParquetRows(file.binary(), file.name, reading.column, keep)
    return TextRows(file.text(), reading, keep)


def measured(file: Found, reading: Reading, keep: Sequence[str], known: InputFile | None) -> InputFile:
    """A file with its digest and its number of records; text is read for that, unless it is what is known already.

    Raises:
        BulkError: It cannot be read.
    """
    try:
        digest = file.digest()
        if known is not None and (known.bytes, known.digest) == (file.size, digest):
            return known
        rows = open_rows(file, reading, keep)
        try:
            return InputFile(name=file.name, bytes=file.size, digest=digest, records=rows.skip(_ALL))
        finally:
            rows.close()
    except OSError as error:
        raise BulkError(f"{file.name}: cannot be read: {error.strerror or error}") from error


def is_parquet(name: str) -> bool:
    """Whether a file holds Parquet, by its name."""
    return PurePosixPath(name).suffix.lower() in PARQUET


def _found(given: str) -> Iterator[Found]:
    if is_url(given):
        files: list[Found] = [StoredFile.at(given)] if _is_known(given) else [*files_below(given)]
    elif (path := Path(given)).is_dir():
        files = [
            LocalFile(_name(below), below, below.stat().st_size)
            for below in sorted(path.rglob("*"), key=lambda below: below.as_posix())
            if below.is_file() and not any(part.startswith((".", "_")) for part in below.relative_to(path).parts)
        ]
    elif path.is_file():
        yield LocalFile(_name(path), path, path.stat().st_size)
        return
    else:
        raise BulkError(f"{given}: no such file or folder; a job needs files that can be read again")
    known = [file for file in files if _is_known(file.name)]
    if others := [file.name for file in files if not _is_known(file.name)]:
        click.echo(f"{given}: {counted(len(others), 'file')} of other kinds left out, such as {others[0]}", err=True)
    if not known:
        raise BulkError(f"{given}: holds no file of a known kind: {', '.join((*KINDS, *(p[1:] for p in PARQUET)))}")
    yield from known


def _name(path: Path) -> str:
    """A path as text that any file can hold."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _is_known(name: str) -> bool:
    path = PurePosixPath(name)
    path = path.with_suffix("") if path.suffix.lower() in ARCHIVES else path
    return path.suffix.lower()[1:] in KINDS or is_parquet(name)


def _footer(path: Path) -> bytes:
    """The last bytes of a Parquet file: sizes, places and statistics of all its columns."""
    try:
        length = pq.read_metadata(str(path)).serialized_size + 8
    except pa.ArrowException as error:
        raise BulkError(f"{path}: is no whole Parquet file: {error}") from error
    with path.open("rb") as file:
        file.seek(-min(length, path.stat().st_size), 2)
        return file.read()
