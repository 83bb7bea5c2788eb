"""Training learns, repeats itself, goes on exactly, and stops when it should."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from birnn_export.training.checkpoint import load_encoder
from birnn_export.training.dataset import Dataset
from birnn_export.training.device import resolve_device
from birnn_export.training.errors import TrainingError
from birnn_export.training.settings import TrainingSettings
from birnn_export.training.trainer import Trainer

from .conftest import MakeTrainer

pytestmark = pytest.mark.usefixtures("undrawn")

ARCHITECTURES = ["bigru", "bilstm", "birnn", "birnn-scratch"]


def metrics(path: Path) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl without what depends on the clock."""
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def seen_again(dataset: Dataset) -> Dataset:
    """Validated with the training rows: so few sequences can be learned, not generalized from."""
    return replace(dataset, validation=dataset.train)


def stop_after(trainer: Trainer, step: int) -> Callable[[], bool]:
    return lambda: trainer.position.step >= step


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_training_lowers_every_loss(
    tmp_path: Path, make_trainer: MakeTrainer, molecules: Dataset, architecture: str
) -> None:
    trainer = make_trainer(tmp_path, seen_again(molecules), architecture, epochs=12)
    before = trainer.evaluate()
    assert trainer.run() == "finished"
    after = trainer.evaluate()
    for name in ("total", "masked", "descriptors", "fingerprint"):
        assert after[name] < before[name]


def test_scored_pairs_lower_their_loss(tmp_path: Path, make_trainer: MakeTrainer, scored: Dataset) -> None:
    trainer = make_trainer(tmp_path, seen_again(scored), objectives={"similarity": 1.0}, epochs=8, batch_tokens=200)
    before = trainer.evaluate()
    trainer.run()
    assert trainer.evaluate()["similarity"] < 0.7 * before["similarity"]


def test_text_objectives_lower_their_losses(tmp_path: Path, make_trainer: MakeTrainer, sentences: Dataset) -> None:
    objectives = {"contrast": 1.0, "tokens": 1.0, "next-tokens": 1.0}
    trainer = make_trainer(tmp_path, seen_again(sentences), objectives=objectives, epochs=20, batch_tokens=100)
    before = trainer.evaluate()
    trainer.run()
    after = trainer.evaluate()
    for name in objectives:
        assert after[name] < before[name]


def test_same_seed_same_result_and_another_seed_another(tmp_path: Path, make_trainer: MakeTrainer) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        make_trainer(tmp_path / name, seed=seed).run()
    assert metrics(tmp_path / "a") == metrics(tmp_path / "b")
    assert metrics(tmp_path / "a") != metrics(tmp_path / "c")
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in "abc"]
    assert weights[0] == weights[1] != weights[2]


@pytest.mark.parametrize("step", [3, 10, 13])
def test_resumed_run_repeats_an_uninterrupted_one_exactly(tmp_path: Path, make_trainer: MakeTrainer, step: int) -> None:
    whole = make_trainer(tmp_path / "whole")
    assert whole.run() == "finished"
    first = make_trainer(tmp_path / "parts")
    assert first.run(stop=stop_after(first, step)) == "stopped"
    assert first.position.step == step

    second = make_trainer(tmp_path / "other")
    second.path = tmp_path / "parts"
    second.resume()
    assert second.position.step == step
    assert second.run() == "finished"

    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
    for name, parameter in whole.model.named_parameters():
        assert torch.equal(parameter, second.model.get_parameter(name)), name


