"""The server on the device, under the loads of callers."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click
import numpy as np

from bench.callers import run_callers
from bench.gpu.stages import Found, Plan
from bench.loads import Load
from bench.peers.server import Command, free_port, running
from birnn_bundle.bundle import Bundle
from birnn_bundle.sequences import SequenceFile

LOADS = (Load("bulk", 512, 4), Load("mid", 32, 16), Load("many", 1, 128), Load("lone", 1, 1))
# Distinct sequences: each caller has its own.
SEQUENCES = 4096
SMI_SECONDS = 10


def service(plan: Plan) -> Iterator[Found]:
    """Calls and latency by load, with and without front-ends. Starts take time, too."""
    bundle, end = Bundle.load(plan.bundle), plan.end
    cores = len(os.sched_getaffinity(0))
    choices = [0] if cores < 4 else [0, cores // 2]
    each = plan.seconds / (len(choices) * (len(LOADS) + 3))
    sequences = distinct_sequences(plan.sequences, SEQUENCES)
    for frontends in choices:
        if time.monotonic() > end:
            return
        with tempfile.TemporaryDirectory(prefix="birnn-") as folder:
            yield from _under_load(plan, bundle, frontends, sequences, each, Path(folder))


def distinct_sequences(file: Path, count: int) -> list[str]:
    """Molecules of a file joined to mixtures, no two alike."""
    with SequenceFile(file, None, None) as lines:
        molecules = [line.sequence.decode() for line in lines if line.sequence]
    random = np.random.default_rng(9)
    drawn: dict[str, None] = {}
    while len(drawn) < count:
        drawn[".".join(random.choice(molecules, int(random.integers(1, 4))))] = None
    return list(drawn)


def _under_load(
    plan: Plan, bundle: Bundle, frontends: int, sequences: list[str], seconds: float, scratch: Path
) -> Iterator[Found]:
    port = free_port()
    address, name = f"127.0.0.1:{port}", bundle.manifest.name
    serve = [sys.executable, "-m", "birnn.cli.main", "serve", "--models", str(plan.bundle), "--device", plan.device]
    serve += ["--grpc-port", str(port), "--metrics-port", "0", "--frontends", str(frontends)]
    begun = time.monotonic()
    log = plan.out / f"server-{frontends}.log"
    try:
        with running(Command(serve, address), name, [], log):
            yield {"frontends": frontends, "start_seconds": time.monotonic() - begun}
            for load in LOADS:
                sample = run_callers(
                    address, "encode", name, load, sequences,
                    seconds=0.7 * seconds, warmup=0.1 * seconds, prefix=[], scratch=scratch,
                )  # fmt: skip
                yield {"frontends": frontends, "load": asdict(load), "sample": asdict(sample), "gpu": _gpu()}
    except click.ClickException as error:
        yield {"frontends": frontends, "error": error.message}


def _gpu() -> str:
    """What nvidia-smi says just after a load: its utilization is that of the last second or so."""
    if (command := shutil.which("nvidia-smi")) is None:
        return ""
    query = [command, "--query-gpu=utilization.gpu,memory.used,clocks.sm,power.draw", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, timeout=SMI_SECONDS).stdout.strip()
