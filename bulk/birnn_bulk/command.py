"""`birnn bulk`."""

import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast, get_args

import click

from birnn.cli.file_options import Reading, file_options
from birnn_bulk.bulk_encoder import Job
from birnn_bulk.encoders import bundle_folder, manifest_of
from birnn_bulk.inputs import find
from birnn_bulk.output import DEAD_LETTERS_FILE, MANIFEST_FILE
from birnn_bulk.part_file import OWN_COLUMNS, PARTS_FOLDER
from birnn_bulk.plan import BulkError, Slice
from birnn_bulk.progress import duration
from birnn_bulk.run import BulkRun, Wanted
from birnn_bundle.numerals import counted
from birnn_bundle.quoting import printable
from birnn_service.engine.engine import Device, EngineName, Precision
from birnn_service.vectors import ElementType

SOME_FAILED, JOB_FAILED = 1, 3


class BulkFailedError(click.ClickException):
    """The job could not be done; the parts that are done stay."""

    exit_code = JOB_FAILED


def _slice(context: click.Context, parameter: click.Parameter, text: str | None) -> Slice | None:
    try:
        return None if text is None else Slice.parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)
@click.option(
    "-o", "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder for the output."
)
@click.option(
    "--encoder",
    default="smiles",
    show_default=True,
    help="Folder of a bundle; or its name, for the highest version, or NAME@VERSION or NAME@ALIAS.",
)
@click.option("--models", help="Where encoders are looked for by name: a folder or URL, as for `birnn serve`.")
@file_options
@click.option(
    "--keep",
    multiple=True,
    metavar="COLUMN",
    help="Write this column of the input beside the vectors; repeatable. Of a .smi file `title`: the rest of a line.",
)
@click.option(
    "--element-type",
    type=click.Choice([kind.value for kind in ElementType]),
    default="float32",
    show_default=True,
    help="Of the vectors that are written; int8 has a column `scale`, by which to multiply them.",
)
@click.option("--normalize", is_flag=True, help="Scale each vector to length 1.")
@click.option("--truncate", is_flag=True, help="Cut sequences that are too long instead of failing them.")
@click.option("--device", type=click.Choice(get_args(Device)), default="auto", show_default=True)
@click.option("--engine", type=click.Choice(get_args(EngineName)), default="auto", show_default=True)
@click.option(
    "--precision",
    type=click.Choice(get_args(Precision)),
    default="fp32",
    show_default=True,
    help="Of the arithmetic; `auto` takes the fastest that the bundle allows.",
)
@click.option(
    "--workers", type=click.IntRange(min=1), help="Processes that compute; by default one a core, or one for a GPU."
)
@click.option("--ray-address", help="Compute on a Ray cluster: HOST:PORT, auto, or local.")
@click.option(
    "--part",
    "share",
    callback=_slice,
    metavar="i/n",
    help="Do only the share i (from 0) of n of the parts, for one of n machines or tasks of an array.",
)
@click.option(
    "--part-rows", type=click.IntRange(min=1), help="Records of a part; by default so that vectors take 64 MiB."
)
@click.option("--limit", type=click.IntRange(min=1), help="Encode only the first records.")
@click.option("--plan", "plan_only", is_flag=True, help="Only write the plan, so that many tasks need not make it.")
@click.option("--dry-run", is_flag=True, help="Write nothing; say how much there is to do, and how long it would take.")
def bulk(
    inputs: tuple[str, ...],
    out: Path,
    encoder: str,
    models: str | None,
    reading: Reading,
    keep: tuple[str, ...],
    element_type: str,
    normalize: bool,
    truncate: bool,
    device: str,
    engine: str,
    precision: str,
    workers: int | None,
    ray_address: str | None,
    share: Slice | None,
    part_rows: int | None,
    limit: int | None,
    plan_only: bool,
    dry_run: bool,
) -> None:
    """Encode files of any size, without a server, and go on where an earlier run ended.

    \b
    birnn bulk molecules.smi.xz -o vectors
    birnn bulk compounds/ -o vectors --column smiles --keep id --element-type float16
    birnn bulk s3://bucket/compounds/ -o vectors --column smiles --dry-run

    INPUT is a file (.parquet, .csv, .tsv, .smi or .txt; text also .gz, .xz or .zst), a folder or a URL (s3://, gs://,
    az://, https://). The output is DIR/parts/*.parquet in the order of the input: its columns input, line, sequence,
    those to keep, embedding, error_code, error, unknown_tokens and truncated_tokens. Parts appear whole. If the
    command ends early, the same command does the rest. Once all parts are there, DIR/manifest.json describes them, and
    DIR/dead-letters.csv lists the records without a vector.

    Exit status: 0 all were encoded, 1 some were not, 2 wrong usage, 3 the job could not be done.
    """
    _check(inputs, out, keep)
    try:
        with _ending_on_signals():
            bundle = bundle_folder(encoder, models)
            manifest, digest = manifest_of(bundle)
            job = Job(
                bundle,
                digest,
                cast(Device, device),
                cast(EngineName, engine),
                cast(Precision, precision),
                ElementType(element_type),
                normalize,
                truncate,
                out.resolve(),
            )
            wanted = Wanted(find(inputs), reading, keep, job, manifest, part_rows, limit, share, workers, ray_address)
            with BulkRun(wanted, writes=not dry_run) as run:
                failed = _do(run, dry_run=dry_run, plan_only=plan_only)
    except BulkError as error:
        raise BulkFailedError(str(error)) from error
    except OSError as error:
        raise BulkFailedError(f"{error.filename or out}: {error.strerror or error}") from error
    except Exception:
        # Python's own status is 1, which here is that of a job that was done.
        traceback.print_exc()
        sys.exit(JOB_FAILED)
    if failed:
        sys.exit(SOME_FAILED)


