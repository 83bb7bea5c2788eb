"""`birnn export`: from a checkpoint to a verified bundle."""

import math
import time
from pathlib import Path
from typing import Any, get_args

import click

from birnn_bundle.cells import Nonlinearity
from birnn_bundle.corpus import read_entry
from birnn_bundle.errors import BundleError
from birnn_bundle.manifest import Manifest, Pooling, Verification
from birnn_bundle.numerals import counted
from birnn_bundle.precision_options import MIN_COSINE, QUALITY, told_records
from birnn_bundle.precisions import ReducedPrecision
from birnn_bundle.quality_set import QualityError
from birnn_bundle.sequences import SequenceFileError
from birnn_bundle.vocabulary import Split
from birnn_export.bundle_writer import ExportError, write_bundle
from birnn_export.checkpoints.adoption import MAX_LENGTH, adopt
from birnn_export.checkpoints.file_kind import refuse_foreign_folder
from birnn_export.checkpoints.selection import Choices, Reset
from birnn_export.checkpoints.stored_weights import read_weights
from birnn_export.checkpoints.tokenizer_file import read_tokenizer
from birnn_export.engine_errors import VerificationError
from birnn_export.expected_vectors import TOLERANCE as EXPECTED_TOLERANCE
from birnn_export.expected_vectors import ExpectationError, compare_with_expected, read_expected
from birnn_export.recurrent_weights import WeightsError
from birnn_export.training.checkpoint import CheckpointError, LoadedCheckpoint, load_encoder
from birnn_export.verification import FLOAT32_MARGIN, LARGEST_TOLERANCE, MOST_TOLERANCE, TOLERANCE


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
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="KEY=VALUE",
    help="A further metric for the manifest and the card; repeatable.",
)
@click.option(
    "--sequences",
    multiple=True,
    metavar="FILE[:COLUMN]",
    help="Real sequences to verify with, the first 2,000 of each file; repeatable. [default: random ids]",
)
@click.option(
    "--max-length",
    type=click.IntRange(min=1),
    help="Longest sequence to accept, in tokens. [default: that of the training; "
    f"{MAX_LENGTH:,} for a file of weights]",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0, max=MOST_TOLERANCE, min_open=True),
    help="Largest allowed absolute error against PyTorch in float64. [default: "
    f"{FLOAT32_MARGIN} times that of PyTorch in float32, but from {TOLERANCE:g} to {LARGEST_TOLERANCE:g}]",
)
@click.option(
    "--expect",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE.npz",
    help="What the model's own code makes of some texts: arrays `sequences` [n] and `vectors` [n, D]. Nothing is "
    f"written where the encoder differs by more than {EXPECTED_TOLERANCE:g} of the largest number there.",
)
@QUALITY
@MIN_COSINE
@click.option("--force", is_flag=True, help="Replace the bundle in the output folder.")
@click.option("--pooling", type=click.Choice(get_args(Pooling)), help="WEIGHTS: how a sequence becomes one vector.")
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="WEIGHTS: a tokenizer.json of ours or of Hugging Face's library, or a vocabulary: JSON list, JSON object of "
    "tokens and ids, or a token per line. Its ids are the rows of the embedding. None for float features.",
)
@click.option(
    "--split", type=click.Choice(get_args(Split)), help="WEIGHTS: how text is split into tokens of the vocabulary."
)
@click.option("--first-id", type=click.IntRange(min=0), help="WEIGHTS: id of the first token of a list. [default: 0]")
@click.option(
    "--unknown-token",
    metavar="TOKEN",
    help="WEIGHTS: the token that stands for all others, or none: then a sequence with another fails. "
    "[default: one called <unk>, [UNK] or the like]",
)
@click.option("--begin-token", metavar="TOKEN", help="WEIGHTS: the token put before each sequence, or none.")
@click.option("--end-token", metavar="TOKEN", help="WEIGHTS: the token put after each sequence, or none.")
@click.option(
    "--prefix",
    multiple=True,
    metavar="NAME",
    help="WEIGHTS: which recurrence, where there are several; repeated for layers of one stack, in their order.",
)
@click.option(
    "--forward",
    multiple=True,
    metavar="NAME",
    help="WEIGHTS: module of the forward direction, where each direction is a module of its own and their names do not "
    "say so; repeated for layers of one stack.",
)
@click.option("--backward", multiple=True, metavar="NAME", help="WEIGHTS: module of the backward direction, likewise.")
@click.option(
    "--embedding",
    metavar="NAME",
    help="WEIGHTS: tensor of the embedding, where there are several; one-hot for one-hot tokens; none for "
    "float features.",
)
@click.option("--nonlinearity", type=click.Choice(get_args(Nonlinearity)), help="WEIGHTS: activation of a plain RNN.")
@click.option(
    "--reset",
    type=click.Choice(get_args(Reset)),
    help="WEIGHTS: whether a Keras GRU without biases was trained with reset_after True (after) or False (before).",
)
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
    tolerance: float | None,
    expect: Path | None,
    quality: str | None,
    min_cosines: dict[ReducedPrecision, float],
    force: bool,
    **foreign: Any,
) -> None:
    """Export CHECKPOINT as an ONNX bundle that a server can load.

    CHECKPOINT is a folder written by `birnn train`, or a file of WEIGHTS trained elsewhere: a state_dict of PyTorch
    (.pt, .pth, .safetensors) that holds a bidirectional nn.GRU, nn.LSTM, nn.RNN or an RNN from scratch, or a Keras file
    (.keras, .weights.h5, .h5). Sizes are inferred from the weights. The options marked WEIGHTS say the rest, and an
    error names those that are missing.

    First, onnxruntime and, if they are built, the native kernels run the graphs, and the results are compared with
    PyTorch in float64. If they disagree, the command says where, and writes nothing.

    Then each reduced precision is measured, and the bundle records what it costs. `birnn models measure` does the same
    for an existing bundle.
    """
    begun = time.monotonic()
    further_metrics = _parse_metrics(metrics)
    card_text = _read_card(card)
    click.echo(f"Exporting {checkpoint} and comparing it with PyTorch in float64 ...", err=True)
    try:
        loaded = _load(checkpoint, max_length, foreign)
        if expect is not None:
            expected = read_expected(expect)
            error = compare_with_expected(loaded, expected)
            click.echo(f"  {expect.name}: {len(expected.sequences)} vectors, off by at most {error:.2e}", err=True)
        bundle = write_bundle(
            loaded,
            output,
            name=name,
            version=version,
            description=description,
            card=card_text,
            metrics=further_metrics,
            sequences=[text for file in sequences for text in read_entry(file, limit=2000)],
            max_length=max_length,
            tolerance=tolerance,
            quality=quality,
            min_cosines=min_cosines,
            force=force,
        )
    except (BundleError, CheckpointError, ExportError, QualityError, SequenceFileError, WeightsError) as error:
        raise click.ClickException(str(error)) from error
    except (ExpectationError, VerificationError) as error:
        raise click.ClickException(f"no bundle was written: {error}") from error
    except OSError as error:
        raise click.ClickException(f"cannot write {output}: {error}") from error
    click.echo(_report(bundle.manifest, output, time.monotonic() - begun))


