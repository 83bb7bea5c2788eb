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


@keras.saving.register_keras_serializable("tests")
class Joined(layers.Bidirectional):  # type: ignore[misc]
    """A layer of the author's own class."""


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
    write_wired(folder, expected)
    np.savez(folder / "expected.npz", allow_pickle=False, **expected)


def write_wired(folder: Path, expected: dict[str, np.ndarray]) -> None:
    """Models whose layers would fit on each other in several ways: an embedding is as wide as two directions."""

    def save(file: str, outputs: keras.KerasTensor, vector: keras.KerasTensor) -> None:
        model = keras.Model(ids, layers.Dense(1)(outputs))
        model.save(folder / file)
        encoder = keras.Model(ids, vector)
        expected[file] = np.concatenate(
            [np.asarray(encoder(np.array([one], dtype=np.int32)).cpu().detach()) for one in SEQUENCES]
        )

    def layer(last: bool = True, name: str | None = None, **options: object) -> layers.Bidirectional:
        made = bidirectional("GRU", last, **options)
        made.name = name or made.name
        return made

    ids = keras.Input((None,), dtype="int32")
    embedding = layers.Embedding(VOCABULARY, 2 * HIDDEN, mask_zero=True, embeddings_initializer="random_normal")
    embedded = embedding(ids)

    vector = layer(name="above")(layers.SpatialDropout1D(0.1)(layer(last=False, name="lower")(embedded)))
    save("order.h5", vector, vector)
    save("order.keras", vector, vector)
    vector = layer(name="above")(keras.Model(ids, layer(last=False, name="lower")(embedded), name="zz")(ids))
    save("nested.keras", vector, vector)

    lower = layer(last=False, name="lower")(embedded)
    vector = layer(name="above")(layers.Add()([lower, embedded]))
    save("residual.keras", vector, vector)
    vector = layer(name="above")(layers.LayerNormalization(center=False, scale=False)(lower))
    save("normalized.h5", vector, vector)
    left, right = layer(name="left")(embedded), layer(name="right")(embedded)
    save("branches.keras", layers.Concatenate()([left, right]), left)
    code = layer(name="code")(embedded)
    save("autoencoder.keras", layer(name="decoder")(layers.RepeatVector(3)(code)), code)
    shared = layer(last=False, name="shared")
    twice = shared(shared(embedded))
    save("twice.keras", layers.GlobalMaxPooling1D()(twice), layers.GlobalMaxPooling1D()(twice))

    vector = layer(name="encoder")(layers.Rescaling(2.5)(embedded))
    save("rescaled.keras", vector, vector)
    vector = layer(name="encoder")(embedded, initial_state=[layers.Dense(HIDDEN)(code), layers.Dense(HIDDEN)(code)])
    save("started.keras", vector, vector)
    vector = layers.GlobalMaxPooling1D()(layer(last=False, name="encoder")(embedded))
    save("largest.keras", vector, vector)

    backward = layers.SimpleRNN(HIDDEN, activation="relu", go_backwards=True)
    vector = layers.Bidirectional(layers.SimpleRNN(HIDDEN), backward_layer=backward, name="encoder")(embedded)
    save("activations.keras", vector, vector)
    backward = layers.GRU(HIDDEN, use_bias=False, reset_after=False, go_backwards=True)
    vector = layers.Bidirectional(layers.GRU(HIDDEN, use_bias=False), backward_layer=backward, name="encoder")(embedded)
    save("resets.keras", vector, vector)

    dropout = layers.Dropout(0.1)
    vector = layer(name="above")(dropout(layer(last=False, name="lower")(dropout(embedded))))
    save("dropout.keras", dropout(vector), vector)
    read = keras.Input((None, 2 * HIDDEN))
    lower = layer(last=False, name="lower")(read)
    several = keras.Model(read, [layers.GlobalMaxPooling1D()(lower), lower], name="several")
    vector = layer(name="above")(several(embedded)[1])
    save("outputs.keras", vector, vector)
    lower, *states = layer(last=False, name="lower", return_state=True)(embedded)
    vector = layer(name="above")(lower, initial_state=states)
    save("states.keras", vector, vector)
    made = Joined(layers.GRU(HIDDEN), merge_mode="sum", name="encoder")(embedded)
    save("joined.keras", made, made)

    lines = keras.Input((None, None), dtype="int32")
    line = keras.Model(ids, layer(activation="relu", name="encoder")(embedded), name="line")
    for file, wrapped in (("lines.keras", line), ("lines.h5", line)):
        keras.Model(lines, layers.Dense(1)(layers.TimeDistributed(wrapped)(lines))).save(folder / file)


if __name__ == "__main__":
    main()
