"""Keras' `Bidirectional(RNN(cells))` against what Keras computed; `make_keras_cell_files.py` made the files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from birnn_bundle.ragged import RaggedBatch
from birnn_bundle.vocabulary import VocabularyTokenizer
from birnn_export.checkpoints.adoption import Adopted, adopt
from birnn_export.checkpoints.selection import Choices
from birnn_export.checkpoints.stored_weights import read_weights
from birnn_export.training.checkpoint import CheckpointError
from birnn_export.verification import reference
from tests.export.checkpoints.keras_archives import expected_in, unpacked


@pytest.fixture(scope="module")
def cell_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked("keras_cell_files.tar.xz", tmp_path_factory)


@pytest.fixture(scope="module")
def outputs(cell_files: Path) -> Mapping[str, NDArray[Any]]:
    """Outputs [T, 2H] by file, and the `sequence` [T, F] that they are of."""
    return expected_in(cell_files)


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


PAIR = Choices(pooling="final", pairs=(("ahead", "back"),))
TOKENIZER = VocabularyTokenizer({token: number for number, token in enumerate("CNOS")}, "smiles")


def test_a_layer_a_direction_is_taken_where_both_are_named(
    cell_files: Path, outputs: Mapping[str, NDArray[Any]]
) -> None:
    found = adopt(read_weights(cell_files / "directions.keras"), TOKENIZER, PAIR).checkpoint.encoder
    pooled = reference(found, RaggedBatch.from_lists([outputs["ids"]])).pooled[0]
    assert np.abs(pooled - outputs["directions.keras"]).max() < 1e-6


@pytest.mark.parametrize(
    ("file", "pairs", "message"),
    [
        (
            "directions.keras",
            (),
            "if it is one direction and layers/gru_1 the other, say .* else wrap it in keras",
        ),
        ("directions.keras", (("back", "ahead"),), "layers/gru_1 of --forward has go_backwards=True"),
        ("both_forward.keras", (("ahead", "back"),), "layers/gru_1 of --backward has go_backwards=False"),
        ("directions.keras", (("ahead", "none"),), "at --backward 'none'. Such are: layers/gru, layers/gru_1"),
    ],
)
def test_layers_of_one_direction_are_asked_about(
    cell_files: Path, file: str, pairs: tuple[tuple[str, str], ...], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        adopt(read_weights(cell_files / file), TOKENIZER, Choices(pooling="final", pairs=pairs))


def test_cells_of_different_kinds_are_refused(cell_files: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is made of cells of different kinds \(gru, lstm\).* cells of one kind"):
        adopted(cell_files / "different_cells.keras")
