"""The main job: train, export, serve, encode; each step as its user runs it, in a process of its own."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from birnn_export.training.checkpoint import load_encoder
from tests.e2e.molecules import molecules
from tests.e2e.server_process import PATIENCE_SECONDS, running


def birnn(*arguments: str | Path) -> str:
    command = [sys.executable, "-m", "birnn.cli.main", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert done.returncode == 0, done.stderr
    return done.stdout


# The second has more columns of its embedding than tokens.
@pytest.mark.parametrize(("architecture", "embedding"), [("birnn-scratch", 16), ("bigru", 64)])
def test_served_vectors_are_those_of_the_trained_pytorch_encoder(
    architecture: str, embedding: int, tmp_path: Path
) -> None:
    strings = molecules(300)
    corpus = tmp_path / "molecules.smi"
    corpus.write_text("".join(f"{string} name_{number}\n" for number, string in enumerate(strings)))
    run, bundle, vectors = tmp_path / "run", tmp_path / "models" / "mine" / "3", tmp_path / "vectors.npy"
    sizes = ["--embedding-size", str(embedding), "--hidden-size", "24", "--minimum-count", "2"]
    birnn("train", corpus, "-o", run, "--architecture", architecture, *sizes, "--objective", "masked", "--epochs", "1")
    assert re.search(r"mine version 3", birnn("export", run, "-o", bundle))
    birnn("models", "verify", bundle)
    with running(bundle.parents[1]) as server:
        birnn("encode", "--file", corpus, "--out", vectors, "--encoder", "mine", "--address", server.address)
        assert server.metric("birnn_sequences_total", encoder="mine") >= len(strings)
    loaded = load_encoder(run)
    batch = loaded.tokenizer.tokenize(strings, loaded.max_length).batch
    with torch.inference_mode():
        ids = torch.from_numpy(batch.padded().T.astype(np.int64))
        expected = loaded.encoder(ids, torch.from_numpy(batch.lengths)).numpy()
    served = np.load(vectors)
    assert served.shape == (300, 48)
    assert np.abs(served - expected).max() < 1e-5
