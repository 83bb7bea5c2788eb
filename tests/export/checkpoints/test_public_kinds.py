"""Checkpoints as other people's programs write them: exported as their own modules compute, or refused with advice."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from birnn_export.checkpoints.adoption import Adopted, adopt
from birnn_export.checkpoints.file_kind import refuse_foreign_folder
from birnn_export.checkpoints.selection import Choices
from birnn_export.checkpoints.stored_weights import read_weights
from birnn_export.training.checkpoint import CheckpointError
from birnn_export.verification import reference
from tests.export.checkpoints.foreign_modules import MOLECULES, TOKENIZER, TOKENS, E, H, Model, rows_of

BATCH = TOKENIZER.tokenize(MOLECULES, 50).batch
Weights = dict[str, Any]


def under(prefix: str, weights: Mapping[str, Any]) -> Weights:
    return {prefix + name: values for name, values in weights.items()}


def renamed(weights: Weights, embedding: str, rnn: str) -> Weights:
    """The same model under the names that a library gives its parts."""
    names = {"token_embedding.weight": embedding}
    return {names.get(name, name.replace("encoder.rnn.", rnn)): values for name, values in weights.items()}


def optimizer(weights: Weights) -> Weights:
    adam = torch.optim.Adam([nn.Parameter(values) for values in weights.values()])
    return adam.state_dict()


EXPORTED: dict[str, Callable[[Weights], Weights]] = {
    "state_dict": lambda w: {"epoch": 3, "state_dict": w, "optimizer": optimizer(w)},
    "model_state_dict": lambda w: {"model_state_dict": w, "loss": np.float64(0.3), "args": argparse.Namespace(lr=0.1)},
    "DataParallel": lambda w: {"model": under("module.", w)},
    "Lightning": lambda w: {
        "state_dict": under("model.", w),
        "hyper_parameters": {"lr": 1e-3, "folder": Path("data")},
        "optimizer_states": [optimizer(w)],
        "loops": {"fit_loop": {"state_dict": {}}},
    },
    "AllenNLP": lambda w: renamed(w, "_text_field_embedder.token_embedder_tokens.weight", "_contextualizer._module."),
    "flair": lambda w: {
        "state_dict": {
            **renamed(w, "embeddings.list_embedding_0.vocab_embedding", "rnn."),
            "crf.transitions": torch.ones(3, 3),
        },
        "tag_dictionary": {"B": 0},
    },
    "decoder of cells": lambda w: {
        **w,
        **under("decoder.layers.0.", nn.LSTMCell(E, 2 * H).state_dict()),
        **under("decoder.layers.1.", nn.LSTMCell(2 * H, 2 * H).state_dict()),
    },
    "tied decoder": lambda w: {**w, "decoder.weight": w["token_embedding.weight"]},
    "half precision": lambda w: {name: values.half() for name, values in w.items()},
    "batch norm behind": lambda w: {**w, **under("norm.", nn.BatchNorm1d(2 * H).state_dict())},
}


def adopted(path: Path, content: Any, choices: Choices | None = None) -> Adopted:
    torch.save(content, path)
    return adopt(read_weights(path), TOKENIZER, choices or Choices(pooling="final"))


@pytest.mark.parametrize("kind", EXPORTED)
def test_it_is_exported_as_its_own_module_computes(tmp_path: Path, kind: str) -> None:
    model = Model(nn.LSTM, num_layers=2)
    if kind == "half precision":
        model.half().float()
    encoder = adopted(tmp_path / "model.pt", EXPORTED[kind](model.state_dict())).checkpoint.encoder
    assert np.abs(reference(encoder, BATCH).pooled - model.vectors(rows_of(BATCH))).max() < 1e-12


def lstm(**options: Any) -> dict[str, Tensor]:
    return under("lstm.", nn.LSTM(E, H, bidirectional=True, **options).state_dict())


TOKEN_EMBEDDING = {"embedding.weight": torch.ones(len(TOKENS), E)}
REFUSED: dict[str, tuple[Any, str]] = {
    "projections": (
        TOKEN_EMBEDDING | lstm(proj_size=2),
        "is an LSTM with proj_size, which ONNX does not know; train with proj_size=0",
    ),
    "dropout on weights": (
        TOKEN_EMBEDDING | lstm() | {"lstm.weight_hh_l0_raw": torch.ones(4 * H, H)},
        r"weight_hh_l0_raw beside what torch\.nn knows.* is to be saved as weight_hh_l0",
    ),
    "averaged weights": (
        {"model": TOKEN_EMBEDDING | lstm(), "ema": TOKEN_EMBEDDING | lstm()},
        r"holds several recurrences; choose one with --prefix.* Found: model\.lstm: .*; ema\.lstm: ",
    ),
    "two embeddings, encoder and decoder": (
        lstm() | {f"{side}.embeddings.weight": torch.ones(len(TOKENS), E) for side in ("encoder", "decoder")},
        r"Add --embedding NAME.* Found: encoder\.embeddings\.weight .*; decoder\.embeddings\.weight ",
    ),
    "words and characters side by side": (
        lstm() | {"word_embedding.weight": torch.ones(9, 3), "char_embedding.weight": torch.ones(30, 2)},
        r"no embedding that fits: none is 5 wide.* send what your own code computes as float features\. "
        r"Not used: char_embedding\.weight, word_embedding\.weight",
    ),
    "one-hot tokens": (
        nn.LSTM(len(TOKENS), H, bidirectional=True).state_dict(),
        "reads 10 numbers, as many as the tokenizer has ids.* add --embedding one-hot",
    ),
    "a language model of one direction": (
        TOKEN_EMBEDDING | under("rnn.", nn.LSTM(E, H).state_dict()),
        r"rnn runs in one direction only, and only bidirectional encoders are served; train with bidirectional=True",
    ),
    "an optimizer": (optimizer(dict(lstm())), "holds no recurrent weights that are known here"),
    "a whole module": (nn.GRU(E, H), r"holds pickled Python objects.* torch\.save\(model\.state_dict\(\), FILE\)"),
    "a list": ([torch.ones(2)], r"holds a list, no dictionary of weights; save one: torch\.save"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_it_is_refused_with_what_to_do(tmp_path: Path, kind: str) -> None:
    content, message = REFUSED[kind]
    with pytest.raises(CheckpointError, match=message):
        adopted(tmp_path / "model.pt", content)


def test_learned_initial_states_are_told(tmp_path: Path) -> None:
    states = {name: torch.ones(2, 1, H) for name in ("h0", "lstm_c0", "init_hidden")}
    assert adopted(tmp_path / "model.pt", TOKEN_EMBEDDING | lstm() | states).notes[-1] == (
        "h0, init_hidden, lstm_c0 may be learned initial states, which are left out: here sequences start from zeros"
    )


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("config.json", "pytorch_model.bin"), r"export a file of weights in it: pytorch_model\.bin"),
        (("saved_model.pb", "keras_metadata.pb"), r"is a SavedModel of TensorFlow.* model\.save\('model\.keras'\)"),
    ],
)
def test_a_folder_of_another_program_is_told_from_one_of_ours(
    tmp_path: Path, files: tuple[str, ...], message: str
) -> None:
    for file in files:
        (tmp_path / file).touch()
    with pytest.raises(CheckpointError, match=message):
        refuse_foreign_folder(tmp_path)
    (tmp_path / "weights.safetensors").touch()
    refuse_foreign_folder(tmp_path)
