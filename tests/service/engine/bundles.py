"""Bundles of small encoders with random weights."""

from pathlib import Path
from typing import Any

from birnn_bundle.bundle import Bundle
from birnn_export.bundle_writer import write_bundle
from birnn_export.training.checkpoint import load_encoder
from tests.export.small_encoders import write_checkpoint


def small_bundle(folder: Path, architecture: str = "bigru", pooling: str = "final", **more: Any) -> Bundle:
    """Write a checkpoint below `folder` and export it as `folder/small/1`."""
    write_checkpoint(folder / "checkpoint", pooling, architecture=architecture, **more)
    return write_bundle(load_encoder(folder / "checkpoint"), folder / "small" / "1", max_length=200)
