"""Several processes that train one encoder, as torchrun starts them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from birnn_export.encoders import EncoderConfig
from birnn_export.training.dataset import Dataset
from birnn_export.training.errors import TrainingError
from birnn_export.training.replicas import Replicas
from birnn_export.training.settings import TrainingSettings
from birnn_export.training.trainer import Trainer

from .conftest import MOLECULES

LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--no-python", "--nproc-per-node", "2"]
TRAIN = [sys.executable, "-c", "from birnn_export.train_command import train; train()"]
OPTIONS = [
    *("--embedding-size", "6", "--hidden-size", "8", "--minimum-count", "1", "--validation-share", "0.2"),
    *("--batch-tokens", "60", "--evaluate-every", "3", "--workers", "1", "--device", "cpu", "--pooling", "mean+max"),
    *("--objective", "masked,descriptors,atoms,environments,likeness"),
]

EXCHANGE = """
import json, sys, time
from pathlib import Path
import numpy as np, torch
from birnn_export.training.replicas import Replicas

replicas = Replicas.join(torch.device("cpu"))
with replicas.first_goes_ahead():
    time.sleep(0.3 * replicas.first)
    ahead = time.monotonic()
batches = replicas.share([np.array([number]) for number in range(7)])
weight, bias, other = (torch.nn.Parameter(torch.zeros(shape)) for shape in ((2, 3), 4, 1))
weight.grad = torch.full((2, 3), 1.0 + replicas.rank)
if replicas.first:
    bias.grad = torch.full((4,), 8.0)
replicas.average_gradients([weight, bias, other])
told = {
    "batches": [int(one[0]) for one in batches],
    "gradients": [one.grad.flatten().tolist() for one in (weight, bias, other)],
    "agreed": replicas.agree(replicas.rank + 0.5, 7),
    "ahead": ahead,
    "sum": replicas.sum(10 + replicas.rank),
}
Path(sys.argv[1], f"{replicas.rank}.json").write_text(json.dumps(told))
"""


def launch(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([*LAUNCH, *command], env=environment, capture_output=True, text=True, timeout=120)


def alone(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TRAIN, *arguments], capture_output=True, text=True, timeout=120)


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_processes_share_batches_and_average_gradients(tmp_path: Path) -> None:
    finished = launch(sys.executable, "-c", EXCHANGE, str(tmp_path))
    assert finished.returncode == 0, finished.stderr
    told = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert [one["batches"] for one in told] == [[0, 2, 4], [1, 3, 5]]
    assert told[0]["ahead"] < told[1]["ahead"]
    for one in told:
        assert one["gradients"] == [[1.5] * 6, [4.0] * 4, [0.0]]
        assert one["agreed"] == [0.5, 7]
        assert one["sum"] == 21


@pytest.mark.slow
def test_two_processes_train_one_encoder_and_go_on(tmp_path: Path) -> None:
    corpus, out, whole = tmp_path / "molecules.smi", tmp_path / "run", tmp_path / "whole"
    corpus.write_text("\n".join(MOLECULES))
    arguments = [*TRAIN, str(corpus), *OPTIONS]
    for folder, steps in ((whole, "7"), (out, "4")):
        finished = launch(*arguments, "-o", str(folder), "--schedule", "stable", "--max-steps", steps)
        assert finished.returncode == 0, finished.stderr
    training = json.loads((out / "training.json").read_text())
    assert training["processes"] == 2
    assert training["recipe"].startswith(
        "torchrun --standalone --no-python --nproc-per-node 2 birnn train molecules.smi"
    )
    resumed = launch(*TRAIN, "-o", str(out), "--resume", "--max-steps", "7")
    assert resumed.returncode == 0, resumed.stderr
    # A stable schedule of 7 steps has the same rates in its first four as one of 4 steps.
    states = [load_file(folder / "training.safetensors") for folder in (whole, out)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    # The first one alone reports.
    assert finished.stderr.count("sequences to train on") == 1
    refused = alone("-o", str(out), "--resume")
    assert refused.returncode == 1
    assert "this run is one of 2 processes, not 1; go on with: torchrun " in refused.stderr
    # In as many steps, two processes see as many batches as one does in twice the steps.
    assert alone(str(corpus), *OPTIONS, "-o", str(tmp_path / "alone"), "--max-steps", "14").returncode == 0
    lines = [metrics(whole), metrics(out), metrics(tmp_path / "alone")]
    assert [[line["step"] for line in own] for own in lines[:2]] == [[3, 6, 7], [3, 4, 6, 7]]
    assert len({own[-1]["tokens"] for own in lines}) == 1


def test_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match="on CPUs only"):
        Replicas.join(torch.device("cuda"))


# With rank 1, the first process, which saves, must hear of a signal to the other one; rank 0 adds little.
@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_signal_to_one_process_stops_and_saves(tmp_path: Path, rank: int) -> None:
    corpus, out = tmp_path / "molecules.smi", tmp_path / "run"
    corpus.write_text("\n".join(MOLECULES))
    arguments = [*TRAIN, str(corpus), *OPTIONS, "-o", str(out), "--epochs", "1000", "--patience", "1000"]
    with subprocess.Popen([*LAUNCH, *arguments], stderr=subprocess.PIPE, text=True) as launcher:
        deadline = time.monotonic() + 60
        while not (out / "training.safetensors").exists():
            assert launcher.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
        ranks = [f"RANK={rank}" in Path(f"/proc/{child}/environ").read_text().split("\0") for child in children]
        os.kill(int(children[ranks.index(True)]), signal.SIGTERM)
        _, errors = launcher.communicate(timeout=60)
    assert errors.count("and saved. Go on with:\n  torchrun ") == 1, errors
    with safe_open(out / "training.safetensors", "pt") as state:
        position = json.loads(state.metadata()["position"])
    assert f"Stopped at step {position['step']:,} and saved" in errors


def test_more_processes_than_batches_are_refused(molecules: Dataset, tmp_path: Path) -> None:
    config = EncoderConfig("bigru", molecules.tokenizer.vocab_size, 8, 12)
    settings = TrainingSettings({"masked": 1.0}, batch_tokens=1 << 20)
    with pytest.raises(TrainingError, match="fewer batches than 4 processes"):
        Trainer(tmp_path, config, molecules, settings, {}, Replicas(0, 4))
