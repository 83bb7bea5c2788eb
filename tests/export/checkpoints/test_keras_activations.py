"""Activations and sizes of real Keras against what Keras computed; `make_keras_activations.py` made both."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from birnn_bundle.ragged import RaggedBatch, offsets_of
from birnn_bundle.vocabulary import VocabularyTokenizer
from birnn_export.bundle_writer import write_bundle
from birnn_export.checkpoints.adoption import Adopted, adopt
from birnn_export.checkpoints.selection import Choices
from birnn_export.checkpoints.stored_weights import read_weights
from birnn_export.training.checkpoint import CheckpointError
from birnn_export.verification import reference
from birnn_native.library import NativeUnavailableError, instruction_sets
from birnn_service.engine.engine import EngineName, Output
from birnn_service.engine.loading import load_engine
from birnn_service.errors import StartupError
from tests.export.checkpoints.keras_archives import expected_in, unpacked

TOKENIZER = VocabularyTokenizer({token: number for number, token in enumerate("CNOPSF123")}, "smiles")
# Sizes, nonlinearity and activation of the gates of each file.
FILES = {
    "sizes.keras": ((5, 2), "tanh", "sigmoid"),
    "sizes.h5": ((2, 4, 3), "tanh", "sigmoid"),
    "gru_relu.keras": ((3,), "relu", "sigmoid"),
    "gru_hard.keras": ((3,), "tanh", "hard_sigmoid"),
    "gru_reset_before.h5": ((3,), "tanh", "hard_sigmoid"),
    "lstm_hard.h5": ((4, 3), "relu", "hard_sigmoid"),
}


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked("keras_activations.tar.xz", tmp_path_factory)


@pytest.fixture(scope="module")
def vectors(cells: Path) -> Mapping[str, NDArray[Any]]:
    return expected_in(cells)


def adopted(path: Path) -> Adopted:
    return adopt(read_weights(path), TOKENIZER, Choices(pooling="final"), max_length=20)


def batch_of(vectors: Mapping[str, NDArray[Any]]) -> RaggedBatch:
    return RaggedBatch(vectors["ids"].astype(np.int32), offsets_of(vectors["lengths"]))


@pytest.mark.parametrize("file", FILES)
def test_vectors_are_those_of_keras(cells: Path, vectors: Mapping[str, NDArray[Any]], file: str) -> None:
    checkpoint = adopted(cells / file).checkpoint
    config = checkpoint.config
    assert (config.layer_sizes, config.nonlinearity, config.gate_activation) == FILES[file]
    found = reference(checkpoint.encoder, batch_of(vectors)).pooled
    assert np.abs(found - vectors[file]).max() < 2e-6


@pytest.mark.parametrize("file", FILES)
def test_both_engines_serve_them_or_say_that_onnxruntime_does(
    cells: Path, vectors: Mapping[str, NDArray[Any]], tmp_path: Path, file: str
) -> None:
    try:
        instruction_sets()
    except NativeUnavailableError as error:
        pytest.skip(str(error))
    bundle = write_bundle(adopted(cells / file).checkpoint, tmp_path / "models" / "cells" / "1")
    engines: list[EngineName] = ["onnxruntime", "native"]
    if bundle.manifest.cell.kernel is None:
        with pytest.raises(StartupError, match="no kernel has the activations"):
            load_engine(bundle, "cpu", engine=engines.pop())
        assert "no kernel has the activations" in load_engine(bundle, "cpu").choice
    for engine in engines:
        loaded = load_engine(bundle, "cpu", engine=engine, slots=2).engine
        for slots in (1, 2):
            found = loaded.run(batch_of(vectors), Output.POOLED, slots)
            assert np.abs(found - vectors[file]).max() < 1e-5


def test_the_notes_and_the_card_say_what_cell_it_is_and_who_serves_it(cells: Path, tmp_path: Path) -> None:
    found = adopted(cells / "lstm_hard.h5")
    assert "its cell (LSTM, relu, hard_sigmoid gates) runs on a CPU only, served by onnxruntime" in found.notes[2]
    bundle = write_bundle(found.checkpoint, tmp_path / "models" / "cells" / "1")
    card = (bundle.path / "README.md").read_text(encoding="utf-8")
    assert "| architecture | bidirectional LSTM, relu, hard_sigmoid gates, 2 layers |" in card
    assert "| hidden size | 4 and 3 in each direction |" in card


def written_by(version: str | None, source: Path, path: Path) -> Path:
    """The same model as if another version of Keras had written it."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            if name != "metadata.json":
                new.writestr(name, old.read(name))
        if version is not None:
            new.writestr("metadata.json", json.dumps({"keras_version": version}))
    return path


def test_hard_sigmoid_is_what_it_was_in_the_keras_that_wrote_the_file(cells: Path, tmp_path: Path) -> None:
    of_keras_2 = written_by("2.15.0", cells / "gru_hard.keras", tmp_path / "old.keras")
    assert adopted(of_keras_2).checkpoint.config.gate_activation == "hard_sigmoid_keras2"
    unknown = written_by(None, cells / "gru_hard.keras", tmp_path / "unknown.keras")
    with pytest.raises(CheckpointError, match="nothing in the file says which Keras wrote it"):
        adopted(unknown)
    hdf5 = tmp_path / "old.h5"
    hdf5.write_bytes((cells / "lstm_hard.h5").read_bytes())
    with h5py.File(hdf5, "r+") as file:
        file.attrs["keras_version"] = b"2.4.0"
    assert adopted(hdf5).checkpoint.config.gate_activation == "hard_sigmoid_keras2"


def test_another_activation_is_refused(cells: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(cells / "gru_hard.keras") as old, zipfile.ZipFile(tmp_path / "soft.keras", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b'"hard_sigmoid"', b'"softsign"'))
    with pytest.raises(CheckpointError, match="has the recurrent activation 'softsign'; served are sigmoid and hard"):
        adopted(tmp_path / "soft.keras")
