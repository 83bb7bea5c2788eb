"""`python -m bench.gpu`: everything there is to check on a machine with a GPU, within a few minutes and in one go.

Each stage is a process of its own with a time of its own, and writes what it finds at once: a stage that crashes or
hangs costs nothing but itself, and a run that is cut short keeps what it had. It needs what a server needs, torch for
the reference, and no network.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import click

from bench.gpu.engines import Device
from bench.gpu.service import service
from bench.gpu.stages import Found, Plan, correctness, memory, sweep, torch_beside
from bench.machine import ROOT, describe_machine
from birnn_bundle.atomic_file import replace_text

# Of the time of a stage, what it is told to use: the rest is for its start and end.
USED = 0.7
LEAST_SECONDS = 20
STOP_SECONDS = 10


def doctor(plan: Plan) -> Iterator[Found]:
    """What `birnn doctor` says of the machine."""
    file = plan.out / "doctor.json"
    command = [sys.executable, "-m", "birnn.cli.main", "doctor", "--device", plan.device, "--models", str(plan.bundle)]
    done = subprocess.run([*command, "--seconds", "0", "--json", str(file)], capture_output=True, text=True)
    page, said = done.stdout.splitlines(), done.stderr.splitlines()
    yield {"page": page, "said": said, "error": "" if done.returncode == 0 else "the device cannot serve"}
    yield json.loads(file.read_text())


# By name: what it does, and its share of the time; the most valuable first.
STAGES: dict[str, tuple[Callable[[Plan], Iterator[Found]], float]] = {
    "doctor": (doctor, 2),
    "correctness": (correctness, 3),
    "sweep": (sweep, 3),
    "service": (service, 5),
    "memory": (memory, 2),
    "torch": (torch_beside, 1),
}


@click.command()
@click.option("--device", type=click.Choice(get_args(Device)), default="cuda", show_default=True)
@click.option(
    "--bundle",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=ROOT / "models" / "smiles" / "2",
    show_default="models/smiles/2",
    help="The encoder; one of SMILES, as a server is asked for these.",
)
@click.option(
    "--sequences",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=ROOT / "examples" / "molecules.smi",
    show_default="examples/molecules.smi",
    help="SMILES that a server is asked for.",
)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder for the results.")
@click.option("--seconds", type=click.FloatRange(min=1), default=440.0, show_default=True, help="For all stages.")
@click.option("--count", type=click.IntRange(min=10), default=2000, show_default=True, help="Sequences compared.")
@click.option("--only", type=click.Choice(list(STAGES)), multiple=True, help="These stages and no others.")
@click.option("--stage", type=click.Choice(list(STAGES)), hidden=True)
def main(
    device: Device,
    bundle: Path,
    sequences: Path,
    out: Path,
    seconds: float,
    count: int,
    only: tuple[str, ...],
    stage: str | None,
) -> None:
    """Check a machine with a GPU: right numbers, speed, the server under load, memory.

    Writes OUT/gpu.json after each stage. `--device cpu` is a rehearsal. Ends with status 0 where no stage failed.
    """
    plan = Plan(bundle.resolve(), device, seconds, count, sequences.resolve(), out.resolve())
    if stage is not None:
        _run_here(stage, plan)
        return
    out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + seconds
    stages: dict[str, dict[str, Any]] = {}
    left = [name for name in STAGES if not only or name in only]
    while left:
        name = left[0]
        share = STAGES[name][1] / sum(STAGES[each][1] for each in left)
        stages[name] = found = _run(name, plan, max(LEAST_SECONDS, share * (end - time.monotonic())))
        replace_text(out / "gpu.json", json.dumps({"machine": describe_machine(), "stages": stages}, indent=1) + "\n")
        click.echo(f"{name}: {found['error'] or 'done'} after {found['seconds']:.0f} s, {len(found['found'])} findings")
        left.pop(0)
    sys.exit(any(found["error"] for found in stages.values()))


def _run(name: str, plan: Plan, seconds: float) -> dict[str, Any]:
    """Run a stage in a process of its own, for `seconds` at most; what it found, and how it ended if not well."""
    lines, begun = plan.out / f"{name}.jsonl", time.monotonic()
    lines.unlink(missing_ok=True)
    command = [sys.executable, "-m", "bench.gpu", "--stage", name]
    for option, value in asdict(replace(plan, seconds=seconds)).items():
        command += [f"--{option}", str(value)]
    with (plan.out / f"{name}.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)
        try:
            code = process.wait(seconds)
            error = f"exit status {code}, see {name}.log" if code else ""
        except subprocess.TimeoutExpired:
            error = f"not done after {seconds:.0f} s"
            _end(process)
    found = [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []
    # Text: numbers of this name are errors of vectors.
    said = [each["error"] for each in found if isinstance(each.get("error"), str)]
    return {"seconds": time.monotonic() - begun, "error": "; ".join(filter(None, [error, *said])), "found": found}


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a stage; it gets the time to stop what it has started."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _run_here(name: str, plan: Plan) -> None:
    """Run a stage in this process."""
    with (plan.out / f"{name}.jsonl").open("w") as lines:
        for found in STAGES[name][0](replace(plan, seconds=USED * plan.seconds)):
            lines.write(json.dumps(found) + "\n")
            lines.flush()


if __name__ == "__main__":
    main(prog_name="python -m bench.gpu")
