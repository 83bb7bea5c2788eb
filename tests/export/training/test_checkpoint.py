"""A checkpoint folder reads back to the same encoder, or says what is wrong with it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from birnn_export.training.checkpoint import CheckpointError, load_encoder

from .conftest import MakeTrainer


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, make_trainer: MakeTrainer) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    make_trainer(folder, epochs=1).run()
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained one, to be damaged."""
    return shutil.copytree(trained, tmp_path / "run")


def change_json(file: Path, change: Callable[[Any], object]) -> None:
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


def change_weights(run: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(run / "weights.safetensors")
    change(weights)
    save_file(weights, run / "weights.safetensors")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def test_reloaded_encoder_gives_the_same_vectors(tmp_path: Path, make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(tmp_path, epochs=1, evaluate_every=1000)
    trainer.run()
    loaded = load_encoder(tmp_path)
    batch = trainer.dataset.batch(trainer.dataset.validation, torch.device("cpu"))
    trainer.encoder.eval()
    with torch.inference_mode():
        assert torch.equal(loaded.encoder(batch.ids, batch.lengths), trainer.encoder(batch.ids, batch.lengths))
    assert not loaded.encoder.training
    assert loaded.max_length == 256
    assert loaded.training["data"] == ["molecules"]
    assert loaded.training["metrics"]["validation_total"] > 0
    assert loaded.tokenizer.to_json() == trainer.dataset.tokenizer.to_json()


def test_folder_holds_no_pickle_and_no_left_over_temporary_file(run: Path) -> None:
    assert sorted(file.name for file in run.iterdir()) == [
        "config.json",
        "curve.png",
        "metrics.jsonl",
        "tokenizer.json",
        "training.json",
        "training.safetensors",
        "weights.safetensors",
    ]


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "weights.safetensors", "training.json"])
def test_missing_and_cut_off_files_are_named(run: Path, name: str) -> None:
    cut(run / name)
    with pytest.raises(CheckpointError, match=name):
        load_encoder(run)
    (run / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name}: is missing"):
        load_encoder(run)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint folder there"):
        load_encoder(tmp_path / "none")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.update({"embedding.weight": w["embedding.weight"][:, :4].clone()}), r"is \[\d+, 4\], but config"),
        (
            lambda w: w["core.rnn.weight_hh_l0"].fill_(torch.nan),
            "core.rnn.weight_hh_l0 holds values that are not finite",
        ),
        (lambda w: w["embedding.weight"][3].fill_(torch.inf), "embedding.weight holds values that are not finite"),
        (lambda w: w.pop("core.rnn.bias_hh_l0"), "lacks core.rnn.bias_hh_l0"),
        (lambda w: w.update(surplus=torch.zeros(1)), "holds surplus"),
        (lambda w: w.update({"embedding.weight": w["embedding.weight"].half()}), "torch.float16, expected"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    run: Path, change: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    change_weights(run, change)
    with pytest.raises(CheckpointError, match=message):
        load_encoder(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(schema_version=9), "schema version 9"),
        (lambda c: c.update(tokenizer="words"), "unknown tokenizer kind 'words'"),
        (lambda c: c.update(max_length=0), "positive max_length"),
        (lambda c: c["encoder"].update(hidden_size=13), r"but config.json makes it"),
        (lambda c: c["encoder"].update(hidden_size=-1), "hidden_size must be"),
        (lambda c: c["encoder"].update(architecture="transformer"), "architecture must be one of"),
        (lambda c: c["encoder"].update(heads=4), "unknown encoder settings heads"),
        (lambda c: c["encoder"].pop("vocab_size"), "vocab_size"),
        (lambda c: c["encoder"].update(vocab_size=7), "has 2[0-9] tokens, but config.json says 7"),
        (lambda c: c["encoder"].update(layers=2), "lacks core.rnn.bias_hh_l1"),
    ],
)
def test_config_that_contradicts_is_refused(run: Path, change: Callable[[Any], object], message: str) -> None:
    change_json(run / "config.json", change)
    with pytest.raises(CheckpointError, match=message):
        load_encoder(run)


def test_tokenizer_of_another_run_is_refused(run: Path, tmp_path: Path) -> None:
    change_json(run / "tokenizer.json", lambda content: content["vocabulary"].pop())
    with pytest.raises(CheckpointError, match=r"tokens, but config\.json says"):
        load_encoder(run)


def test_resume_refuses_a_damaged_or_foreign_state(run: Path, tmp_path: Path, make_trainer: MakeTrainer) -> None:
    other = tmp_path / "other"
    trainer = make_trainer(other, architecture="bilstm", epochs=1)
    shutil.copy(run / "training.safetensors", other)
    with pytest.raises(CheckpointError, match="is not the state of this training"):
        trainer.resume()
    cut(other / "training.safetensors")
    with pytest.raises(CheckpointError, match="damaged or cut off"):
        trainer.resume()
