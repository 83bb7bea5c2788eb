from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import birnn_export
from birnn_bundle.bundle import Bundle
from birnn_export.training.checkpoint import CheckpointError
from tests.export.checkpoints.foreign_modules import MOLECULES, TOKENIZER, TOKENS, Model, bundle_vectors, rows_of

BATCH = TOKENIZER.tokenize(MOLECULES, 50).batch


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_a_module_in_memory_becomes_a_bundle_that_encodes_as_it_does(tmp_path: Path, nonlinearity: str) -> None:
    model = Model(nn.RNN, num_layers=2, nonlinearity=nonlinearity)
    path = tmp_path / "models" / "mine" / "4"
    birnn_export.export_encoder(
        model, TOKENIZER, path, pooling="final", max_length=20, description="Mine.", sequences=["CCO"]
    )
    bundle = Bundle.load(path)
    assert (bundle.label, bundle.manifest.description, bundle.manifest.nonlinearity) == (
        "mine/4",
        "Mine.",
        nonlinearity,
    )
    assert np.abs(bundle_vectors(bundle, BATCH) - model.vectors(rows_of(BATCH))).max() < 1e-6


def test_the_module_is_left_as_it_is(tmp_path: Path) -> None:
    model = Model(nn.LSTM).double().train()
    birnn_export.export_encoder(model, TOKENIZER, tmp_path / "m" / "1", pooling="mean", max_length=20)
    assert model.training
    assert next(model.parameters()).dtype == torch.float64


def test_a_recurrence_alone_is_a_module_too(tmp_path: Path) -> None:
    rnn = nn.RNN(10, 3, bidirectional=True, nonlinearity="relu")
    bundle = birnn_export.export_encoder(
        rnn, TOKENIZER, tmp_path / "m" / "1", pooling="max", embedding="one-hot", max_length=20
    )
    assert bundle.manifest.nonlinearity == "relu"


def test_what_is_ambiguous_is_asked_for(tmp_path: Path) -> None:
    both = nn.ModuleDict({"one": Model(nn.GRU), "two": Model(nn.GRU)})
    with pytest.raises(CheckpointError, match=r"ModuleDict: holds several recurrences; choose one with --prefix"):
        birnn_export.export_encoder(both, TOKENIZER, tmp_path / "m" / "1", pooling="final")
    bundle = birnn_export.export_encoder(
        both,
        TOKENIZER,
        tmp_path / "m" / "1",
        pooling="final",
        prefix="two.encoder",
        embedding="two.token_embedding.weight",
        max_length=20,
    )
    assert "two.encoder.rnn" in bundle.manifest.training.recipe


def test_vectors_that_are_shortened_when_looked_up_are_refused_until_they_are(tmp_path: Path) -> None:
    model = Model(nn.GRU)
    model.token_embedding.max_norm = 0.5
    with pytest.raises(CheckpointError, match=r"token_embedding\.weight is looked up with max_norm=0\.5"):
        birnn_export.export_encoder(model, TOKENIZER, tmp_path / "m" / "1", pooling="final")
    model.token_embedding(torch.arange(len(TOKENS)))
    bundle = birnn_export.export_encoder(model, TOKENIZER, tmp_path / "m" / "1", pooling="final", max_length=20)
    assert np.abs(bundle_vectors(bundle, BATCH) - model.vectors(rows_of(BATCH))).max() < 1e-6


def test_layers_of_tanh_and_of_relu_are_no_stack(tmp_path: Path) -> None:
    layers = nn.ModuleDict(
        {
            "a": nn.RNN(10, 3, bidirectional=True),
            "b": nn.RNN(6, 3, bidirectional=True, nonlinearity="relu"),
        }
    )
    with pytest.raises(CheckpointError, match="a, b: one is of tanh, another of relu"):
        birnn_export.export_encoder(
            layers, TOKENIZER, tmp_path / "m" / "1", pooling="final", prefix=("a", "b"), embedding="one-hot"
        )


def test_what_is_wrong_is_said_of_a_plain_rnn_too(tmp_path: Path) -> None:
    model = Model(nn.RNN, nonlinearity="relu")
    with torch.no_grad():
        model.token_embedding.weight[2, 1] = torch.nan
    with pytest.raises(CheckpointError, match=r"token_embedding\.weight is not finite"):
        birnn_export.export_encoder(model, TOKENIZER, tmp_path / "m" / "1", pooling="final")


def test_a_module_that_has_no_weights_yet_is_refused(tmp_path: Path) -> None:
    model = nn.ModuleDict({"encoder": Model(nn.GRU), "head": nn.LazyLinear(1)})
    with pytest.raises(CheckpointError, match=r"ModuleDict: head\.weight is no array of numbers"):
        birnn_export.export_encoder(model, TOKENIZER, tmp_path / "m" / "1", pooling="final")


def test_the_package_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="no attribute 'import_encoder'"):
        birnn_export.import_encoder  # noqa: B018
