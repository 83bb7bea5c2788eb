"""The most multiply-adds that one core can do in each precision: what an engine's speed is a share of."""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("peak.c")
FLAGS = ["-O3", "-march=native", "-ffp-contract=fast"]
SECONDS = 1.0
# One multiplication of square float32 matrices that fit into the second-level cache, over and over.
SGEMM = f"""
import time, numpy as np
a = np.ones((384, 384), dtype=np.float32); b = a.copy(); c = a.copy(); best = 0.0; end = time.perf_counter() + {SECONDS}
while (start := time.perf_counter()) < end:
    np.dot(a, b, out=c)
    best = max(best, 2 * 384**3 / (time.perf_counter() - start) / 1e9)
print(best)
"""


@dataclass(frozen=True, slots=True)
class Peak:
    """What one core can do at most.

    Attributes:
        rates: Billions of operations a second by precision, a multiply-add being 2: `float32`, and `bf16` and `int8`
            where the processor has instructions that multiply and add those.
        method: How that was measured.
    """

    rates: dict[str, float]
    method: str


def measure_peak(core: int) -> Peak:
    """Measure the peak of `core`: by chains of multiply-adds in registers where there is a C compiler, else by sgemm.

    The latter is what a good library reaches, somewhat below the processor's peak, and knows float32 only.
    """
    compiler = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
    if compiler is not None:
        with tempfile.TemporaryDirectory(prefix="birnn-bench-") as folder:
            program = Path(folder) / "peak"
            compiled = subprocess.run([compiler, *FLAGS, SOURCE, "-o", program], capture_output=True)
            if compiled.returncode == 0:
                lines = [line.split() for line in _run(core, [str(program), str(SECONDS)]).splitlines()]
                rates = {precision: float(rate) for precision, rate, _ in lines}
                lanes = lines[0][2]
                return Peak(rates, f"chains of multiply-adds on {lanes} lanes, compiled by {Path(compiler).name}")
    rate = float(_run(core, [sys.executable, "-c", SGEMM]))
    return Peak({"float32": rate}, "numpy's sgemm of 384 x 384 on one thread")


def _run(core: int, command: list[str]) -> str:
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    pinned = ["taskset", "--cpu-list", str(core), *command]
    return subprocess.run(pinned, capture_output=True, text=True, check=True, env={**os.environ, **threads}).stdout
