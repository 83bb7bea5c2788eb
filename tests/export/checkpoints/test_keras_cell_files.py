"""Keras' `Bidirectional(RNN(cells))` against what Keras computed; `make_keras_cell_files.py` made the files."""

import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from birnn_bundle.ragged import RaggedBatch
from birnn_export.checkpoints.adoption import Adopted, adopt
from birnn_export.checkpoints.selection import Choices
from birnn_export.checkpoints.stored_weights import read_weights
from birnn_export.training.checkpoint import CheckpointError
from birnn_export.verification import reference

ARCHIVE = Path(__file__).parent / "keras_cell_files.tar.xz"


@pytest.fixture(scope="module")
def cell_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cells")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def outputs(cell_files: Path) -> Mapping[str, NDArray[Any]]:
    """Outputs [T, 2H] by file, and the `sequence` [T, F] that they are of."""
    with np.load(cell_files / "expected.npz") as arrays:
        return dict(arrays)


def adopted(path: Path) -> Adopted:
    return adopt(read_weights(path), None, Choices(pooling="final", embedding="none"))


@pytest.mark.parametrize(
    ("file", "layers"),
    [
        ("gru_cell.keras", 1),
        ("gru_cell_reset_before.keras", 1),
        ("lstm_cell.h5", 1),
        ("rnn_cell_relu.keras", 1),
        ("two_cells.keras", 2),
        ("two_cells.h5", 2),
        ("two_cells.weights.h5", 2),
        ("cells_in_another_order.h5", 2),
    ],
)
def test_outputs_are_those_of_keras(
    cell_files: Path, outputs: Mapping[str, NDArray[Any]], file: str, layers: int
) -> None:
    encoder = adopted(cell_files / file).checkpoint.encoder
    found = reference(encoder, RaggedBatch.from_features([outputs["sequence"]])).tokens
    assert np.abs(found - outputs[file]).max() < 1e-6
    assert encoder.config.layers == layers


def test_cells_of_different_kinds_are_refused(cell_files: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is made of cells of different kinds \(gru, lstm\).* cells of one kind"):
        adopted(cell_files / "different_cells.keras")
