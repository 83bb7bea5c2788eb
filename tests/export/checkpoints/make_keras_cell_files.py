"""Writes `keras_cell_files.tar.xz`: models of real Keras of cells, or of one layer a direction, and what they compute.

Not run by the tests, which need no Keras:
    pip install keras==3.15.1 torch==2.13.0 h5py && KERAS_BACKEND=torch python make_keras_cell_files.py
"""

import os
import tarfile
import tempfile
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
from keras import layers

ARCHIVE = Path(__file__).parent / "keras_cell_files.tar.xz"
FEATURES, HIDDEN, STEPS = 3, 2, 5
TOKENS = [0, 3, 1, 2, 3]
RANDOM = {
    "kernel_initializer": keras.initializers.RandomNormal(stddev=0.7),
    "recurrent_initializer": keras.initializers.RandomNormal(stddev=0.7),
    "bias_initializer": keras.initializers.RandomNormal(stddev=0.7),
}


def cell(kind: str, **options: object) -> layers.Layer:
    """A cell with biases and recurrent weights far from their initial zeros."""
    return getattr(layers, kind)(HIDDEN, **RANDOM, **options)


def main() -> None:
    """Write everything."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        with tarfile.open(ARCHIVE, "w:xz") as archive:
            for file in sorted(Path(folder).iterdir()):
                archive.add(file, file.name)


def write(folder: Path) -> None:
    """Write every model, and what it computes of one sequence: its outputs [T, 2H], or the last ones [2H] of ids."""
    keras.utils.set_random_seed(5)
    sequence = np.random.default_rng(0).standard_normal((1, STEPS, FEATURES)).astype(np.float32)
    expected = {"sequence": sequence[0], "ids": np.array(TOKENS, dtype=np.int32)}

    def save(file: str, read: keras.KerasTensor, made: keras.KerasTensor, inputs: np.ndarray = sequence) -> None:
        model = keras.Model(read, made)
        expected[file] = np.asarray(model(inputs).cpu().detach())[0]
        if file.endswith("weights.h5"):
            model.save_weights(folder / file)
        else:
            model.save(folder / file)

    for file, made in (
        ("gru_cell.keras", cell("GRUCell")),
        ("gru_cell_reset_before.keras", cell("GRUCell", reset_after=False)),
        ("lstm_cell.h5", cell("LSTMCell")),
        ("rnn_cell_relu.keras", cell("SimpleRNNCell", activation="relu")),
        ("two_cells.keras", [cell("LSTMCell"), cell("LSTMCell")]),
        ("two_cells.h5", [cell("GRUCell"), cell("GRUCell")]),
        ("two_cells.weights.h5", [cell("GRUCell"), cell("GRUCell")]),
        ("cells_in_another_order.h5", [cell("LSTMCell"), cell("LSTMCell")][::-1]),
        ("different_cells.keras", [cell("GRUCell"), cell("LSTMCell")]),
    ):
        read = keras.Input((None, FEATURES))
        save(file, read, layers.Bidirectional(layers.RNN(made, return_sequences=True))(read))

    for file, backwards in (("directions.keras", True), ("both_forward.keras", False)):
        read = keras.Input((None,), dtype="int32")
        embedded = layers.Embedding(len(TOKENS), FEATURES, embeddings_initializer="random_normal")(read)
        ahead = layers.GRU(HIDDEN, name="ahead", **RANDOM)(embedded)
        back = layers.GRU(HIDDEN, name="back", go_backwards=backwards, **RANDOM)(embedded)
        save(file, read, layers.Concatenate()([ahead, back]), np.array([TOKENS]))
    np.savez(folder / "expected.npz", allow_pickle=False, **expected)


if __name__ == "__main__":
    main()
