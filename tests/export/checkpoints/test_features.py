"""Encoders of float features: no embedding, no tokenizer."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import birnn_export
from birnn_bundle.bundle import Bundle
from birnn_bundle.errors import BundleError, ItemErrorCode
from birnn_bundle.manifest import Manifest
from birnn_bundle.ragged import RaggedBatch
from birnn_export.checkpoints.adoption import adopt
from birnn_export.checkpoints.selection import Choices
from birnn_export.checkpoints.stored_weights import StoredWeights, from_state_dict
from birnn_export.training.checkpoint import CheckpointError
from birnn_service.engine.engine import Output
from birnn_service.engine.loading import load_engine
from tests.export.checkpoints.foreign_modules import TOKENIZER, Model

F, H = 6, 5
LENGTHS = [3, 1, 17, 8]


def recurrence(layers: int = 1) -> nn.LSTM:
    torch.manual_seed(12)
    return nn.LSTM(F, H, layers, bidirectional=True)


def sequences(seed: int = 0) -> list[NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    return [random.standard_normal((length, F), dtype=np.float32) for length in LENGTHS]


def own_vectors(rnn: nn.LSTM, rows: list[NDArray[np.float32]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Final states and per-token outputs of each row alone, in float64."""
    exact, final, tokens = rnn.double(), [], []
    with torch.inference_mode():
        for row in rows:
            outputs, (h, _) = exact(torch.from_numpy(row).double())
            tokens.append(outputs.numpy())
            final.append(torch.cat([h[-2], h[-1]]).numpy())
    return np.stack(final), np.concatenate(tokens)


def exported(folder: Path, pooling: str = "final", layers: int = 1) -> Bundle:
    path = folder / "models" / "signals" / "1"
    return birnn_export.export_encoder(recurrence(layers), None, path, pooling=pooling, max_length=20)  # type: ignore[arg-type]


@pytest.mark.parametrize("engine", ["onnxruntime", "auto"])
@pytest.mark.parametrize("layers", [1, 2])
def test_features_encode_as_their_own_module_does(tmp_path: Path, layers: int, engine: str) -> None:
    proven = load_engine(exported(tmp_path, layers=layers), "cpu", engine=engine, slots=1)  # type: ignore[arg-type]
    final, tokens = own_vectors(recurrence(layers), sequences())
    batch = RaggedBatch.from_features(sequences())
    assert np.abs(proven.engine.run(batch, Output.POOLED) - final).max() < 1e-6
    assert np.abs(proven.engine.run(batch, Output.TOKENS) - tokens).max() < 1e-6


@pytest.mark.parametrize("pooling", ["mean", "max", "mean+max"])
def test_every_pooling_is_exported_for_features(tmp_path: Path, pooling: str) -> None:
    assert exported(tmp_path, pooling).manifest.verification.max_error_pooled < 1e-6


def test_the_manifest_says_how_many_features_and_has_no_tokenizer(tmp_path: Path) -> None:
    bundle = exported(tmp_path)
    manifest = bundle.manifest
    assert (manifest.inputs, manifest.features, manifest.vocab_size, manifest.tokenizer) == ("features", F, 0, None)
    assert bundle.golden.batch.features == F
    assert not (bundle.path / "tokenizer.json").exists()
    assert f"{F} float features a token" in (bundle.path / "README.md").read_text()
    refused = bundle.tokenizer.tokenize(["CCO"], 9)
    assert [error.code for error in refused.errors] == [ItemErrorCode.UNKNOWN_CHARACTERS]


@pytest.mark.parametrize("change", [{"inputs": "ids"}, {"vocab_size": 7}, {"tokenizer": {"kind": "smiles"}}])
def test_a_manifest_that_contradicts_itself_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    content = exported(tmp_path).manifest.model_dump() | change
    with pytest.raises(ValueError, match="ids need both, features neither"):
        Manifest.model_validate(content)


def test_golden_features_of_another_width_are_refused(tmp_path: Path) -> None:
    bundle = exported(tmp_path)
    changed = bundle.manifest.model_copy(update={"embedding_size": F + 1})
    (bundle.path / "manifest.json").write_text(changed.to_json())
    with pytest.raises(BundleError, match="number of the golden inputs' features is 6, the manifest declares 7"):
        Bundle.load(bundle.path)


def test_an_embedding_can_be_left_out_on_purpose_and_a_tokenizer_is_then_too_much() -> None:
    stored = StoredWeights("model.pt", from_state_dict(Model(nn.GRU).state_dict()))
    choices = Choices(pooling="final", embedding="none")
    adopted = adopt(stored, None, choices)
    assert adopted.checkpoint.config.inputs == "features"
    assert "no embedding: it reads 5 float features a step" in adopted.notes
    with pytest.raises(CheckpointError, match="reads float features and needs no tokenizer"):
        adopt(stored, TOKENIZER, choices)
