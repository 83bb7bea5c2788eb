"""The check of a machine with a GPU, rehearsed on a CPU."""

import json
from pathlib import Path

import numpy as np
import pytest

from bench.gpu.__main__ import STAGES
from bench.gpu.engines import mixed_lengths, random_batch
from bench.gpu.reference import float64_vectors
from bench.gpu.service import distinct_sequences
from bench.gpu.stages import Plan, correctness, memory
from bench.machine import ROOT
from birnn_bundle.bundle import Bundle
from tests.bench.test_main import python
from tests.service.engine.bundles import small_bundle


@pytest.mark.parametrize(
    ("architecture", "pooling", "layers"),
    [("bigru", "final", 1), ("bilstm", "mean+max", 2), ("birnn", "mean", 1), ("bigru", "max", 2)],
)
def test_the_reference_is_that_of_the_export(tmp_path: Path, architecture: str, pooling: str, layers: int) -> None:
    bundle = small_bundle(tmp_path, architecture, pooling, layers=layers)
    golden = bundle.golden
    # The weights lie in the graph as float32, and golden vectors were computed from the same.
    assert np.abs(float64_vectors(bundle, golden.batch) - golden.pooled).max() < 1e-9


def test_lengths_are_mixed_and_batches_have_them() -> None:
    lengths = mixed_lengths(500, 200, seed=0)
    assert (lengths.min(), lengths.max(), len(lengths)) == (1, 200, 500)
    assert (lengths < 14).mean() == pytest.approx(0.5, abs=0.1)
    bundle = Bundle.load(ROOT / "models" / "smiles-small" / "1")
    assert (random_batch(bundle, lengths, seed=0).lengths == lengths).all()


def test_distinct_sequences_are_distinct_and_readable() -> None:
    sequences = distinct_sequences(ROOT / "examples" / "molecules.smi", 300)
    assert len(set(sequences)) == 300
    bundle = Bundle.load(ROOT / "models" / "smiles-small" / "1")
    assert len(bundle.tokenizer.tokenize([one.encode() for one in sequences], 1000).rows) == 300


def plan(bundle: Bundle, folder: Path, count: int) -> Plan:
    return Plan(bundle.path, "cpu", 3600, count, ROOT / "examples" / "molecules.smi", folder)


def test_right_numbers_are_seen_to_be_right_and_the_same_in_any_company(tmp_path: Path) -> None:
    found = list(correctness(plan(Bundle.load(ROOT / "models" / "smiles-small" / "1"), tmp_path, 40)))
    compared = {each["precision"]: each for each in found if "alone" in each}
    assert compared.keys() == {"fp32", "fp16"}
    assert compared["fp32"]["error"] < 1e-5
    assert compared["fp32"]["alone"]["error"] < 1e-5
    assert compared["fp16"]["cosine"] > 0.9999
    assert compared["fp16"]["error"] > 10 * compared["fp32"]["error"]


def test_memory_is_watched_beside_what_was_predicted(tmp_path: Path) -> None:
    first, loaded, warm, *looks, last = memory(plan(small_bundle(tmp_path), tmp_path, 100))
    assert first["least"] < first["most"]
    assert loaded["loaded"] > 0
    assert warm["warm"] <= warm["shapes"] > 100
    assert [look["batches"] for look in looks] == [50, 100]
    assert last["closed"] > 0


def test_a_stage_that_fails_or_takes_too_long_costs_only_itself(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path)
    (bundle.path / "weights.bin").write_bytes(b"other weights")
    arguments = ["--device", "cpu", "--bundle", str(bundle.path), "--out", str(tmp_path / "out"), "--seconds", "3600"]
    done = python("bench.gpu", *arguments, "--only", "doctor", "--only", "memory")
    assert done.returncode == 1, done.stderr
    result = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert result["machine"]["cores"] >= 1
    assert list(result["stages"]) == ["doctor", "memory"]
    assert result["stages"]["doctor"]["error"] == "the device cannot serve"
    assert result["stages"]["memory"]["error"] == "exit status 1, see memory.log"
    assert "weights.bin was changed" in (tmp_path / "out" / "memory.log").read_text()


def test_it_explains_itself() -> None:
    done = python("bench.gpu", "--help")
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in STAGES)
