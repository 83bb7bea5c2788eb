"""`birnn models measure`: record in a bundle what reduced precisions cost, so that they can be served."""

import os
import shutil
from pathlib import Path

import click

from birnn_bundle.atomic_folder import replacing_folder
from birnn_bundle.bundle import Bundle
from birnn_bundle.corpus import read_entry
from birnn_bundle.errors import BundleError
from birnn_bundle.files import SIGNATURE_FILE, sha256
from birnn_bundle.manifest import MANIFEST_FILE
from birnn_bundle.precision_card import with_precision_section
from birnn_bundle.precision_options import MIN_COSINE, QUALITY, told_records
from birnn_bundle.precisions import MIN_COSINES, PrecisionRecord, ReducedPrecision
from birnn_bundle.quality_set import QualityError, QualitySet, read_quality_set
from birnn_bundle.ragged import RaggedBatch
from birnn_bundle.sequences import SequenceFileError
from birnn_native.kernel import POOLINGS
from birnn_native.library import NativeUnavailableError, precisions
from birnn_native.precision_measurement import Material, measure_precisions
from birnn_native.recurrent_graph import UnsupportedGraphError, read_graph
from birnn_service.engine.engine import Output
from birnn_service.engine.stored_graph import stored_graph
from birnn_service.errors import StartupError

CARD_FILE = "README.md"
# Of each file, as `birnn export` reads them.
MOST_SEQUENCES = 2000


@click.command()
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--sequences",
    "files",
    multiple=True,
    metavar="FILE[:COLUMN]",
    help=f"Sequences to measure on besides the golden ones, the first {MOST_SEQUENCES:,} of each file; repeatable.",
)
@QUALITY
@MIN_COSINE
def measure(
    bundle: Path, files: tuple[str, ...], quality: str | None, min_cosines: dict[ReducedPrecision, float]
) -> None:
    """Measure what bf16 and int8 cost an encoder, and record it in BUNDLE, so that `birnn serve` may use them.

    The native kernels compute; `birnn export` has done the same for the bundles it wrote. What this processor cannot
    compute in, and fp16, which is of GPUs, stay as they are recorded. Manifest and model card are written anew, so a
    signature is removed: sign the bundle again. Servers load the bundle as any version whose files change.
    """
    bundle = Path(os.path.realpath(bundle))
    try:
        loaded = Bundle.load(bundle)
        graph = read_graph(stored_graph(loaded, Output.POOLED).complete())
        material = Material(
            loaded.golden,
            _sequences(loaded, files),
            None if quality is None else _quality_set(loaded, quality),
            MIN_COSINES | _min_cosines(loaded) | min_cosines,
        )
        measured = measure_precisions(graph, POOLINGS[loaded.manifest.pooling], material)
        kept = {
            name: record.model_copy(update={"min_cosine": material.min_cosines[name]})
            for name, record in loaded.manifest.records.items()
            if name not in precisions()
        }
        signed = _write(loaded, kept | measured.records)
    except (BundleError, QualityError, SequenceFileError, StartupError) as error:
        raise click.ClickException(str(error)) from error
    except (NativeUnavailableError, UnsupportedGraphError, ValueError) as error:
        raise click.ClickException(f"{bundle}: the native kernels cannot run it: {error}") from error
    except OSError as error:
        raise click.ClickException(f"cannot write {bundle}: {error}") from error
    click.echo("\n".join([loaded.label, *told_records(measured.records)]))
    for name in kept:
        click.echo(f"{name}: not measured here; as recorded before")
    for precision, problem in measured.problems.items():
        click.echo(f"{precision}: cannot be measured: {problem}")
    if signed:
        click.echo(f"its signature is removed: `birnn models sign {bundle} --key KEY` signs it again")


def _sequences(loaded: Bundle, files: tuple[str, ...]) -> RaggedBatch | None:
    texts = [text for file in files for text in read_entry(file, limit=MOST_SEQUENCES)]
    if not texts:
        return None
    _refuse_features(loaded, "--sequences")
    batch = loaded.tokenizer.tokenize(texts, loaded.manifest.max_length, truncate=True).batch
    if not len(batch):
        raise BundleError(f"{loaded.label}: its tokenizer can read none of the sequences")
    return batch


def _quality_set(loaded: Bundle, entry: str) -> QualitySet:
    _refuse_features(loaded, "--quality")
    return read_quality_set(entry, loaded.tokenizer, loaded.manifest.max_length)


def _refuse_features(loaded: Bundle, option: str) -> None:
    if loaded.manifest.features:
        raise BundleError(f"{loaded.label} reads features, and {option} takes texts")


def _min_cosines(loaded: Bundle) -> dict[ReducedPrecision, float]:
    """What its author allows already."""
    return {name: record.min_cosine for name, record in loaded.manifest.records.items()}


def _write(loaded: Bundle, records: dict[ReducedPrecision, PrecisionRecord]) -> bool:
    """Write the bundle anew, with these records; returns whether it was signed."""
    signed = (loaded.path / SIGNATURE_FILE).exists()
    manifest = loaded.manifest.model_copy(update={"reduced_precision": None, "precisions": records})
    with replacing_folder(loaded.path, lambda: None) as folder:
        shutil.copytree(
            loaded.path, folder, ignore=shutil.ignore_patterns(SIGNATURE_FILE, MANIFEST_FILE), dirs_exist_ok=True
        )
        card = folder / CARD_FILE
        if CARD_FILE in manifest.files:
            card.write_text(with_precision_section(card.read_text(encoding="utf-8"), records), encoding="utf-8")
            digests = manifest.files | {CARD_FILE: sha256(card.read_bytes())}
            manifest = manifest.model_copy(update={"files": digests})
        (folder / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
        # What a server does first: a bundle that cannot be loaded must not appear.
        Bundle.load(folder)
    return signed
