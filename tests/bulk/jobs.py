"""The command as users run it, and what its output holds."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

MOLECULES = ("CCO", "c1ccccc1", "CC(=O)Oc1ccccc1C(=O)O", "N", "CCN(CC)CC", "O=C(C)Oc1ccccc1C(=O)O", "C1CCCCC1", "CCO")


def molecules(count: int) -> list[str]:
    """Different SMILES of many lengths, in no order of them."""
    return ["C" * (1 + 7 * row % 53) + "O" * (row // 53 % 40) + MOLECULES[row % len(MOLECULES)] for row in range(count)]


def command(*arguments: object) -> list[str]:
    """`birnn bulk` with arguments."""
    return [sys.executable, "-m", "birnn", "bulk", *map(str, arguments)]


def bulk(*arguments: object, status: int = 0) -> str:
    """Run it to its end; returns what it told."""
    done = subprocess.run(command(*arguments), capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == status, done.stderr
    return done.stderr


def environment() -> dict[str, str]:
    """Of the command."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def content(out: Path) -> dict[str, bytes]:
    """All files of an output, without the lock, which is empty."""
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def vectors(out: Path) -> NDArray[np.float32]:
    """float32 [n, D], as the files give them in order; where there is none, anything."""
    column = pq.read_table(out / "parts", columns=["embedding"]).column("embedding").combine_chunks()
    # Not `flatten`, which leaves out what is null.
    return np.asarray(column.values.to_numpy(zero_copy_only=False), np.float32).reshape(-1, column.type.list_size)
