"""`birnn export`: from a checkpoint to a verified bundle."""

import math
import time
from pathlib import Path

import click

from bundle.errors import BundleError
from bundle.manifest import Manifest
from export.bundle_writer import ExportError, write_bundle
from export.corpus import CorpusError, read_corpus, split_file_and_column
from export.recurrent_weights import WeightsError
from export.training.checkpoint import CheckpointError
from export.verification import TOLERANCE, VerificationError


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="models/NAME/VERSION",
    help="Bundle folder to write.",
)
@click.option("--name", help="Name of the encoder. [default: NAME of the output folder]")
@click.option("--version", type=click.IntRange(min=1), help="Its version. [default: VERSION of the output folder]")
@click.option("--description", help="One sentence for lists of encoders and the model card.")
@click.option(
    "--card",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Markdown file whose text goes into the model card.",
)
@click.option("--metric", "metrics", multiple=True, metavar="KEY=VALUE", help="A further metric; repeatable.")
@click.option(
    "--sequences",
    multiple=True,
    metavar="FILE[:COLUMN]",
    help="Real sequences to verify with, the first 2,000 of each file; repeatable. [default: random ids]",
)
@click.option(
    "--max-length",
    type=click.IntRange(min=1),
    help="Longest sequence to accept, in tokens; the recurrence knows no limit. [default: that of the training]",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0, max=0.1, min_open=True),
    default=TOLERANCE,
    show_default=True,
    help="Largest allowed absolute error against PyTorch in float64.",
)
@click.option("--force", is_flag=True, help="Replace the bundle in the output folder.")
def export(
    checkpoint: Path,
    output: Path,
    name: str | None,
    version: int | None,
    description: str | None,
    card: Path | None,
    metrics: tuple[str, ...],
    sequences: tuple[str, ...],
    max_length: int | None,
    tolerance: float,
    force: bool,
) -> None:
    """Export CHECKPOINT, a folder written by `birnn train`, as an ONNX bundle that a server can load.

    The graphs are run by onnxruntime and compared with PyTorch in float64 first. Where they disagree, the command says
    where, and writes nothing.
    """
    begun = time.monotonic()
    further_metrics = _parse_metrics(metrics)
    card_text = _read_card(card)
    click.echo(f"Exporting {checkpoint} and comparing it with PyTorch in float64 ...", err=True)
    try:
        bundle = write_bundle(
            checkpoint,
            output,
            name=name,
            version=version,
            description=description,
            card=card_text,
            metrics=further_metrics,
            sequences=[text for file in sequences for text in read_corpus(*split_file_and_column(file), limit=2000)],
            max_length=max_length,
            tolerance=tolerance,
            force=force,
        )
    except (BundleError, CheckpointError, CorpusError, ExportError, WeightsError) as error:
        raise click.ClickException(str(error)) from error
    except VerificationError as error:
        raise click.ClickException(f"no bundle was written: {error}") from error
    except OSError as error:
        raise click.ClickException(f"cannot write {output}: {error}") from error
    click.echo(_report(bundle.manifest, output, time.monotonic() - begun))


def _read_card(card: Path | None) -> str:
    if card is None:
        return ""
    try:
        return card.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"cannot read {card}: {error}") from error


def _parse_metrics(metrics: tuple[str, ...]) -> dict[str, float]:
    parsed = {}
    for metric in metrics:
        key, _, text = metric.partition("=")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not key or not math.isfinite(value):
            raise click.UsageError(f"--metric {metric!r} is not KEY=VALUE with a number as VALUE, as in lipo_r2=0.71")
        parsed[key] = value
    return parsed


def _report(manifest: Manifest, output: Path, seconds: float) -> str:
    found = manifest.verification
    layers = "1 layer" if manifest.layers == 1 else f"{manifest.layers} layers"
    return "\n".join(
        [
            f"{manifest.name} version {manifest.version}: {manifest.architecture}, {layers}, pooling "
            f"{manifest.pooling}, {manifest.dimension} dimensions, {manifest.tokenizer.kind} tokenizer with "
            f"{manifest.vocab_size:,} ids",
            f"verified against PyTorch {found.torch} in float64: {found.cases} runs of onnxruntime "
            f"{found.onnxruntime} ({found.provider}), lengths 1 to {manifest.max_length}, batched and alone",
            f"largest error: {found.max_error_pooled:.2e} pooled, {found.max_error_tokens:.2e} per token (tolerance "
            f"{manifest.tolerance:g})",
            f"{output} written in {seconds:.1f} s",
        ]
    )