def _load(checkpoint: Path, max_length: int | None, foreign: dict[str, Any]) -> LoadedCheckpoint:
    """A checkpoint of `birnn train`, or weights with the options that describe them."""
    given = [f"--{name.replace('_', '-')}" for name, value in foreign.items() if value not in (None, ())]
    if not checkpoint.is_file():
        if not checkpoint.exists():
            raise CheckpointError(f"{checkpoint}: no such file or folder")
        refuse_foreign_folder(checkpoint)
        if given:
            raise click.UsageError(
                f"{', '.join(given)}: for files of weights; a folder of `birnn train` says it itself"
            )
        return load_encoder(checkpoint)
    vocabulary = {
        "split": foreign["split"],
        "unknown": foreign["unknown_token"],
        "begin": foreign["begin_token"],
        "end": foreign["end_token"],
    }
    if foreign["tokenizer"] is None:
        tokenizer = None
        if any(value is not None for value in (*vocabulary.values(), foreign["first_id"])):
            raise click.UsageError(
                "--split, --first-id and special tokens describe a vocabulary; give it with --tokenizer"
            )
    else:
        tokenizer = read_tokenizer(foreign["tokenizer"], **vocabulary, first_id=foreign["first_id"] or 0)
    if len(foreign["forward"]) != len(foreign["backward"]) or (foreign["forward"] and foreign["prefix"]):
        raise click.UsageError(
            "--forward and --backward name the two directions of a layer: give as many of one as of the other, and no "
            "--prefix"
        )
    choices = Choices(
        pooling=foreign["pooling"],
        nonlinearity=foreign["nonlinearity"],
        reset=foreign["reset"],
        prefixes=foreign["prefix"],
        pairs=tuple(zip(foreign["forward"], foreign["backward"], strict=True)),
        embedding=foreign["embedding"],
    )
    adopted = adopt(read_weights(checkpoint), tokenizer, choices, max_length or MAX_LENGTH)
    for note in adopted.notes:
        click.echo(f"  {note}", err=True)
    return adopted.checkpoint


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
    inputs = f"{manifest.features} float features a token"
    if manifest.tokenizer is not None:
        inputs = f"{manifest.tokenizer.kind} tokenizer with {manifest.vocab_size:,} ids"
    layers = counted(manifest.layers, "layer")
    return "\n".join(
        [
            f"{manifest.name} version {manifest.version}: {manifest.architecture}, {layers}, pooling "
            f"{manifest.pooling}, {manifest.dimension} dimensions, {inputs}",
            f"verified against PyTorch {found.torch} in float64: {found.cases} runs of onnxruntime "
            f"{found.onnxruntime} ({found.provider}), lengths 1 to {manifest.max_length}, batched and alone",
            f"largest error: {found.max_error_pooled:.2e} pooled, {found.max_error_tokens:.2e} per token (tolerance "
            f"{manifest.tolerance:g})",
            _errors(found),
            *told_records(manifest.records),
            f"{output} written in {seconds:.1f} s",
        ]
    )


def _errors(verification: Verification) -> str:
    native, float32 = verification.max_error_native, verification.max_error_float32
    kernels = "not run: they are not built here, or do not know this encoder" if native is None else f"{native:.2e}"
    return f"native kernels: {kernels}; PyTorch itself in float32: {float32:.2e}"
