"""Bundles of small encoders with random weights."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from birnn_bundle.bundle import Bundle
from birnn_bundle.precisions import HalfPrecision
from birnn_bundle.smiles import SmilesTokenizer
from birnn_export.bundle_writer import write_bundle
from birnn_export.training.checkpoint import load_encoder, write_start, write_weights
from tests.export.small_encoders import FACTS, MOLECULES, make_stiff, small_encoder, write_checkpoint


def small_bundle(folder: Path, architecture: str = "bigru", pooling: str = "final", **more: Any) -> Bundle:
    """Write a checkpoint below `folder` and export it as `folder/small/1`."""
    write_checkpoint(folder / "checkpoint", pooling, architecture=architecture, **more)
    return write_bundle(load_encoder(folder / "checkpoint"), folder / "small" / "1", max_length=200)


def allowing(bundle: Bundle, reduced: HalfPrecision | None) -> Bundle:
    """The bundle with one bound for all half precisions, and no records of what each costs; None allows none."""
    manifest = bundle.manifest.model_copy(update={"reduced_precision": reduced, "precisions": {}})
    return replace(bundle, manifest=manifest)


def version_of(
    folder: Path, name: str, version: int, largest: float, sequences: Sequence[str] = MOLECULES, **sizes: int
) -> Bundle:
    """Write `folder/NAME/VERSION`. Versions whose `largest` weight differs give other vectors, of the same width."""
    checkpoint = folder / f".checkpoint-{name}-{version}"
    tokenizer = SmilesTokenizer.train(sequences, minimum_count=1)
    options: dict[str, Any] = {"vocab_size": tokenizer.vocab_size, **sizes}
    encoder = make_stiff(small_encoder(pooling="mean+max", **options), largest)
    write_start(checkpoint, encoder.config, tokenizer, max_length=100, training=FACTS)
    write_weights(checkpoint, encoder)
    return write_bundle(load_encoder(checkpoint), folder / name / str(version))
