"""The libraries of a comparison, each in a process of its own."""

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from bench.environments import environment
from bench.libraries.parameters import NAMES, Direction, Parameters
from bench.libraries.runner import GRAPH_FILE, Precision
from bench.libraries.worker import write_batches
from bench.machine import PYTHONPATH, ROOT, on_cores
from birnn_bundle.bundle import Bundle
from birnn_bundle.ragged import RaggedBatch

STOP_SECONDS = 10.0
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Library:
    """One way to run an encoder.

    Attributes:
        name: What reports call it.
        runner: Its runner, by the names of `bench.libraries.worker`.
        precision: Of weights and inputs.
        environment: Its requirements, by name; None for what is installed here.
        pads: Whether rows of several lengths are padded to the longest one.
        careless: Whether to show, too, what comes of a batch of several lengths that is run as if they were one.
    """

    name: str
    runner: str
    precision: Precision
    environment: str | None
    pads: bool = True
    careless: bool = False

    @property
    def label(self) -> str:
        """Name and precision."""
        return f"{self.name} {self.precision}"


# To add one, add a line; what cannot be installed or cannot run an encoder is reported as such.
LIBRARIES = [
    Library("oneDNN", "onednn", "float32", "onednn", careless=True),
    Library("oneDNN", "onednn", "bf16", "onednn"),
    Library("oneDNN", "onednn", "int8", "onednn"),
    Library("OpenVINO", "openvino", "float32", "openvino"),
    Library("OpenVINO", "openvino", "bf16", "openvino"),
    Library("PyTorch", "torch", "bf16", None, pads=False),
    Library("PyTorch", "torch", "int8", None, pads=False),
]


class Worker:
    """The process of a library, on one core; see `bench.libraries.worker` for what it is told."""

    def __init__(self, library: Library, folder: Path, core: int) -> None:
        """Start it on the encoder in `folder`.

        Raises:
            click.ClickException: The library cannot be installed, or cannot run the encoder; says why.
        """
        self.library = library
        self._folder = folder
        self._files = 0
        python = environment(library.environment) / "bin" / "python" if library.environment else Path(sys.executable)
        command = [str(python), "-m", "bench.libraries.worker", library.runner, library.precision, str(folder)]
        self._process = subprocess.Popen(
            [*on_cores([core]), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
            env={**os.environ, **dict.fromkeys(THREADS, "1"), "PYTHONPATH": PYTHONPATH},
        )
        try:
            self.version: str = self._answer()["version"]
        except click.ClickException:
            self.close()
            raise

    def close(self) -> None:
        """Let it end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def prepare(self, batches: Sequence[RaggedBatch], equal: bool) -> int:
        """Hand over batches, which it runs once; their number."""
        file = self._folder / f"{self.library.label.replace(' ', '-')}-{self._files}.npz"
        self._files += 1
        write_batches(file, batches)
        number: int = self._order({"batches": str(file), "equal": equal})["number"]
        file.unlink()
        return number

    def measure(self, number: int, seconds: float) -> float:
        """Tokens per second over about `seconds`."""
        found = self._order({"measure": number, "seconds": seconds})
        rate: float = found["tokens"] / found["seconds"]
        return rate

    def encode(self, number: int, batch: int, rows: int) -> NDArray[np.float32]:
        """The vectors [rows, D] of a batch of those handed over."""
        raw = base64.b64decode(self._order({"encode": number, "batch": batch})["vectors"])
        return np.frombuffer(raw, dtype="<f4").reshape(rows, -1)

    def _order(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            # The answer, or that there is none, says more.
            pass
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise click.ClickException(f"{self.library.label} ended with status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise click.ClickException(answer["error"])
        return answer


def parameters_of(encoder: torch.nn.Module, lstm: bool) -> Parameters:
    """The weights of a `SequenceEncoder` with a bidirectional GRU or LSTM of torch.nn."""
    values = {name: value.detach().numpy() for name, value in encoder.named_parameters()}

    def direction(suffix: str) -> Direction:
        return Direction(*(values[f"core.rnn.{name}_{suffix}"] for name in NAMES))

    count = sum(name.startswith("core.rnn.weight_ih_l") for name in values) // 2
    layers = [(direction(f"l{number}"), direction(f"l{number}_reverse")) for number in range(count)]
    return Parameters(lstm, values["embedding.weight"], layers)


@contextmanager
def workers(
    libraries: Sequence[Library], bundle: Bundle, encoder: torch.nn.Module, folder: Path, core: int
) -> Iterator[tuple[list[Worker], dict[str, str]]]:
    """Workers of an encoder for all libraries that have it, and why the others are missing."""
    parameters_of(encoder, bundle.manifest.architecture == "bilstm").write(folder)
    for name in {bundle.manifest.graphs.pooled, *(file for file in bundle.manifest.files if file.endswith(".bin"))}:
        # OpenVINO follows no link out of the folder.
        shutil.copy(bundle.path / name, folder / name)
    assert bundle.manifest.graphs.pooled == GRAPH_FILE
    started: list[Worker] = []
    missing: dict[str, str] = {}
    with ExitStack() as stack:
        for library in libraries:
            try:
                worker = Worker(library, folder, core)
            except click.ClickException as error:
                missing[library.label] = error.message
                continue
            stack.callback(worker.close)
            started.append(worker)
        yield started, missing
