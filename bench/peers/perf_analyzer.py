"""perf_analyzer, Triton's own load generator in C++, over the gRPC of the Open Inference Protocol.

One perf_analyzer sends the same sequences on all of its connections at about the same time: its contexts walk the input
file in step. Batches of one and the same sequence need no padding, and a server that computes equal sequences in flight
once does a fraction of the work. So every caller here is a perf_analyzer of its own with one call in flight and a share
of the sequences that no other has, and the records of all are put together over the time in which all of them ran.
"""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from bench.environments import environment, site_packages
from bench.loads import Load, Sample

WINDOWS = 3
MISSING_B64 = (
    "perf_analyzer needs the shared library libb64.so.0d: on Debian and Ubuntu, apt-get install libb64-0d "
    "(or choose --generator asyncio)"
)


@dataclass(frozen=True, slots=True)
class PerfAnalyzer:
    """A perf_analyzer that starts.

    Attributes:
        program: The executable.
        libraries: Where the CUDA runtime lies that it is linked against.
        version: What it says of itself.
    """

    program: Path
    libraries: Path
    version: str

    @classmethod
    def install(cls) -> "PerfAnalyzer":
        """Make its environment and start it once.

        Raises:
            click.ClickException: It does not start; says what is missing.
        """
        place = environment("perf_analyzer")
        program = place / "bin" / "perf_analyzer"
        libraries = site_packages(place) / "nvidia" / "cuda_runtime" / "lib"
        done = subprocess.run([program, "--version"], capture_output=True, text=True, env=_variables(libraries))
        if "libb64" in done.stderr:
            raise click.ClickException(MISSING_B64)
        if done.returncode:
            raise click.ClickException(f"{program} does not start: {done.stderr.strip() or done.stdout.strip()}")
        return cls(program, libraries, (done.stdout + done.stderr).strip())

    def command(self, model: str, address: str, batch: int, data: Path, export: Path, window: float) -> list[str]:
        """Command line of one caller: three windows of `window` seconds, however much they differ."""
        options = ["-m", model, "-i", "grpc", "-u", address, "-b", str(batch), "--concurrency-range", "1"]
        options += ["--input-data", str(data), "-p", str(round(1000 * window)), "-r", str(WINDOWS), "-s", "1000000"]
        return [str(self.program), *options, "--profile-export-file", str(export)]

    def run(
        self,
        load: Load,
        model: str,
        address: str,
        sequences: Sequence[str],
        *,
        window: float,
        prefix: Sequence[str],
        scratch: Path,
    ) -> Sample:
        """Put `load` on a server and return what the callers saw.

        Args:
            load: Sequences a call, and callers.
            model: Name of the model.
            address: Where the server listens.
            sequences: Dealt to the callers in turn; at least `load.batch` for each.
            window: Seconds of one of the three windows; calls of the first third of a window do not count. Up to
                eight times as long where that is too short.
            prefix: Put before the command, to choose cores.
            scratch: Folder for input and output files.

        Raises:
            click.ClickException: A perf_analyzer failed, or the callers did not overlap.
        """
        scratch.mkdir(parents=True, exist_ok=True)
        data = [scratch / f"data-{number}.json" for number in range(load.in_flight)]
        for number, path in enumerate(data):
            write_input(path, sequences[number :: load.in_flight])
        error: str | None = None
        # A caller that gets no answer within a whole window ends with an error, and many callers take a while to start:
        # longer windows help against both.
        for longer in (1, 2, 4, 8):
            error = self._run_all(load, model, address, data, longer * window, prefix)
            if error is None:
                try:
                    callers = [read_profile(_export(path)) for path in data]
                    return pool(callers, load.batch, warmup=longer * window / 3, least=longer * window)
                except click.ClickException as problem:
                    error = problem.message
        raise click.ClickException(f"perf_analyzer failed under {load}: {error}")

    def _run_all(
        self, load: Load, model: str, address: str, data: Sequence[Path], window: float, prefix: Sequence[str]
    ) -> str | None:
        """Run all callers at the same time; what the first to fail says at the end."""
        processes = []
        for path in data:
            # perf_analyzer writes to no file that exists.
            _export(path).unlink(missing_ok=True)
            command = self.command(model, address, load.batch, path, _export(path), window)
            processes.append(
                subprocess.Popen(
                    [*prefix, *command],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    env=_variables(self.libraries),
                )
            )
        outputs = [process.communicate()[0] for process in processes]
        failed = [output for process, output in zip(processes, outputs, strict=True) if process.returncode]
        return (failed[0].strip().splitlines() or ["no reason given"])[-1] if failed else None


def _export(data: Path) -> Path:
    return data.with_name(data.name.replace("data", "profile"))


def write_input(path: Path, sequences: Sequence[str]) -> None:
    """Write an input file of perf_analyzer; a call of n takes the next n entries."""
    path.write_text(json.dumps({"data": [{"text": [sequence]} for sequence in sequences]}))


def read_profile(path: Path) -> NDArray[np.float64]:
    """Calls [n, 2] (sent, answered) in seconds since the epoch of a `--profile-export-file`.

    Raises:
        click.ClickException: The file holds no call.
    """
    profile: dict[str, Any] = json.loads(path.read_text())
    calls = [
        (request["timestamp"], request["response_timestamps"][-1])
        for experiment in profile["experiments"]
        for request in experiment["requests"]
        if request["response_timestamps"]
    ]
    if not calls:
        raise click.ClickException(f"perf_analyzer recorded no call in {path.name}; measure longer windows")
    return np.array(calls, dtype=np.float64) / 1e9


def pool(callers: Sequence[NDArray[np.float64]], batch: int, *, warmup: float, least: float = 0.0) -> Sample:
    """Put the calls [n, 2] of every caller together, over the time in which all of them ran.

    Args:
        callers: Calls (sent, answered) of each.
        batch: Sequences a call.
        warmup: Seconds from the start of the last caller that do not count.
        least: Fewer seconds than this are no measurement.

    Raises:
        click.ClickException: That time was too short, or no call lies within it.
    """
    begin = max(calls[:, 0].min() for calls in callers) + warmup
    end = min(calls[:, 1].max() for calls in callers)
    if end <= begin + least:
        together = max(0.0, float(end - begin))
        raise click.ClickException(f"all callers ran together for {together:.1f} s only; measure longer windows")
    try:
        return Sample.of(np.concatenate(list(callers)), batch, float(begin), float(end))
    except ValueError as error:
        raise click.ClickException(str(error)) from error


def _variables(libraries: Path) -> dict[str, str]:
    return {"LD_LIBRARY_PATH": str(libraries)}