def _do(run: BulkRun, *, dry_run: bool, plan_only: bool) -> int:
    """Do what was asked for, and tell of it; returns the number of records without a vector."""
    missing, records = run.missing, sum(part.rows for part in run.parts)
    _tell(
        f"{run.plan.recipe.encoder}, {run.info.label}: {counted(records, 'record')} in "
        f"{counted(len(run.parts), 'part')} of {run.plan.part_rows:,}, {len(run.parts) - len(missing)} done; "
        f"{counted(run.workers, 'worker')}"
    )
    if dry_run:
        _estimate(run)
        return 0
    if plan_only:
        return 0
    rate = run.encode()
    if missing:
        _tell(f"{counted(sum(part.rows for part in missing), 'record')} at {rate:,.0f}/s")
    manifest = run.complete()
    if manifest is None:
        _tell("these parts are done; the output is complete once those of all other tasks are")
        return run.failed
    folder = run.folder
    _tell(
        f"complete: {folder / PARTS_FOLDER} ({counted(len(manifest.parts), 'file')}), {folder / MANIFEST_FILE}: "
        f"{counted(manifest.records, 'record')}, {manifest.distinct:,} computed, {manifest.failed:,} failed, "
        f"{manifest.noticed:,} with unknown or cut tokens"
    )
    if manifest.failed:
        _tell(f"without a vector: {folder / DEAD_LETTERS_FILE}")
    if len(manifest.engines) > 1:
        _tell(f"warning: parts were computed by several engines, whose last bits differ: {'; '.join(manifest.engines)}")
    return run.failed


def _estimate(run: BulkRun) -> None:
    left = sum(part.rows for part in run.missing)
    if not left:
        _tell("nothing is left to do")
        return
    sample = run.estimate()
    each = sample.seconds / sample.rows
    size = run.vector_bytes * left / (1 << 30)
    _tell(
        f"{left:,} records are left, of about {sample.tokens / sample.rows:.0f} tokens; {sample.failed} of a sample of "
        f"{sample.rows:,} would fail\n"
        f"about {1e6 * each:.0f} us each, {left * each / 3600:.3g} hours of one {_processor(run)} in all, "
        f"{duration(left * each / run.workers)} on {run.workers} if nothing else runs there; the vectors take "
        f"{size:.3g} GiB"
    )


def _processor(run: BulkRun) -> str:
    return "core" if run.info.device == "cpu" else "GPU"


def _tell(text: str) -> None:
    click.echo(printable(text), err=True)


def _check(inputs: tuple[str, ...], out: Path, keep: tuple[str, ...]) -> None:
    for name in keep:
        if name in OWN_COLUMNS or keep.count(name) > 1:
            why = "is given twice" if keep.count(name) > 1 else "has the name of a column of the output; rename it"
            raise click.UsageError(f"--keep {name} {why}")
    target = Path(os.path.realpath(out))
    for given in inputs:
        source = Path(os.path.realpath(given))
        if source == target or source in target.parents:
            raise click.UsageError(
                f"--out {out} lies in the input {given}: the next run would read what this one wrote"
            )


@contextmanager
def _ending_on_signals() -> Iterator[None]:
    """End workers and give back the folder after SIGTERM and SIGINT, with the status that shells give those."""

    def end(number: int, frame: Any) -> None:
        sys.exit(128 + number)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number, handler in before.items():
        # A job in the background ignores interrupts.
        if handler is not signal.SIG_IGN:
            signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
