"""Checkpoints made elsewhere, exported and served as their owner does it, against what they compute by themselves."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from birnn import Client
from tests.e2e.server_process import PATIENCE_SECONDS, running
from tests.export.checkpoints.foreign_modules import (
    MOLECULES,
    TOKENIZER,
    TOKENS,
    Model,
    rows_of,
    scratch_parameters,
    scratch_vector,
)
from tests.export.checkpoints.keras_archives import expected_in, unpacked

KERAS_TOKENS = "CNOPSF123"


def export(checkpoint: Path, destination: Path, *options: object) -> None:
    command = [sys.executable, "-m", "birnn.cli.main", "export", str(checkpoint), "-o", str(destination)]
    command += ["--pooling", "final", "--max-length", "60", *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert done.returncode == 0, done.stderr


def test_served_vectors_of_foreign_checkpoints_are_their_own(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    models = tmp_path / "models"
    batch = TOKENIZER.tokenize(MOLECULES, 60).batch
    expected: dict[str, NDArray[np.float64]] = {}
    sequences = {"torch-gru": MOLECULES, "scratch-rnn": MOLECULES}

    (tmp_path / "vocab.txt").write_text("\n".join(TOKENS))
    vocabulary = ["--tokenizer", tmp_path / "vocab.txt", "--split", "smiles"]
    model = Model(nn.GRU, num_layers=2)
    torch.save(model.state_dict(), tmp_path / "gru.pt")
    export(tmp_path / "gru.pt", models / "torch-gru" / "1", *vocabulary)
    expected["torch-gru"] = model.vectors(rows_of(batch))

    scratch = scratch_parameters("h", ("f_rnn", "b_rnn"))
    torch.save(scratch, tmp_path / "scratch.pt")
    export(tmp_path / "scratch.pt", models / "scratch-rnn" / "1", *vocabulary)
    vectors = [scratch_vector(scratch, "h", ("f_rnn", "b_rnn"), row.tolist()).numpy() for row in rows_of(batch)]
    expected["scratch-rnn"] = np.stack(vectors)

    files = unpacked("keras_files.tar.xz", tmp_path_factory)
    (tmp_path / "vocab.json").write_text(json.dumps(list(KERAS_TOKENS)))
    arrays = expected_in(files)
    parts = np.split(arrays["ids"], np.cumsum(arrays["lengths"])[:-1])
    strings = ["".join(KERAS_TOKENS[number] for number in part) for part in parts]
    for name, file in (("keras-gru", "gru_stack.keras"), ("keras-reset-before", "gru_reset_before.weights.h5")):
        keras = ["--tokenizer", tmp_path / "vocab.json", "--split", "characters"]
        export(files / file, models / name / "1", *keras)
        sequences[name], expected[name] = strings, arrays[file].astype(np.float64)

    with running(models) as server, Client(server.address) as client:
        for name, own in expected.items():
            served = client.encode(sequences[name], encoder=name)
            assert np.abs(served - own).max() < 1e-5, name
            together = client.encode(sequences[name] * 20, encoder=name)
            assert np.abs(together - np.tile(own, (20, 1))).max() < 1e-5, name
