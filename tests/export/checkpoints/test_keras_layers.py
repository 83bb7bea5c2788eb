"""Files of real Keras against what Keras computed with them; `make_keras_files.py` made both."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from birnn_bundle.ragged import RaggedBatch, offsets_of
from birnn_bundle.vocabulary import VocabularyTokenizer
from birnn_export.checkpoints.adoption import Adopted, adopt
from birnn_export.checkpoints.selection import Choices, select
from birnn_export.checkpoints.stored_weights import read_weights
from birnn_export.training.checkpoint import CheckpointError
from birnn_export.verification import reference

TOKENIZER = VocabularyTokenizer({token: number for number, token in enumerate("CNOPSF123")}, "smiles")
FINAL = Choices(pooling="final")


def adopted(path: Path, choices: Choices = FINAL) -> Adopted:
    return adopt(read_weights(path), TOKENIZER, choices)


@pytest.mark.parametrize(
    ("file", "choices"),
    [
        ("gru_stack.keras", FINAL),
        ("gru_reset_before.weights.h5", FINAL),
        ("gru_without_bias.weights.h5", Choices(pooling="final", reset="before")),
        ("lstm_of_keras_2.h5", FINAL),
        ("rnn_relu.keras", FINAL),
    ],
)
def test_vectors_are_those_of_keras(
    files: Path, expected: Mapping[str, NDArray[Any]], file: str, choices: Choices
) -> None:
    batch = RaggedBatch(expected["ids"].astype(np.int32), offsets_of(expected["lengths"]))
    found = reference(adopted(files / file, choices).checkpoint.encoder, batch).pooled
    assert np.abs(found - expected[file]).max() < 1e-6


def test_layers_of_a_model_are_one_stack_and_its_optimizer_and_head_are_left_out(files: Path) -> None:
    found = adopted(files / "gru_stack.keras")
    assert found.checkpoint.config.layers == 2
    assert found.checkpoint.config.linear_before_reset
    assert found.notes[2] == "not used: layers/dense/vars/0, layers/dense/vars/1"


def test_a_layer_is_found_by_the_name_that_its_author_gave_it(files: Path) -> None:
    stored = read_weights(files / "gru_stack.keras")
    assert select(stored, Choices(prefixes=("upper",), embedding="one-hot")).recurrence.input_size == 4


def test_a_reset_before_the_product_shows_in_the_biases_and_is_asked_for_without(files: Path) -> None:
    assert not adopted(files / "gru_reset_before.weights.h5").checkpoint.config.linear_before_reset
    with pytest.raises(CheckpointError, match="add --reset after or --reset before"):
        adopted(files / "gru_without_bias.weights.h5")
    with pytest.raises(CheckpointError, match="--reset after does not fit"):
        adopted(files / "gru_reset_before.weights.h5", Choices(pooling="final", reset="after"))


def test_directions_that_are_not_concatenated_are_refused(files: Path) -> None:
    with pytest.raises(CheckpointError, match="merges its directions by 'sum'"):
        adopted(files / "gru_of_sums.keras")


def test_a_truncated_model_is_refused(files: Path, tmp_path: Path) -> None:
    for file in ("gru_stack.keras", "lstm_of_keras_2.h5"):
        content = (files / file).read_bytes()
        (tmp_path / file).write_bytes(content[: len(content) // 2])
        with pytest.raises(CheckpointError, match="is damaged or cut off"):
            read_weights(tmp_path / file)


def weights_of_keras_2(path: Path, units: int = 2, **left_out: str) -> None:
    """A file of `save_weights` as TensorFlow 2 with Keras 2 wrote it: an LSTM without configuration."""
    random = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file["embedding/embedding/embeddings:0"] = random.normal(size=(9, 3)).astype(np.float32)
        for way in ("forward", "backward"):
            cell = f"bidirectional/bidirectional/{way}_lstm/lstm_cell_1"
            shapes = {"kernel": (3, 4 * units), "recurrent_kernel": (units, 4 * units), "bias": (4 * units,)}
            for parameter, shape in shapes.items():
                if left_out.get(way) != parameter:
                    file[f"{cell}/{parameter}:0"] = random.normal(size=shape).astype(np.float32)


def test_weights_of_keras_2_are_read_without_a_configuration(tmp_path: Path) -> None:
    weights_of_keras_2(tmp_path / "old.h5")
    found = adopted(tmp_path / "old.h5")
    assert found.notes[0] == "bidirectional/bidirectional: bidirectional LSTM, 1 layer, 3 -> 2 x 2"


def test_a_kernel_that_is_missing_is_refused(tmp_path: Path) -> None:
    weights_of_keras_2(tmp_path / "old.h5", backward="recurrent_kernel")
    with pytest.raises(CheckpointError, match="lacks the kernels of its backward layer"):
        adopted(tmp_path / "old.h5")


def test_a_layer_of_one_direction_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "one.weights.h5", "w") as file:
        for number, shape in enumerate([(3, 6), (2, 6), (2, 6)]):
            file[f"layers/gru/cell/vars/{number}"] = np.zeros(shape, dtype=np.float32)
    with pytest.raises(CheckpointError, match=r"layers/gru runs in one direction only, .*; wrap it in keras\.layers"):
        adopted(tmp_path / "one.weights.h5")
