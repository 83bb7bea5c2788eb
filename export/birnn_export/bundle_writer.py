"""From a checkpoint to a bundle: all of it, proven, or nothing."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from birnn_bundle.atomic_folder import replacing_folder
from birnn_bundle.bundle import Bundle
from birnn_bundle.files import sha256
from birnn_bundle.golden import Golden
from birnn_bundle.manifest import MANIFEST_FILE, Graphs, Manifest, TokenizerEntry, Training
from birnn_bundle.numerals import MOST_VERSION, read_version
from birnn_bundle.precisions import MIN_COSINES, ReducedPrecision
from birnn_bundle.quality_set import QualitySet, read_quality_set
from birnn_bundle.ragged import RaggedBatch
from birnn_export.golden_sequences import golden_lengths, golden_sequences
from birnn_export.graph import OPSET, POOLED_FILE, TOKENS_FILE, write_graphs
from birnn_export.id_source import FeatureSource, IdSource
from birnn_export.model_card import model_card
from birnn_export.precision_records import precision_records
from birnn_export.training.checkpoint import TRAINING, CheckpointError, LoadedCheckpoint
from birnn_export.verification import MOST_TOLERANCE, Proof, grid, reference, verify_graphs
from birnn_native.precision_measurement import Material

TOKENIZER_FILE = "tokenizer.json"
GOLDEN_FILE = "golden.safetensors"
CARD_FILE = "README.md"
# Of drawn ids, so that the same checkpoint gives the same bundle.
SEED = 0

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


class ExportError(Exception):
    """The bundle cannot be written as asked; the message says why and what to do."""


def write_bundle(
    loaded: LoadedCheckpoint,
    destination: Path,
    *,
    name: str | None = None,
    version: int | None = None,
    description: str | None = None,
    card: str = "",
    metrics: Mapping[str, float] | None = None,
    sequences: Sequence[str] = (),
    max_length: int | None = None,
    tolerance: float | None = None,
    quality: str | None = None,
    min_cosines: Mapping[ReducedPrecision, float] | None = None,
    force: bool = False,
) -> Bundle:
    """Export an encoder into a new bundle folder, and return the bundle.

    The bundle is written into a temporary folder beside `destination`, verified there and renamed, so `destination` is
    either as it was or complete. The same checkpoint and arguments give the same bytes on one machine.

    Args:
        loaded: The encoder and what belongs to it.
        destination: Folder to create, `models/NAME/VERSION`.
        name: Name of the encoder; by default that of the destination's parent folder.
        version: Its version, at least 1; by default the destination's own name.
        description: One sentence about it; by default made from the checkpoint's facts.
        card: Markdown to put into the model card.
        metrics: Further metrics for the manifest and the card, besides those of the training.
        sequences: Real sequences to verify with and to choose golden ones from; by default random ids. Those that the
            tokenizer cannot read are passed over, those that are too long are cut.
        max_length: Longest sequence that will be accepted, in tokens; by default that of the training. The recurrence
            itself knows no limit.
        tolerance: Largest absolute error against PyTorch in float64, of this export and of every engine later; by
            default what float32 can do (see `birnn_export.verification`).
        quality: `FILE:COLUMN:TARGET`, a table of sequences and a quantity of each: what reduced precisions cost a ridge
            regression goes into the manifest. Needs scikit-learn.
        min_cosines: Least cosine to float32 with which a reduced precision may be served, where it is another one than
            that of `birnn_bundle.precisions.MIN_COSINES`.
        force: Replace a bundle that stands at `destination`.

    Raises:
        ExportError: Name, version or destination cannot be used.
        CheckpointError: The facts of the training are none.
        WeightsError: A weight is not what the graphs need.
        VerificationError: The graphs, or the native kernels, disagree with PyTorch.
        QualityError: The quality set cannot be used.
        BundleError: What was written cannot be loaded again.
        OSError: The folder cannot be written.
    """
    name, version = _identity(destination, name, version)
    if tolerance is not None and not 0 < tolerance <= MOST_TOLERANCE:
        raise ExportError(f"the tolerance must be above 0 and at most {MOST_TOLERANCE:g}, not {tolerance:g}")
    _check_destination(destination, force)
    if max_length is not None:
        loaded = replace(loaded, max_length=max_length)
    quality_set = None if quality is None else _quality_set(loaded, quality)
    training = _training(loaded, metrics or {})
    if description is None:
        kind = "feature" if loaded.config.inputs == "features" else loaded.tokenizer.kind
        description = f"{loaded.config.architecture} encoder of {kind} sequences"
    with replacing_folder(destination, lambda: _check_destination(destination, force)) as folder:
        proof, golden, others = _write_proven(folder, name, version, loaded, sequences, tolerance)
        manifest = _manifest(loaded, name, version, description, proof, training, _digests(folder))
        material = Material(golden, others, quality_set, MIN_COSINES | dict(min_cosines or {}))
        measured = precision_records(loaded.encoder, folder / POOLED_FILE, material)
        manifest = manifest.model_copy(update={"precisions": measured.records})
        parameters = sum(parameter.numel() for parameter in loaded.encoder.parameters())
        (folder / CARD_FILE).write_text(model_card(manifest, parameters, card), encoding="utf-8")
        manifest = manifest.model_copy(update={"files": _digests(folder)})
        (folder / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
        # What a server does first: a bundle that cannot be loaded must not appear.
        Bundle.load(folder)
    return Bundle.load(destination)


def _write_proven(
    folder: Path,
    name: str,
    version: int,
    loaded: LoadedCheckpoint,
    sequences: Sequence[str],
    tolerance: float | None,
) -> tuple[Proof, Golden, RaggedBatch]:
    """Write tokenizer, golden vectors and graphs, and compare the graphs with PyTorch.

    Returns:
        The proof, the golden vectors, and further sequences: the real ones, or a grid of random ones.
    """
    config, encoder = loaded.config, loaded.encoder
    weights = {key: tensor.numpy() for key, tensor in encoder.state_dict().items()}
    write_graphs(config, weights, folder, name, version)
    lengths = golden_lengths(loaded.max_length, config.token_dimension)
    if config.inputs == "features":
        source: FeatureSource | IdSource = FeatureSource(config.embedding_size, SEED)
        real = RaggedBatch.from_lists([])
        golden = reference(encoder, source.batch(lengths))
    else:
        (folder / TOKENIZER_FILE).write_text(loaded.tokenizer.to_json(), encoding="utf-8")
        real = loaded.tokenizer.tokenize(sequences, loaded.max_length, truncate=True).batch
        source = IdSource(config.vocab_size, SEED, real)
        golden = reference(encoder, golden_sequences(source, lengths, real))
    golden.save(folder / GOLDEN_FILE)
    proof = verify_graphs(
        encoder,
        folder / POOLED_FILE,
        folder / TOKENS_FILE,
        max_length=loaded.max_length,
        source=source,
        golden=golden,
        tolerance=tolerance,
    )
    return proof, golden, real if len(real) else RaggedBatch.concatenate(list(grid(source, loaded.max_length)))


def _quality_set(loaded: LoadedCheckpoint, entry: str) -> QualitySet:
    if loaded.config.inputs == "features":
        raise ExportError("a quality set holds texts, and this encoder reads features")
    return read_quality_set(entry, loaded.tokenizer, loaded.max_length)


def _manifest(
    loaded: LoadedCheckpoint,
    name: str,
    version: int,
    description: str,
    proof: Proof,
    training: Training,
    files: dict[str, str],
) -> Manifest:
    config = loaded.config
    return Manifest(
        name=name,
        version=version,
        description=description,
        architecture=config.architecture,
        # Of what has gates null stands for tanh.
        nonlinearity=config.nonlinearity if config.cell.family == "rnn" or config.nonlinearity != "tanh" else None,
        gate_activation=config.gate_activation,
        linear_before_reset=config.linear_before_reset,
        inputs=config.inputs,
        vocab_size=config.vocab_size,
        embedding_size=config.embedding_size,
        hidden_size=config.hidden_size,
        hidden_sizes=list(config.hidden_sizes) or None,
        layers=config.layers,
        bias=config.bias,
        pooling=config.pooling,
        dimension=config.dimension,
        token_dimension=config.token_dimension,
        dtype="float32",
        opset=OPSET,
        max_length=loaded.max_length,
        tokenizer=TokenizerEntry(kind=loaded.tokenizer.kind, file=TOKENIZER_FILE) if config.inputs == "ids" else None,
        graphs=Graphs(pooled=POOLED_FILE, tokens=TOKENS_FILE),
        golden=GOLDEN_FILE,
        tolerance=proof.tolerance,
        verification=proof.verification,
        training=training,
        files=files,
    )


def _training(loaded: LoadedCheckpoint, metrics: Mapping[str, float]) -> Training:
    """The manifest's part of training.json, with further metrics."""
    facts = {key: loaded.training.get(key) for key in Training.model_fields}
    try:
        facts["metrics"] = {**(facts["metrics"] or {}), **metrics}
        return Training.model_validate(facts)
    except (TypeError, ValidationError) as error:
        raise CheckpointError(f"{TRAINING}: does not describe a training ({error})") from error


