"""Several processes that train one encoder, as torchrun starts them."""

import json
import os
import subprocess
import sys
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from export.training.errors import TrainingError
from export.training.replicas import Replicas

from .conftest import MOLECULES

LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--no-python", "--nproc-per-node", "2"]
TRAIN = [sys.executable, "-c", "from export.train_command import train; train()"]
OPTIONS = [
    *("--embedding-size", "6", "--hidden-size", "8", "--minimum-count", "1", "--validation-share", "0.2"),
    *("--batch-tokens", "60", "--evaluate-every", "3", "--workers", "1", "--device", "cpu", "--pooling", "mean+max"),
    *("--objective", "masked,descriptors,atoms,environments"),
]

EXCHANGE = """
import json, time
import numpy as np, torch
from export.training.replicas import Replicas

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
print(json.dumps({
    "batches": [int(one[0]) for one in batches],
    "gradients": [one.grad.flatten().tolist() for one in (weight, bias, other)],
    "agreed": replicas.agree(replicas.rank + 0.5, 7),
    "rank": replicas.rank,
    "ahead": ahead,
    "sum": replicas.sum(10 + replicas.rank),
}))
"""


def launch(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([*LAUNCH, *command], env=environment, capture_output=True, text=True, timeout=120)


def alone(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TRAIN, *arguments], capture_output=True, text=True, timeout=120)


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_processes_share_batches_and_average_gradients() -> None:
    finished = launch(sys.executable, "-c", EXCHANGE)
    assert finished.returncode == 0, finished.stderr
    told = sorted((json.loads(line) for line in finished.stdout.splitlines()), key=itemgetter("rank"))
    assert [one["batches"] for one in told] == [[0, 2, 4], [1, 3, 5]]
    assert told[0]["ahead"] < told[1]["ahead"]
    for one in told:
        assert one["gradients"] == [[1.5] * 6, [4.0] * 4, [0.0]]
        assert one["agreed"] == [0.5, 7]
        assert one["sum"] == 21


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
    # The first one alone prepares and reports.
    assert finished.stderr.count("sequences to train on") == 1
    refused = alone("-o", str(out), "--resume")
    assert refused.returncode == 1
    assert "was one of 2 processes and cannot go on with 1" in refused.stderr
    # In as many steps, two processes see as many batches as one does in twice the steps.
    assert alone(str(corpus), *OPTIONS, "-o", str(tmp_path / "alone"), "--max-steps", "14").returncode == 0
    lines = [metrics(whole), metrics(out), metrics(tmp_path / "alone")]
    assert [[line["step"] for line in own] for own in lines[:2]] == [[3, 6, 7], [3, 4, 6, 7]]
    assert len({own[-1]["tokens"] for own in lines}) == 1


def test_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match="on CPUs only"):
        Replicas.join(torch.device("cuda"))
