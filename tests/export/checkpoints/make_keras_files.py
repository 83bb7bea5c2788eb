"""Writes `keras_files.tar.xz`: files of real Keras, and in `expected.npz` what Keras itself computes with them.

Not run by the tests, which need no Keras:
    pip install keras==3.15.1 torch==2.13.0 h5py && KERAS_BACKEND=torch python make_keras_files.py
"""

import os
import tarfile
import tempfile
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
from keras import layers

ARCHIVE = Path(__file__).parent / "keras_files.tar.xz"
VOCABULARY, EMBEDDING, HIDDEN = 9, 3, 2
SEQUENCES = [[1, 5, 2], [8], [3, 3, 7, 6, 4, 1, 2]]


def bidirectional(kind: str, last: bool = True, **options: object) -> layers.Bidirectional:
    """A layer with biases and recurrent weights far from their initial zeros."""
    random = keras.initializers.RandomNormal(stddev=0.7, seed=len(kind))
    options = {"bias_initializer": random, "kernel_initializer": random, **options}
    return layers.Bidirectional(getattr(layers, kind)(HIDDEN, return_sequences=not last, **options))


def sequential(*stack: layers.Layer) -> keras.Model:
    """Token ids to one vector a sequence."""
    embedding = layers.Embedding(VOCABULARY, EMBEDDING, mask_zero=True, embeddings_initializer="random_normal")
    return keras.Sequential([keras.Input((None,), dtype="int32"), embedding, *stack])


def vectors(model: keras.Model, last: str) -> np.ndarray:
    """What the layer `last` gives for each sequence, alone and without padding."""
    encoder = keras.Model(model.inputs, model.get_layer(last).output)
    return np.concatenate([np.asarray(encoder(np.array([ids], dtype=np.int32)).cpu().detach()) for ids in SEQUENCES])


def main() -> None:
    """Write everything."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        with tarfile.open(ARCHIVE, "w:xz") as archive:
            for file in sorted(Path(folder).iterdir()):
                archive.add(file, file.name)


def write(folder: Path) -> None:
    """Write every model, and what it computes."""
    keras.utils.set_random_seed(4)
    expected = {"lengths": np.array([len(ids) for ids in SEQUENCES]), "ids": np.concatenate(SEQUENCES)}

    upper = bidirectional("GRU")
    upper.name = "upper"
    stack = sequential(bidirectional("GRU", last=False), layers.Dropout(0.1), upper, layers.Dense(1))
    stack.compile("adam", "mse")
    stack.fit(np.array([[1, 2, 3]]), np.array([[1.0]]), verbose=0)
    stack.save(folder / "gru_stack.keras")
    expected["gru_stack.keras"] = vectors(stack, "upper")

    for file, kind, options in (
        ("gru_reset_before.weights.h5", "GRU", {"reset_after": False}),
        ("gru_without_bias.weights.h5", "GRU", {"reset_after": False, "use_bias": False}),
        ("lstm_of_keras_2.h5", "LSTM", {}),
        ("rnn_relu.keras", "SimpleRNN", {"activation": "relu"}),
        ("gru_of_sums.keras", "GRU", {}),
    ):
        layer = bidirectional(kind, **options)
        layer.name = "encoder"
        if "sums" in file:
            layer.merge_mode = "sum"
        model = sequential(layer, layers.Dense(1))
        if file.endswith("weights.h5"):
            model.save_weights(folder / file)
        else:
            model.save(folder / file)
        if "sums" not in file:
            expected[file] = vectors(model, "encoder")
    np.savez(folder / "expected.npz", allow_pickle=False, **expected)


if __name__ == "__main__":
    main()
