"""Writes `keras_cells.tar.xz`: files of real Keras with cells and sizes of all kinds, and what Keras makes of them.

Not run by the tests, which need no Keras:
    pip install keras==3.15.1 torch==2.13.0 h5py && KERAS_BACKEND=torch python make_keras_cells.py
"""

import os
import tarfile
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
from keras import layers

ARCHIVE = Path(__file__).parent / "keras_cells.tar.xz"
VOCABULARY, EMBEDDING = 9, 3
SEQUENCES = [[1, 5, 2], [8], [3, 3, 7, 6, 4, 1, 2]]
# Kind, hidden sizes and options of the layers of each file, the lowest first.
FILES: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "sizes.keras": ("GRU", (5, 2), {}),
    "sizes.h5": ("LSTM", (2, 4, 3), {}),
    "gru_relu.keras": ("GRU", (3,), {"activation": "relu"}),
    "gru_hard.keras": ("GRU", (3,), {"recurrent_activation": "hard_sigmoid"}),
    "gru_reset_before.h5": ("GRU", (3,), {"reset_after": False, "recurrent_activation": "hard_sigmoid"}),
    "lstm_hard.h5": ("LSTM", (4, 3), {"activation": "relu", "recurrent_activation": "hard_sigmoid"}),
}


def main() -> None:
    """Write everything."""
    keras.utils.set_random_seed(5)
    expected = {"lengths": np.array([len(ids) for ids in SEQUENCES]), "ids": np.concatenate(SEQUENCES)}
    with tempfile.TemporaryDirectory() as folder:
        for file, (kind, sizes, options) in FILES.items():
            # Far from zero, so that gates reach the ends of a hard_sigmoid.
            random = keras.initializers.RandomNormal(stddev=1.0, seed=len(file))
            options = {"bias_initializer": random, "kernel_initializer": random, **options}
            ids = keras.Input((None,), dtype="int32")
            x = layers.Embedding(VOCABULARY, EMBEDDING, embeddings_initializer=random)(ids)
            for number, size in enumerate(sizes):
                last = number == len(sizes) - 1
                x = layers.Bidirectional(getattr(layers, kind)(size, return_sequences=not last, **options))(x)
            keras.Model(ids, layers.Dense(1)(x)).save(Path(folder, file))
            encoder = keras.Model(ids, x)
            vectors = [np.asarray(encoder(np.array([one], dtype=np.int32)).cpu().detach()) for one in SEQUENCES]
            expected[file] = np.concatenate(vectors)
        np.savez(Path(folder, "expected.npz"), allow_pickle=False, **expected)
        with tarfile.open(ARCHIVE, "w:xz") as archive:
            for path in sorted(Path(folder).iterdir()):
                archive.add(path, path.name)


if __name__ == "__main__":
    main()
