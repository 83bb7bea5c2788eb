import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.machine import ROOT


def python(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], capture_output=True, text=True, cwd=ROOT, env=environment
    )


@pytest.mark.parametrize("command", ["engine", "tenants", "tokenizer", "rpc", "all"])
def test_every_benchmark_explains_itself(command: str) -> None:
    done = python("bench", command, "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage: python -m bench" in done.stdout


def test_the_comparison_explains_itself() -> None:
    done = python("bench.peers", "--help")
    assert done.returncode == 0, done.stderr
    assert "--serve-args" in done.stdout
    assert "--variant" in done.stdout


def test_a_file_too_small_for_distinct_calls_is_refused_before_anything_starts(tmp_path: Path) -> None:
    few = tmp_path / "few.smi"
    few.write_text("CCO\nCCN\n")
    done = python("bench.peers", "rounds", "--sequences", str(few), "--out", str(tmp_path), "--load", "bulk")
    assert done.returncode == 2
    assert "takes at least 256 distinct sequences" in done.stderr


def test_a_report_of_nothing_is_an_error(tmp_path: Path) -> None:
    done = python("bench.peers", "report", "--out", str(tmp_path))
    assert done.returncode == 1
    assert "nothing measured yet" in done.stderr


def test_the_tokenizer_benchmark_writes_json_and_markdown(tmp_path: Path) -> None:
    done = python("bench", "tokenizer", "--quick", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert '"smiles_per_second"' in (tmp_path / "tokenizer.json").read_text()
    assert "| 10,000 |" in (tmp_path / "tokenizer.md").read_text()