def test_lines_after_the_saved_position_are_dropped_on_resume(tmp_path: Path, make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(tmp_path)
    trainer.run(stop=stop_after(trainer, 7))
    saved = (tmp_path / "metrics.jsonl").read_text()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 10, "train": {}}\n{"step": 15, "tr')
    trainer.resume()
    assert (tmp_path / "metrics.jsonl").read_text() == saved


def test_checkpoint_can_be_loaded_before_the_first_evaluation(tmp_path: Path, make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(tmp_path, evaluate_every=1000)
    trainer.run(stop=stop_after(trainer, 1))
    assert load_encoder(tmp_path).config == trainer.encoder.config


def test_best_weights_are_kept_and_training_stops_early(tmp_path: Path, make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(tmp_path, epochs=400, evaluate_every=4, patience=3, learning_rate=0.1, warmup_steps=0)
    assert trainer.run() == "early"
    lines = metrics(tmp_path)
    losses = [line["validation"]["total"] for line in lines]
    assert losses.index(min(losses)) == len(losses) - 4
    assert trainer.position.best_loss == min(losses)
    assert load_encoder(tmp_path).training["metrics"]["validation_total"] == round(min(losses), 5)


def test_minutes_end_the_run(tmp_path: Path, make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(tmp_path, epochs=10**6, max_minutes=1e-6)
    assert trainer.run() == "time"
    assert trainer.position.step >= 1
    assert len(metrics(tmp_path)) == 1


def test_steps_end_the_run_and_the_schedule_and_more_can_be_given(tmp_path: Path, make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(tmp_path / "run", epochs=10**6, max_steps=7, evaluate_every=1)
    assert trainer.run() == "finished"
    assert trainer.position.step == 7
    assert metrics(tmp_path / "run")[-1]["learning_rate"] == pytest.approx(5e-4)
    further = make_trainer(tmp_path / "other", epochs=10**6, max_steps=9, evaluate_every=1)
    further.path = tmp_path / "run"
    further.resume()
    assert further.run() == "finished"
    assert further.position.step == 9


def test_stable_schedule_holds_the_rate_until_the_last_fifth(tmp_path: Path, make_trainer: MakeTrainer) -> None:
    rates = {}
    for schedule in ("stable", "cosine"):
        trainer = make_trainer(
            tmp_path / schedule, schedule=schedule, epochs=6, evaluate_every=1, warmup_steps=0, patience=999
        )
        trainer.run()
        rates[schedule] = [line["learning_rate"] for line in metrics(tmp_path / schedule)]
    steps = len(rates["stable"])
    assert rates["stable"][: int(0.8 * steps) - 1] == [1e-2] * (int(0.8 * steps) - 1)
    for one in rates.values():
        assert one == sorted(one, reverse=True)
        assert one[-1] == pytest.approx(5e-4)
    assert rates["cosine"][steps // 2] < 0.6e-2


def test_loss_that_is_not_finite_stops_with_advice(tmp_path: Path, make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(tmp_path)
    with torch.no_grad():
        trainer.encoder.embedding.weight[3:].fill_(torch.nan)
    with pytest.raises(TrainingError, match=r"loss is nan at step 1.*lower --learning-rate"):
        trainer.run()


def test_bf16_trains_on_a_cpu(tmp_path: Path, make_trainer: MakeTrainer, molecules: Dataset) -> None:
    trainer = make_trainer(tmp_path, seen_again(molecules), precision="bf16", epochs=6)
    before = trainer.evaluate()["total"]
    trainer.run()
    assert trainer.evaluate()["total"] < before
    assert trainer.encoder.embedding.weight.dtype == torch.float32


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_asked_for_and_missing_is_an_error() -> None:
    with pytest.raises(TrainingError, match="finds no CUDA device"):
        resolve_device("cuda")
    assert resolve_device("auto").type == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_fp16_on_a_cpu_is_an_error(tmp_path: Path, make_trainer: MakeTrainer, device: str) -> None:
    with pytest.raises(TrainingError, match="fp16 needs CUDA"):
        make_trainer(tmp_path, precision="fp16", device=device)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch_tokens": 0},
        {"learning_rate": 0.0},
        {"clip_norm": float("nan")},
        {"mask_share": 1.0},
        {"max_minutes": 0.0},
        {"max_steps": 0},
        {"warmup_steps": -1},
        {"precision": "int8"},
        {"schedule": "linear"},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(TrainingError):
        TrainingSettings(objectives={"masked": 1.0}, **wrong)