def _digests(folder: Path) -> dict[str, str]:
    return {file.name: sha256(file.read_bytes()) for file in sorted(folder.iterdir())}


def _identity(destination: Path, name: str | None, version: int | None) -> tuple[str, int]:
    """Name and version, from the last two parts of the destination where they are not given."""
    # Links are not followed: a version may be stored elsewhere.
    place = Path(os.path.abspath(destination))
    if name is None:
        name = place.parent.name
    if not _NAME.fullmatch(name):
        raise ExportError(
            f"{name!r} cannot be the name of an encoder: up to 100 of a-z, 0-9, '.', '_' and '-', beginning with a "
            "letter or digit. Write to models/NAME/VERSION, or give --name"
        )
    if version is None:
        version = read_version(place.name)
        if version is None:
            raise ExportError(
                f"{place.name!r} cannot be a version: a whole number of at least 1. Write to models/NAME/VERSION, "
                "or give --version"
            )
    if not 1 <= version <= MOST_VERSION:
        raise ExportError(f"the version must be from 1 to {MOST_VERSION}, not {version}")
    return name, version


def _check_destination(destination: Path, force: bool) -> None:
    if not os.path.lexists(destination):
        return
    if not force:
        raise ExportError(f"{destination} exists; export to a new version, or add --force to replace it")
    if destination.is_symlink() or not destination.is_dir():
        raise ExportError(f"{destination} is no folder; remove it yourself")
    if any(destination.iterdir()) and not (destination / MANIFEST_FILE).is_file():
        raise ExportError(f"{destination} holds something else than a bundle; --force replaces only bundles")
