"""The folder of a job: its plan and its finished parts. When all parts are finished: a manifest and the failed records.

DIR/plan.json                   what is done, in which parts
DIR/parts/part-000000.parquet   the vectors; in order of their names
DIR/manifest.json               the entry of each part, and totals; exists once all parts do
DIR/dead-letters.csv            the records without a vector; likewise
"""

import csv
import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow.parquet as pq

from birnn_bulk.part_file import PARTS_FOLDER, Entry, part_path, read_entry
from birnn_bulk.plan import BulkError, Part, Plan
from birnn_bundle.atomic_file import replace_text, replacing_text
from birnn_bundle.strict_model import StrictModel

MANIFEST_FILE, DEAD_LETTERS_FILE, LOCK_FILE = "manifest.json", "dead-letters.csv", ".lock"
_LETTER_COLUMNS = ["input", "line", "sequence", "error_code", "error"]


class Manifest(StrictModel):
    """Describes the output of a job. It has the same bytes on every machine and after any number of interruptions.

    Attributes:
        plan: Digest of the plan.
        encoder: Name and version.
        engines: What computed; several where machines differ.
        records, distinct, failed, noticed: Sums over the parts; see `Entry`.
        parts: The entry of each part, in order.
    """

    plan: str
    encoder: str
    engines: list[str]
    records: int
    distinct: int
    failed: int
    noticed: int
    parts: list[Entry]


@contextmanager
def locked(folder: Path, *, shared: bool) -> Iterator[None]:
    """Lock a folder against other jobs. Creates it if it does not exist.

    Args:
        folder: Of the output.
        shared: Whether other processes may hold the same kind of lock: those of slices of the job.

    Raises:
        BulkError: Another process holds it.
    """
    (folder / PARTS_FOLDER).mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_FILE).open("ab") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BulkError(f"another `birnn bulk` is at work in {folder}") from error
        try:
            if not shared:
                _remove_unfinished(folder)
            yield
        finally:
            # The last of the processes that share the lock cleans up.
            with suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove_unfinished(folder)


def _remove_unfinished(folder: Path) -> None:
    """Remove temporary files of killed processes. No other process may be writing here."""
    for path in (*folder.glob(".birnn-*.partial"), *(folder / PARTS_FOLDER).glob(".birnn-*.partial")):
        path.unlink(missing_ok=True)


def done(folder: Path, plan: str, parts: Sequence[Part]) -> Iterator[Entry]:
    """The entries of the parts that are finished."""
    return (entry for part in parts if (entry := read_entry(folder, part, plan)) is not None)


def complete(folder: Path, plan: Plan) -> Manifest | None:
    """Write the manifest and the dead letters if all parts are finished; None if some are missing.

    Raises:
        OSError: They cannot be written.
    """
    parts, digest = plan.parts(), plan.digest
    # Look at names first, which is cheap: with many slices, this is called often.
    if not all(part_path(folder, part.number).exists() for part in parts):
        return None
    entries = list(done(folder, digest, parts))
    if len(entries) < len(parts):
        return None
    _write_letters(folder, entries)
    manifest = Manifest(
        plan=digest,
        encoder=plan.recipe.encoder,
        engines=sorted({entry.engine for entry in entries}),
        records=plan.records,
        distinct=sum(entry.distinct for entry in entries),
        failed=sum(entry.failed for entry in entries),
        noticed=sum(entry.noticed for entry in entries),
        parts=entries,
    )
    replace_text(folder / MANIFEST_FILE, manifest.model_dump_json(indent=1) + "\n")
    return manifest


def _write_letters(folder: Path, entries: Sequence[Entry]) -> None:
    with replacing_text(folder / DEAD_LETTERS_FILE) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_LETTER_COLUMNS)
        for entry in entries:
            if entry.failed:
                table = pq.read_table(part_path(folder, entry.part), columns=_LETTER_COLUMNS)
                failed = table.filter(table.column("error_code").is_valid())
                writer.writerows([row[name] for name in _LETTER_COLUMNS] for row in failed.to_pylist())
